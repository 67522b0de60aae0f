"""The collector: who may send, what it counts, what it remembers and tells; over real sockets, with a real history."""

import json
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import REGISTRY

from nms_workers import settings
from nms_workers.bench.flow_datagrams import Traffic, ipfix, v5, v9
from nms_workers.errors import ConfigError
from nms_workers.fleet.inventory import Target
from nms_workers.flows import telling
from nms_workers.flows.counters import _METRICS
from nms_workers.flows.keeping import Keeper
from nms_workers.flows.template_file import TemplateFile
from nms_workers.services.flows.decode import decode
from nms_workers.services.flows.decoded import Datagram
from nms_workers.services.flows.service import Flows
from nms_workers.services.flows.templates import Templates
from nms_workers.services.snmp.service import Snmp
from tests.fleet.stores import rows, wait_until
from tests.flows.conftest import Collect
from tests.flows.exporters import send
from tests.services.flows import encode
from tests.services.flows.encode import Spec

MakeTarget = Callable[..., Target]


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def scan(source: int, destination: int, ports: range) -> list[bytes]:
    """NetFlow 5 of a SYN to each of these ports."""
    header = struct.pack(">HHIIIIBBH", 5, 1, 60_000, int(time.time()), 0, 0, 0, 0, 0)
    return [
        header
        + struct.pack(">IIIHHIIII", 0x0A000000 + source, 0x0A000000 + destination, 0, 1, 2, 1, 40, 59_000, 59_000)
        + struct.pack(">HHBBBBHHBBH", 50_000, port, 0, 2, 6, 0, 0, 0, 0, 0, 0)
        for port in ports
    ]


def counters(interface: int, octets: int, *, agent: bytes = bytes((127, 0, 0, 1))) -> bytes:
    """sFlow 5 with one sample of generic interface counters; the multicast packets are not counted by the agent."""
    generic = struct.pack(">IIQII", interface, 6, 1_000_000_000, 1, 3)
    generic += struct.pack(">QIIIIII", octets, 11, 0xFFFFFFFF, 13, 14, 15, 16)
    generic += struct.pack(">QIIIIII", 2 * octets, 21, 22, 23, 24, 25, 0)
    record = struct.pack(">II", 1, len(generic)) + generic
    sample = struct.pack(">III", 1, interface, 1) + record
    return struct.pack(">II4sIIII", 5, 1, agent, 0, 1, 1000, 1) + struct.pack(">II", 2, len(sample)) + sample


def test_who_is_not_allowed_is_counted_and_told_once(collect: Collect, caplog: pytest.LogCaptureFixture) -> None:
    collecting = collect(exporters=("127.0.0.2/32",))
    refused = counted("nms_flows_refused_datagrams_total")
    datagrams = v5(2).datagrams

    send(collecting.port, datagrams * 2)
    collecting.send(datagrams, address="127.0.0.2")

    assert collecting.totals(60)[0] == 60
    wait_until(lambda: counted("nms_flows_refused_datagrams_total") - refused == 4)
    send(collecting.port, datagrams)
    wait_until(lambda: counted("nms_flows_refused_datagrams_total") - refused == 6)
    assert [r.message for r in caplog.records if "127.0.0.1 is not in flows.exporters" in r.message] == [
        "127.0.0.1 is not in flows.exporters: what it sends is left out"
    ]
    assert rows(collecting.engine, "SELECT host(address) FROM flow_exporters") == [("127.0.0.2",)]


def test_either_format_is_taken_at_each_port(collect: Collect) -> None:
    collecting = collect(listen=("127.0.0.1:0", "127.0.0.1:0"))
    first, second = (one.port for one in collecting.collector.sockets)

    for port in (first, second):
        for traffic in (v5(1), v9(1), ipfix(1)):
            send(port, [*traffic.first, *traffic.datagrams])

    assert collecting.totals(2 * (30 + 26 + 24))[0] == 160
    (versions,) = rows(collecting.engine, "SELECT versions FROM flow_exporters")[0]
    assert sorted(versions) == [5, 9, 10]


