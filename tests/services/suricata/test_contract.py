"""Everything that real engines make the service emit is declared in `metrics.csv`, and the other way round."""

from pathlib import Path

import trustme

from nms_workers.records import Record
from nms_workers.services.suricata import counters
from nms_workers.services.suricata.service import Suricata
from tests.metric_contract import never_emitted, undeclared
from tests.servers import SuricataServer
from tests.services.suricata.conftest import Connect, send
from tests.services.suricata.support import await_true, collect, read, values

# Counters this engine does not have: of Suricata 6 or 8, of the prevention and firewall modes, of cards and functions
# that are not there. What the table makes of them is shown by `test_counters_of_other_engines`.
ELSEWHERE = Path(__file__).with_name("counters-elsewhere.txt").read_text().split()
DROPPED = (
    b'{"timestamp":"2026-01-01T00:00:00.000000+0000","event_type":"drop","src_ip":"192.0.2.1","dest_ip":"192.0.2.2",'
    b'"proto":"UDP","drop":{"len":60,"reason":"rules"}}\n'
)


def test_what_is_emitted_and_what_is_declared(
    suricata: SuricataServer, connect: Connect, tmp_path: Path, start_server
) -> None:  # type: ignore[no-untyped-def]
    _certificate(tmp_path)
    client = connect(suricata)
    send(suricata, ["http", "/attack"], ["http", "/found"], ["dns", "nms.example"], ["tls", str(tmp_path)], ["stray"])
    records: list[Record] = await_true(lambda: _complete(read(client, "counters")))
    for poll in ("interfaces", "memcaps", "rules"):
        records += read(client, poll)
    records += collect(client, lambda seen: len(values(seen, "suricata_flow_record_bytes_total")) >= 4)
    strange = tmp_path / "eve.json"
    strange.write_bytes(DROPPED + b"no record\n")
    records += read(connect(eve_file=strange))
    store = start_server("redis-7.0", password="")
    records += read(connect(eve_list={"port": store.port}))
    assert undeclared(Suricata, records) == []
    assert set(never_emitted(Suricata, records)) == _only_elsewhere(records)


def test_counters_of_other_engines() -> None:
    dump: dict[str, object] = {}
    for name in ELSEWHERE:
        *path, last = name.split(".")
        inner: dict[str, object] = dump
        for part in path:
            inner = inner.setdefault(part, {})  # type: ignore[assignment]
        inner[last] = 1
    assert counters.unknown(dump) == []
    records = list(counters.samples(dump | {"threads": {"W#01": dump}}))
    assert undeclared(Suricata, records) == []
    assert len(records) == len(ELSEWHERE)


def _only_elsewhere(records: list[Record]) -> set[str]:
    here = {record.metric for record in records if hasattr(record, "metric")}
    dump = dict.fromkeys(ELSEWHERE, 1)
    return {sample.metric for sample in counters.samples(dump | {"threads": {"W#01": dump}})} - here


def _complete(records: list[Record]) -> list[Record] | None:
    flows = values(records, "suricata_app_layer_flows_total")
    return records if any(("app_protocol", "tls") in labels and number for labels, number in flows.items()) else None


def _certificate(folder: Path) -> None:
    authority = trustme.CA()
    own = authority.issue_cert("ids.example")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    own.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    own.private_key_pem.write_to_path(folder / "key.pem")
