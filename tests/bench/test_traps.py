from nms_workers.bench.traps import LINKS, run
from tests.fleet.stores import database_url, postgres_name

__all__ = ["database_url", "postgres_name"]


def test_every_trap_is_accounted_for(database_url: str) -> None:
    measured = run(database_url, traps=2_000, rate=2_000, devices=5)

    assert measured["received"] + measured["dropped"] == 2_000
    assert measured["told"] == 5 * LINKS
    assert measured["counted"] == measured["received"] - measured["told"]
    assert measured["events"] == 2 * measured["told"]  # each was told, and counted at the end of its window
    assert measured["traps_per_cpu_second"] > 0
