from collections.abc import Iterator
from datetime import datetime, timedelta

import numpy as np
import pytest

from nms_workers.store.history import History
from nms_workers.store.rollups import roll_up
from tests.store.conftest import Database
from tests.store.slots import LAYOUT, START, slot

BEGIN = START - timedelta(hours=3)  # whole hours, all of them over
EVERY = timedelta(seconds=20)


@pytest.fixture
def history(database: Database) -> Iterator[History]:
    history = History(database.engine, {LAYOUT.digest: LAYOUT}.get)
    yield history
    history.engine.dispose()


def readings() -> dict[datetime, list[float]]:
    """Two hours of three series: with gaps, beyond what can be squared, and one that is never a number."""
    draw = np.random.default_rng(11)
    found = {}
    for number in range(360):
        first = np.nan if draw.random() < 0.2 or 15 <= number < 30 else draw.normal(10, 3)
        found[BEGIN + number * EVERY] = [first, 1.7e308 if number == 40 else float(number), np.nan]
    return found


def rolled(values: list[list[float]]) -> list[list[float]]:
    """What numpy makes of one window: min, max, mean, last, count, each for every series."""
    columns = np.array(values).T
    known = [column[~np.isnan(column)] for column in columns]
    means = [column[np.abs(column) < 1e150] for column in known]
    return [
        [column.min() if column.size else np.nan for column in known],
        [column.max() if column.size else np.nan for column in known],
        [column.mean() if column.size else np.nan for column in means],
        [column[-1] if column.size else np.nan for column in known],
        [column.size for column in known],
    ]


def stored(database: Database, table: str) -> dict[datetime, list[list[float]]]:
    rows = database.rows(f"SELECT ts, min, max, mean, last, count FROM {table} ORDER BY ts")
    return {row[0]: [list(part) for part in row[1:]] for row in rows}


def expected(read: dict[datetime, list[float]], width: timedelta) -> dict[datetime, list[list[float]]]:
    windows: dict[datetime, list[list[float]]] = {}
    for ts, values in sorted(read.items()):
        windows.setdefault(BEGIN + (ts - BEGIN) // width * width, []).append(values)
    return {begins: rolled(values) for begins, values in windows.items()}


def assert_same(found: dict[datetime, list[list[float]]], wanted: dict[datetime, list[list[float]]]) -> None:
    assert list(found) == list(wanted)
    for begins, parts in wanted.items():
        np.testing.assert_allclose(found[begins], parts, rtol=1e-12)


def write(history: History, target: int, read: dict[datetime, list[float]]) -> None:
    history.write([slot(target, 0, values, due=ts) for ts, values in read.items()])


def test_they_are_what_numpy_makes_of_it(database: Database, history: History) -> None:
    read = readings()
    write(history, database.target(), read)
    done = roll_up(database.engine)
    assert done.windows > 24
    assert done.again == 0  # all of it came late, and before its windows were rolled up
    assert_same(stored(database, "rollups_5m"), expected(read, timedelta(minutes=5)))
    hours = expected(read, timedelta(hours=1))
    found = stored(database, "rollups_1h")
    for begins, parts in hours.items():
        # the mean of means is weighted by all that was counted, so the window with the sentinel is a little off
        np.testing.assert_allclose(found[begins], parts, rtol=1e-2)
        assert found[begins][4] == parts[4]
        assert np.array_equal(found[begins][0], parts[0], equal_nan=True)
    assert list(found) == list(hours)


def test_doing_it_again_changes_nothing(database: Database, history: History) -> None:
    write(history, database.target(), readings())
    roll_up(database.engine)
    before = stored(database, "rollups_5m"), stored(database, "rollups_1h")
    database.run("UPDATE rollup_progress SET done_until = :begin", begin=BEGIN)
    roll_up(database.engine)
    after = stored(database, "rollups_5m"), stored(database, "rollups_1h")
    for one, other in zip(before, after, strict=True):
        assert_same(other, one)
    assert roll_up(database.engine).windows == 0


def test_what_comes_late_is_rolled_up_again(database: Database, history: History) -> None:
    target = database.target()
    read = readings()
    late = {ts: values for number, (ts, values) in enumerate(read.items()) if number in (1, 100, 101, 350)}
    write(history, target, {ts: values for ts, values in read.items() if ts not in late})
    roll_up(database.engine)
    roll_up(database.engine)
    assert database.value("SELECT count(*) FROM rollup_late") == 0
    write(history, target, late)
    assert database.value("SELECT count(*) FROM rollup_late") == 3
    done = roll_up(database.engine)
    assert done.again == 3 + 2  # windows of 5 minutes, and hours
    assert_same(stored(database, "rollups_5m"), expected(read, timedelta(minutes=5)))
    assert stored(database, "rollups_1h")[BEGIN][4] == expected(read, timedelta(hours=1))[BEGIN][4]


def test_a_window_is_left_until_it_is_over(database: Database, history: History) -> None:
    write(history, database.target(), readings())
    roll_up(database.engine, BEGIN + timedelta(minutes=10, seconds=59))
    assert list(stored(database, "rollups_5m")) == [BEGIN]
    roll_up(database.engine, BEGIN + timedelta(minutes=11))
    assert list(stored(database, "rollups_5m")) == [BEGIN, BEGIN + timedelta(minutes=5)]
    assert stored(database, "rollups_1h") == {}


def test_nothing_to_do(database: Database) -> None:
    assert roll_up(database.engine).windows == 0
