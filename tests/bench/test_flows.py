import shutil

from nms_workers.bench.flow_datagrams import FORMATS
from nms_workers.bench.flows import run
from tests.fleet.stores import database_url, postgres_name

__all__ = ["database_url", "postgres_name"]


def test_every_flow_of_every_format_is_accounted_for(database_url: str) -> None:
    measured = run(database_url, flows=20_000, rate=20_000)

    for name, make in FORMATS.items():
        records = make(1).records
        sent = max(1, (4_000 if name == "sflow" else 20_000) // records) * records
        assert measured["stored"][name] + measured["lost"][name] == sent
        assert measured["stored"][name] > 0
        assert 0 < measured["flows_per_cpu_second"][name] < measured["collector_flows_per_cpu_second"][name]
    if shutil.which("nfcapd") and shutil.which("sfcapd"):
        assert "Version" in str(measured["peer"])
        assert set(measured["peer_flows_per_cpu_second"]) == set(FORMATS)
        assert min(measured["peer_flows_per_cpu_second"].values()) > 0


def test_datagrams_fit_in_a_frame() -> None:
    for make in FORMATS.values():
        traffic = make(10)
        assert len(traffic.datagrams) == 10
        assert max(map(len, (*traffic.first, *traffic.datagrams))) <= 1472