def test_what_cannot_be_decoded_is_counted_by_exporter_and_reason(collect: Collect) -> None:
    collecting = collect()
    labels = {"exporter": "127.0.0.1", "reason": "unknown_version"}
    before = counted("nms_flows_problems_total", **labels)

    collecting.send([b"nonsense", b"", v5(1).datagrams[0]])

    assert collecting.totals(30)[0] == 30
    wait_until(lambda: counted("nms_flows_problems_total", **labels) - before >= 1)


def test_gaps_in_the_numbers_are_losses_of_the_exporter(collect: Collect) -> None:
    collecting = collect()
    traffic = v5(3)
    first, _, third = (_numbered(traffic, n) for n in range(3))

    collecting.send([first, third])

    assert collecting.totals(60)[0] == 60
    wait_until(lambda: rows(collecting.engine, "SELECT datagrams, flows, lost FROM flow_exporters") == [(2, 60, 30)])


def _numbered(traffic: Traffic, number: int) -> bytes:
    datagram = bytearray(traffic.datagrams[number])
    struct.pack_into(">I", datagram, traffic.sequence_at, number * traffic.step)
    return bytes(datagram)


@pytest.mark.parametrize("make", [v9, ipfix], ids=["v9", "ipfix"])
def test_after_a_restart_data_is_read_without_its_template(make: Callable[[int], Traffic], collect: Collect) -> None:
    traffic = make(2)
    before = collect()
    port = before.send([*traffic.first, traffic.datagrams[0]])
    before.stop()

    after = collect()
    after.send([traffic.datagrams[1]], from_port=port)

    assert after.totals(2 * traffic.records)[0] == 2 * traffic.records


def test_a_template_is_in_its_file_a_second_after_it_came(collect: Collect, tmp_path: Path) -> None:
    """Whoever kills the collector loses no more than that."""
    collecting = collect()
    collecting.send(v9(1).first)

    wait_until((tmp_path / "flows" / "templates-1.json").exists, 5)

    assert TemplateFile(tmp_path / "flows", 1).load(Templates()) == 1


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1, 2]", b'{"streams": 7}', b"\xff\xfe", json.dumps([[]] * 99).encode()]
)
def test_a_file_of_templates_that_was_broken_is_left_out(collect: Collect, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "templates-1.json").write_bytes(content)
    collecting = collect()
    traffic = v9(1)

    collecting.send([*traffic.first, *traffic.datagrams])

    assert collecting.totals(26)[0] == 26


def test_processes_that_share_a_port_know_each_others_templates(collect: Collect) -> None:
    """The kernel gives all of one exporter's datagrams to one of them, and to another one after a restart."""
    first = collect(processes=2, number=1)
    traffic = v9(20)
    port = first.send([*traffic.first, traffic.datagrams[0]])
    second = collect(processes=2, number=2, listen=(f"127.0.0.1:{first.port}",))
    first.stop()

    second.send(traffic.datagrams[1:10], from_port=port)
    wait_until(lambda: second.keeper.templates)
    second.send(traffic.datagrams[10:], from_port=port)

    assert second.totals(20 * 26)[0] == 20 * 26


