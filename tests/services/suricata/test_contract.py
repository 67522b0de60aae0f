"""Everything that real engines make the service emit is declared in `metrics.csv`, and the other way round."""

from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import trustme

from nms_workers.records import Entity, Record
from nms_workers.services.suricata import counters
from nms_workers.services.suricata.service import Suricata
from tests.conftest import StartServer
from tests.contract.vendor import description
from tests.metric_contract import never_emitted, undeclared
from tests.servers import SURICATA, SuricataServer
from tests.services.suricata.conftest import Connect, send
from tests.services.suricata.support import act, await_true, collect, events, read, value, values

# Counters that one of the engines here does not have: of another version, of the firewall mode, of cards and functions
# that are not there; the names of those engines follow. `test_counters_of_other_engines` shows what becomes of them.
ELSEWHERE = {
    name: engines
    for name, *engines in map(str.split, Path(__file__).with_name("elsewhere.txt").read_text().splitlines())
}
DROP = 'drop http any any -> any any (msg:"no"; flow:established,to_server; http.uri; content:"/drop"; sid:2000009;)\n'


@pytest.mark.parametrize("name", SURICATA)
def test_what_is_emitted_and_what_is_declared(
    name: str, start_server: StartServer, connect: Connect, tmp_path: Path
) -> None:
    server = start_server(name, prevents=True)
    assert isinstance(server, SuricataServer)
    client = connect(server)
    act(client, "upload_ruleset", content=DROP, name="uploaded.rules")
    _certificate(tmp_path)
    send(server, ["http", "/attack"], ["http", "/found"], ["dns", "nms.example"], ["tls", str(tmp_path)], ["stray"])
    send(server, ["http", "/drop"])
    records: list[Record] = await_true(lambda: _complete(read(client, "counters")))
    for poll in ("interfaces", "memcaps", "rules"):
        records += read(client, poll)
    records += collect(client, lambda seen: len(values(seen, "suricata_flow_record_bytes_total")) >= 4)
    strange = tmp_path / "eve.json"
    strange.write_bytes(b"no record\n")
    records += read(connect(eve_file=strange))
    store = start_server("redis-7.0", password="")
    records += read(connect(eve_list={"port": store.port}))
    assert undeclared(Suricata, records) == []
    assert value(records, "suricata_unknown_counters") == 0
    assert set(never_emitted(Suricata, records)) == _only_elsewhere(name, records)
    assert {event.attributes["drop"]["reason"] for event in events(records, "drop")} >= {"rules", "flow drop"}
    assert value(records, "suricata_ips_dropped_packets_total", reason="rules") == 1
    assert events(records, "anomaly") != []


def test_counters_of_other_engines() -> None:
    dump = _dump(ELSEWHERE)
    assert counters.unknown(dump) == []
    records = list(counters.TABLE.samples(dump | {"threads": {"W#01": dump}}))
    assert undeclared(Suricata, records) == []
    assert len(records) == len(ELSEWHERE)


def test_the_limits_of_version_8_are_no_counts_of_hits(start_server: StartServer, connect: Connect) -> None:
    server = start_server("suricata-8")
    assert isinstance(server, SuricataServer)
    records = read(connect(server), "counters")
    (engine,) = [one for one in records if isinstance(one, Entity)]
    assert engine.attributes["version"].startswith("8.")
    assert value(records, "suricata_host_memory_limit_bytes") == 4 << 20  # as in suricata.yaml


@pytest.mark.parametrize(("version", "counted", "legacy"), [("7.0.10", 500, {"flow_mgr"}), ("8.0.6", 1000, set())])
def test_every_counter_of_the_vendors_schema_is_known(version: str, counted: int, legacy: set[str]) -> None:
    schema = description(f"suricata/eve-schema-{version}.json")
    stats = _numbers(schema, schema["properties"]["stats"])
    assert isinstance(stats, dict)
    assert len(list(counters.flat(stats))) >= counted
    unknown = counters.unknown(stats)
    assert {name.partition(".")[0] for name in unknown} == legacy  # 6.0 was the last that had them


def _numbers(schema: dict[str, Any], part: dict[str, Any]) -> "dict[str, Any] | int | None":
    """What the schema describes, with 1 for each number and nothing for what is none."""
    while reference := part.get("$ref"):
        part = reduce(lambda within, name: within[name], reference.removeprefix("#/").split("/"), schema)
    if part.get("properties"):
        inside = ((name, _numbers(schema, one)) for name, one in part["properties"].items())
        return {name: one for name, one in inside if one is not None}
    return 1 if part.get("type") in ("integer", "number") else None


def _only_elsewhere(engine: str, records: list[Record]) -> set[str]:
    here = {record.metric for record in records if hasattr(record, "metric")}
    dump = _dump({name for name, engines in ELSEWHERE.items() if engine in engines})
    return {sample.metric for sample in counters.TABLE.samples(dump | {"threads": {"W#01": dump}})} - here


def _dump(names: "set[str] | dict[str, list[str]]") -> dict[str, object]:
    """A dump of counters that holds these."""
    dump: dict[str, object] = {}
    for name in names:
        *path, last = name.split(".")
        inner = dump
        for part in path:
            inner = inner.setdefault(part, {})  # type: ignore[assignment]
        inner[last] = 1
    return dump


def _complete(records: list[Record]) -> list[Record] | None:
    """These, once the flow of TLS and the packet that a rule dropped are counted: each thread counts when it may."""
    flows = values(records, "suricata_app_layer_flows_total")
    seen = any(("app_protocol", "tls") in labels and number for labels, number in flows.items())
    return records if seen and value(records, "suricata_ips_dropped_packets_total", reason="rules") else None


def _certificate(folder: Path) -> None:
    authority = trustme.CA()
    own = authority.issue_cert("ids.example")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    own.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    own.private_key_pem.write_to_path(folder / "key.pem")
