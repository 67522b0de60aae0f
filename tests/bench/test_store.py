from collections.abc import Callable

import numpy as np
import psycopg
import pytest

from nms_workers.bench.store import BenchError, readings, run
from tests.servers import Server


@pytest.mark.parametrize("name", ["postgresql-15", "postgresql-18"])
def test_blocks_are_cheaper_than_rows_on_the_same_server(session_server: Callable[[str], Server], name: str) -> None:
    server = session_server(name)
    measured = run(server.url, targets=20, series=200, rounds=150)
    assert measured["values"] == 600_000
    assert float(measured["values_per_cpu_second"]) > 3 * float(measured["row_values_per_cpu_second"])
    assert float(measured["bytes_per_value"]) < 13
    assert float(measured["row_bytes_per_value"]) > 50
    with psycopg.connect(server.url) as connection:
        left = connection.execute("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'nms_bench_%'").fetchone()
    assert left == (0,)


@pytest.mark.parametrize("wrong", [{"targets": 0}, {"rounds": 10_001}, {"series": -1}])
def test_a_run_that_cannot_be_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(BenchError, match="at least 1"):
        run("postgresql://nobody@127.0.0.1:1/none", **wrong)


def test_readings_are_as_targets_give_them() -> None:
    values = readings(5, 100, 50)
    assert values.shape == (50, 5, 100)
    counters = values[:, :, :50]
    assert (np.diff(counters, axis=0) >= 0).all()
    changing = (np.diff(values, axis=0) != 0).any(axis=0)
    assert 0.4 < changing.mean() < 0.95
    assert np.array_equal(values, readings(5, 100, 50))
