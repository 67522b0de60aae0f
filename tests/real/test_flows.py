"""Flows of real exporters: what is in the history is what was sent, and what nfdump makes of the same datagrams."""

from pathlib import Path

import pytest

from tests.fleet.stores import rows
from tests.flows.conftest import Collect, collect, database_url, engine, postgres_name
from tests.flows.exporters import EXPORTERS, Export, nfdump_totals

__all__ = ["collect", "database_url", "engine", "postgres_name"]


@pytest.fixture(params=EXPORTERS)
def export(request: pytest.FixtureRequest, tmp_path: Path) -> Export:
    """What each exporter sends."""
    folder = tmp_path / "exporter"
    folder.mkdir()
    sent: Export = EXPORTERS[request.param](folder)
    assert sent.datagrams, "the exporter sent nothing"
    return sent


def test_the_history_has_what_was_sent_to_the_byte(export: Export, collect: Collect, tmp_path: Path) -> None:
    collecting = collect()

    collecting.send(export.datagrams)

    sent = (export.flows, export.octets, export.packets)
    assert collecting.totals(export.flows) == sent
    sums = "SELECT sum(flows), sum(octets), sum(packets) FROM flow_rollups_1m WHERE kind = 'conversation'"
    assert tuple(map(int, rows(collecting.engine, sums)[0])) == sent
    assert rows(collecting.engine, "SELECT sum(datagrams), sum(lost) FROM flow_exporters")[0][0] == len(
        export.datagrams
    )
    is_sflow = export.datagrams[0].startswith(b"\0\0\0\5")
    assert nfdump_totals(tmp_path / "nfdump", export.datagrams, "sfcapd" if is_sflow else "nfcapd") == sent
