"""What the polls read from a real engine by its command socket."""

from collections.abc import Iterable

from nms_workers.records import Entity, Record
from nms_workers.services.suricata import counters
from nms_workers.services.suricata.client import SuricataClient
from nms_workers.services.suricata.service import Suricata
from tests.servers import SuricataServer
from tests.services.suricata.conftest import Connect, send
from tests.services.suricata.support import act, await_true, events, read, value, values


def test_counters_in_total_and_by_thread(suricata: SuricataServer, client: SuricataClient) -> None:
    send(suricata, ["http", "/found"])
    records = await_true(lambda: _with_http(read(client, "counters")))
    threads = {dict(labels)["thread"] for labels in values(records, "suricata_decoder_packets_total")}
    assert threads == {"W#01-lo"}
    assert value(records, "suricata_decoder_tcp_packets_total", thread="W#01-lo") >= 6
    assert value(records, "suricata_tcp_syn_packets_total", thread="W#01-lo") == 1
    assert value(records, "suricata_flow_memory_bytes") > 0
    assert value(records, "suricata_app_layer_transactions_total", app_protocol="http") == 1
    assert value(records, "suricata_unknown_counters") == 0


def _with_http(records: list[Record]) -> list[Record] | None:
    seen = value(records, "suricata_app_layer_flows_total", thread="W#01-lo", app_protocol="http")
    return records if seen == 1 else None


def test_a_counter_is_what_the_engine_says(untouched: SuricataServer, connect: Connect) -> None:
    client = connect(untouched)
    dump = client.ask("dump-counters", dict)
    own = dict(counters.flat(dump["threads"]["W#01-lo"]))
    samples = list(counters.TABLE.samples(dump))
    assert value(samples, "suricata_decoder_bytes_total", thread="W#01-lo") == own["decoder.bytes"]
    assert value(samples, "suricata_uptime_seconds") == dump["uptime"]
    assert value(samples, "suricata_memcap_pressure_ratio") == dump["memcap_pressure"] / 100


def test_a_counter_we_do_not_know_is_named(untouched: SuricataServer, connect: Connect) -> None:
    client = connect(untouched)
    dump = client.ask("dump-counters", dict)
    dump["quantum"] = {"entangled": 3, "names": ["a"], "mode": "on"}
    dump["threads"]["W#01-lo"]["decoder"]["telepathy"] = 1
    assert counters.unknown(dump) == ["decoder.telepathy", "quantum.entangled"]


def test_there_are_at_least_the_families_of_the_exporter() -> None:
    metrics = {row.metric for row in counters.TABLE.rows.values()}
    assert len(metrics) >= 130
    assert metrics <= Suricata.metrics().keys()


def test_the_engine_and_its_interfaces(untouched: SuricataServer, connect: Connect) -> None:
    client = connect(untouched)
    records = read(client, "counters") + read(client, "interfaces")
    engine = next(one for one in records if isinstance(one, Entity) and one.kind == "engine")
    assert engine.attributes["capture_mode"] == "AF_PACKET_DEV"
    assert engine.attributes["version"].startswith("7.")
    assert engine.attributes["unknown_counters"] == []
    assert [one.key for one in records if isinstance(one, Entity) and one.kind == "interface"] == ["lo"]
    assert value(records, "suricata_interface_drops_total", interface="lo") == 0


def test_memory_caps(untouched: SuricataServer, connect: Connect) -> None:
    client = connect(untouched)
    caps = {
        dict(labels)["part"]: number
        for labels, number in values(read(client, "memcaps"), "suricata_memcap_bytes").items()
    }
    assert caps["flow"] == 16 << 20
    assert caps["host"] == 4 << 20
    assert "applayer-proto-http" not in caps  # it has no limit


def test_rules_in_force_and_rules_that_failed(suricata: SuricataServer, client: SuricataClient) -> None:
    good = read(client, "rules")
    assert value(good, "suricata_rules_loaded", tenant="0") == 5
    assert events(good) == []
    (suricata.rules / "uploaded.rules").write_text('alert nonsense any any -> any any (msg:"no"; sid:9;)\n')
    act(client, "reload_rules")
    bad = read(client, "rules")
    assert value(bad, "suricata_rules_failed", tenant="0") == 1
    assert value(bad, "suricata_rules_reload_time_seconds", tenant="0") > value(
        good, "suricata_rules_reload_time_seconds", tenant="0"
    )
    (failed,) = events(bad, "failed_rule")
    assert failed.state == "firing"
    assert failed.attributes["line"] == 1
    assert failed.attributes["file"] == str(suricata.rules / "uploaded.rules")
    assert _fingerprints(read(client, "rules")) == [failed.fingerprint]
    assert Suricata.polls()["rules"].enumerates == {"failed_rule"}  # so that it is resolved when it is gone


def _fingerprints(records: Iterable[Record]) -> list[str]:
    return [event.fingerprint for event in events(records, "failed_rule")]


def test_a_restarted_engine_is_read_on(suricata: SuricataServer, connect: Connect) -> None:
    client = connect(suricata)
    first = client.get_stats()
    suricata.restart()
    assert client.get_stats().version == first.version
    assert client.get_stats().uptime <= first.uptime + 5