def test_what_finds_no_room_on_the_way_is_counted(collect: Collect, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store stands still: what waits is bounded, the newest is dropped, and all of it is accounted for."""
    stored = collect(waiting=1000)
    dropped = counted("nms_flows_dropped_total", reason="no_room")
    put = stored.store.put
    gate: list[object] = []

    def slow(batch: Any) -> bool:
        wait_until(lambda: gate)
        return put(batch)

    monkeypatch.setattr(stored.store, "put", slow)
    traffic = v5(200)
    for number in range(0, 200, 20):
        stored.send(traffic.datagrams[number : number + 20])
    gate.append(True)

    lost = int(counted("nms_flows_dropped_total", reason="no_room") - dropped)
    assert 0 < lost < 200 * 30
    assert stored.totals(200 * 30 - lost)[0] == 200 * 30 - lost


def test_without_an_address_there_is_no_collector(collect: Collect) -> None:
    with pytest.raises(ConfigError, match="no address to listen at"):
        collect(listen=())


def test_a_scan_fires_once_and_is_resolved_once_across_a_restart(
    collect: Collect, target: MakeTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "EVERY_SECONDS", 0.2)
    views = [target("flows", "all")]
    told = "SELECT state FROM events WHERE kind = 'port_scan' ORDER BY ts"
    collecting = collect(views, scan_ports=50, detection_window=10)
    collecting.send(scan(1, 2, range(1, 61)))
    wait_until(lambda: rows(collecting.engine, told) == [("firing",)])
    (firing,) = rows(collecting.engine, "SELECT fingerprint FROM firing")
    collecting.stop()

    again = collect(views, scan_ports=50, detection_window=10)
    again.send(scan(1, 2, range(1, 61)))
    wait_until(lambda: rows(again.engine, "SELECT count(*) FROM poll_runs WHERE poll = 'detection-1'")[0][0] > 5)

    assert firing == ("port_scan 10.0.0.1 10.0.0.2",)
    assert rows(again.engine, told) == [("firing",)]
    wait_until(lambda: rows(again.engine, told) == [("firing",), ("resolved",)], 40)
    assert rows(again.engine, "SELECT * FROM firing") == []


def test_a_view_of_other_exporters_is_not_told(
    collect: Collect, target: MakeTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "EVERY_SECONDS", 0.2)
    other, ours = (
        target("flows", "other", exporters=["192.0.2.0/24"]),
        target("flows", "ours", exporters=["127.0.0.0/8"]),
    )
    collecting = collect([other, ours], scan_ports=50)

    collecting.send(scan(1, 2, range(1, 61)))

    query = "SELECT t.name FROM firing JOIN targets t ON t.id = target_id"
    wait_until(lambda: rows(collecting.engine, query) == [("ours",)])


def test_counters_become_series_of_the_interface_that_snmp_knows(
    collect: Collect, target: MakeTarget, monkeypatch: pytest.MonkeyPatch, engine: Any
) -> None:
    monkeypatch.setattr(telling, "EVERY_SECONDS", 0.2)
    router = target("snmp", "router", host="127.0.0.1")
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO entities (target_id, poll, kind, key, digest, attributes, first_seen, last_seen) "
            "VALUES (%s, 'inventory', 'interface', 'Gi0/7', 'x', '{\"index\": \"7\"}', now(), now())",
            (router.id,),
        )
    collecting = collect([router])

    collecting.send([counters(7, 1000)])
    collecting.send([counters(8, 5)])

    query = "SELECT metric, value FROM samples WHERE service = 'snmp' AND labels = '{\"interface\": \"Gi0/7\"}'"
    wait_until(lambda: rows(collecting.engine, query))
    found = dict(rows(collecting.engine, query))
    assert found["snmp_interface_in_octets_total"] == 1000
    assert found["snmp_interface_out_octets_total"] == 2000
    assert np.isnan(found["snmp_interface_in_multicast_packets_total"])
    assert (found["snmp_interface_admin_status"], found["snmp_interface_oper_status"]) == (1, 1)
    assert found["snmp_interface_speed_bits_per_second"] == 1e9
    assert set(found) <= Snmp.metrics().keys()
    other = 'SELECT count(*) FROM samples WHERE labels = \'{"interface": "ifIndex 8"}\''
    wait_until(lambda: rows(collecting.engine, other)[0][0] == len(found))


@pytest.mark.parametrize("polled", [True, False], ids=["polled-by-snmp", "unknown"])
def test_counters_are_series_of_the_exporter_elsewhere(
    collect: Collect, target: MakeTarget, monkeypatch: pytest.MonkeyPatch, polled: bool
) -> None:
    monkeypatch.setattr(telling, "EVERY_SECONDS", 0.2)
    router = target("snmp", "router", {"interfaces": 60.0}, host="127.0.0.1" if polled else "192.0.2.1")
    collecting = collect([router, target("flows", "all")])

    collecting.send([counters(7, 1000)])

    query = "SELECT metric, labels FROM samples WHERE service = 'flows'"
    wait_until(lambda: rows(collecting.engine, query))
    found = rows(collecting.engine, query)
    assert {metric for metric, _ in found} == {f"flows_interface_{name}" for name in _METRICS}
    assert {metric for metric, _ in found} <= Flows.metrics().keys()
    assert {tuple(labels.items()) for _, labels in found} == {(("exporter", "127.0.0.1"), ("interface", "ifIndex 7"))}
    assert not rows(collecting.engine, "SELECT 1 FROM samples WHERE service = 'snmp'")


def test_counters_of_nobody_are_counted(collect: Collect) -> None:
    before = counted("nms_flows_without_target_total", what="interface_counters")

    collect().send([counters(7, 1000)])

    wait_until(lambda: counted("nms_flows_without_target_total", what="interface_counters") - before == 1)


def test_an_exporter_is_the_target_whose_address_it_has(collect: Collect, target: MakeTarget) -> None:
    router = target("snmp", "router", host="127.0.0.1")
    collecting = collect([router])

    collecting.send(v5(1).datagrams)

    wait_until(lambda: rows(collecting.engine, "SELECT target_id FROM flow_exporters") == [(router.id,)])


def test_names_that_an_exporter_tells_of_its_interfaces_are_kept(collect: Collect) -> None:
    known = encode.options_template(9, 400, [Spec(2, 4)], [Spec(82, 12)])

    def told(**names: bytes) -> bytes:
        body = b"".join(int(index.strip("_")).to_bytes(4) + name.ljust(12, b"\0") for index, name in names.items())
        return encode.message(9, known, encode.a_set(400, body), export=int(time.time()))

    collecting = collect()

    collecting.send([told(_5=b"Gi0/1", _6=b"\x07\x1b[31m", _7=b"Gi0/3")])
    collecting.send([told(_5=b"Gi0/1-new")])

    kept = {"5": "Gi0/1-new", "6": "[31m", "7": "Gi0/3"}
    wait_until(lambda: rows(collecting.engine, "SELECT interfaces FROM flow_exporters") == [(kept,)])


def test_agents_beyond_the_bound_are_their_sender(collect: Collect) -> None:
    collecting = collect(max_exporters=3)

    collecting.send([counters(7, n, agent=bytes((10, 0, 0, n))) for n in range(1, 10)])

    query = "SELECT host(address), datagrams FROM flow_exporters ORDER BY address"
    kept = [("10.0.0.1", 1), ("10.0.0.2", 1), ("10.0.0.3", 1), ("127.0.0.1", 6)]
    wait_until(lambda: rows(collecting.engine, query) == kept)


def test_a_database_of_places_that_is_none_is_said(tmp_path: Path) -> None:
    path = tmp_path / "asn.mmdb"
    path.write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="no database in MaxMind's format"):
        Keeper(settings.Flows(autonomous_systems=path), None, None)  # type: ignore[arg-type]


def test_a_file_of_a_neighbour_never_replaces_what_was_seen_later() -> None:
    """The neighbour had the exporter before, and the exporter has changed its template since."""
    old, new = Templates(), Templates()
    began = time.time_ns() // 1000
    header = struct.pack(">HHIIII", 9, 1, 60_000, began // 1_000_000, 0, 1)
    address = bytes((127, 0, 0, 1))
    for templates, fields, at in ((old, (8, 12), began), (new, (12, 8), began + 1)):
        told = struct.pack(">HHHHHHHH", 0, 16, 256, 2, fields[0], 4, fields[1], 4)
        decode([Datagram(header + told, address, 5000, at)], templates)

    assert new.load(old.dump()) == 0

    body = header + struct.pack(">HHII", 256, 12, 0x0A000001, 0x0A000002)
    (flow,) = decode([Datagram(body, address, 5000, began + 2)], new).flows
    assert int(flow["destination_address"][1]) & 0xFFFFFFFF == 0x0A000001
    assert old.load(new.dump()) == 1
