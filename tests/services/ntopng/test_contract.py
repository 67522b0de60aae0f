"""What is emitted is what `metrics.csv` declares, and holds what the exporter has; the codes are those of ntopng."""

import csv
from pathlib import Path

import requests

from nms_workers.fleet.harvest import Harvest
from nms_workers.records import Record
from nms_workers.services.ntopng.client import NtopngClient
from nms_workers.services.ntopng.service import Ntopng
from tests.contract.vendor import description
from tests.metric_contract import emitted, never_emitted, undeclared
from tests.services.ntopng.support import read
from tests.stubs.ntopng import TOKEN, NtopngStub, flow, host, host_data


def test_the_description_is_at_hand(client: NtopngClient, ntopng: NtopngStub) -> None:
    """Skipped where it is not: the requests of the other tests are checked against nothing then."""
    assert "/lua/rest/v2/get/interface/data.lua" in description("ntopng/slice-v2-oas3.json")["paths"]
    client.get_interface_data(1)
    assert ntopng.violations == []
    headers = {"Authorization": f"Token {TOKEN}"}
    requests.get(f"{ntopng.url}/lua/rest/v2/get/interface/data.lua", headers=headers, timeout=10)  # without ifid
    assert "ifid" in ntopng.violations.pop()


def test_what_is_emitted_and_what_is_declared(ntopng: NtopngStub, client: NtopngClient) -> None:
    ntopng.hosts[1], ntopng.host_data[1, "192.0.2.7"] = [host("192.0.2.7", 9)], host_data("192.0.2.7")
    ntopng.flows[1] = [flow("192.0.2.7", 50_000)]
    records: list[Record] = []
    for name, poll in Ntopng.polls().items():
        found = read(client, name)
        harvest = Harvest(poll.volatile, max_series=10_000)
        for record in found:
            harvest.add(record)
        assert (name, harvest.faults) == (name, "")  # no series comes twice
        records += found
    assert undeclared(Ntopng, records) == []
    assert never_emitted(Ntopng, records) == []
    with Path(__file__).with_name("exporter_families.csv").open(encoding="utf-8", newline="") as lines:
        families = {row["family"]: f"ntopng_{row['metric']}" for row in csv.DictReader(lines)}
    assert len(families) == 29
    names = {one.metric for one in emitted(records)}
    assert {family for family, ours in families.items() if ours not in names} == set()
