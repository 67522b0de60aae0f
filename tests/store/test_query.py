import math
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from nms_workers.errors import Outcome
from nms_workers.records import Layout, series
from nms_workers.store import query
from nms_workers.store.history import History
from nms_workers.store.rollups import roll_up
from tests.store.conftest import Database
from tests.store.slots import LAYOUT, START, layout, slot

BEGIN = START - timedelta(hours=2)
WIDE = layout(200)
GROWING = Layout([series("test_bytes_total", (("side", side),)) for side in ("in", "out")])
LAYOUTS = {one.digest: one for one in (LAYOUT, WIDE, GROWING)}


@pytest.fixture
def history(database: Database) -> Iterator[History]:
    history = History(database.engine, LAYOUTS.get)
    yield history
    history.engine.dispose()


def at(seconds: float) -> datetime:
    return BEGIN + timedelta(seconds=seconds)


def test_a_series_is_found_in_whatever_layout_it_stands(database: Database, history: History) -> None:
    one, two = database.target("one"), database.target("two")
    history.write([slot(one, 0, due=at(0)), slot(one, 0, np.arange(200.0), layout=WIDE, due=at(10))])
    history.write([slot(two, 0, due=at(5))])
    rows = query.samples(database.engine, metric="test_value", labels={"number": "1"}, since=BEGIN)
    assert rows == [
        {
            "ts": at(seconds),
            "service": "redis",
            "target": target,
            "metric": "test_value",
            "labels": {"number": "1"},
            "value": value,
        }
        for seconds, target, value in ((0, "one", 0.5), (5, "two", 0.5), (10, "one", 1.0))
    ]
    assert len(query.samples(database.engine, target="one", since=BEGIN, limit=10_000)) == 203
    assert len(query.samples(database.engine, service="redis", target="two", since=BEGIN)) == 3
    assert query.samples(database.engine, metric="no_such", since=BEGIN) == []
    newest = query.samples(database.engine, target="one", labels={"number": "1"}, since=BEGIN, limit=1)
    assert [row["value"] for row in newest] == [1.0]
    earlier = query.samples(database.engine, target="one", since=BEGIN, until=at(10))
    assert len(earlier) == 3


def test_the_rate_of_a_counter_survives_its_reset(database: Database, history: History) -> None:
    target = database.target()
    read = [(0, 100, 0), (10, 200, 50), (20, 30, 100), (30, math.nan, 200), (40, 70, 200)]
    history.write([slot(target, 0, values, layout=GROWING, due=at(seconds)) for seconds, *values in read])
    for limit, expected in ((100, [10.0, 3.0, 2.0]), (2, [3.0, 2.0])):
        rows = query.samples(
            database.engine, metric="test_bytes_total", labels={"side": "in"}, since=BEGIN, rate=True, limit=limit
        )
        assert [row["value"] for row in rows] == expected
    both = query.samples(database.engine, metric="test_bytes_total", since=BEGIN, rate=True)
    assert [(row["ts"], row["value"]) for row in both if row["labels"]["side"] == "out"] == [
        (at(seconds), rate) for seconds, rate in ((10, 5.0), (20, 5.0), (30, 10.0), (40, 0.0))
    ]


def test_roll_ups_can_be_asked_for(database: Database, history: History) -> None:
    target = database.target()
    history.write([slot(target, 0, [number * 60.0, 0], layout=GROWING, due=at(number * 60)) for number in range(60)])
    roll_up(database.engine)
    asked = {"metric": "test_bytes_total", "labels": {"side": "in"}, "since": BEGIN}
    means = query.samples(database.engine, **asked, resolution="5m")
    assert [row["value"] for row in means[:2]] == [120.0, 420.0]
    rates = query.samples(database.engine, **asked, resolution="5m", rate=True)
    assert {row["value"] for row in rates} == {1.0}
    assert [row["value"] for row in query.samples(database.engine, **asked, resolution="1h")] == [1770.0]


def test_one_series_over_a_day_is_read_without_reading_the_rest(newest: Database) -> None:
    history = History(newest.engine, LAYOUTS.get)
    target, other = newest.target("one"), newest.target("two")
    begin = datetime.now(UTC) - timedelta(hours=24)
    for first in range(0, 8640, 1440):
        numbers = range(first, first + 1440)
        due = {number: begin + timedelta(seconds=10 * number) for number in numbers}
        for one in (target, other):
            history.write([slot(one, 0, np.full(200, number), layout=WIDE, due=due[number]) for number in numbers])
    newest.run("ANALYZE")
    started = time.perf_counter()
    rows = query.samples(
        newest.engine, target="one", metric="test_value", labels={"number": "7"}, since=begin, limit=10_000
    )
    elapsed = time.perf_counter() - started
    assert [row["value"] for row in rows] == list(range(8640))
    assert elapsed < 2.0  # 40 ms where nothing else runs
    history.engine.dispose()


def test_a_question_too_wide_is_refused(newest: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    History(newest.engine, LAYOUTS.get).write([slot(newest.target(), 0)])
    monkeypatch.setattr(query, "MAX_SERIES", 2)
    with pytest.raises(query.QueryError, match="more than 2 series match"):
        query.samples(newest.engine)
    with pytest.raises(query.QueryError, match="out of range"):
        query.samples(newest.engine, limit=0)


def test_runs_and_percentiles_come_from_the_ledger(database: Database, history: History) -> None:
    one, two = database.target("one"), database.target("two")
    took = np.random.default_rng(5).gamma(2, 40, 200)
    history.write(
        [
            slot(one, 0, due=at(number), finished=at(number) + timedelta(milliseconds=milliseconds))
            for number, milliseconds in enumerate(took)
        ]
        + [
            slot(two, 0, [], due=at(0), outcome=Outcome.TIMEOUT),
            slot(two, 0, [], due=at(1), outcome=Outcome.EXPIRED, started=None),
        ]
    )
    rows = {row["target"]: row for row in query.percentiles(database.engine, since=BEGIN)}
    expected = np.percentile(took, [50, 95, 99])
    found = [rows["one"][name] for name in ("p50_ms", "p95_ms", "p99_ms")]
    np.testing.assert_allclose(found, expected, atol=0.001)
    assert (rows["one"]["runs"], rows["one"]["outcomes"]) == (200, {"ok": 200})
    assert rows["two"]["outcomes"] == {"timeout": 1, "expired": 1}
    assert rows["two"]["p50_ms"] == 20
    (together,) = query.percentiles(database.engine, since=BEGIN, by_target=False)
    assert (together["service"], together["poll"], together["runs"]) == ("redis", "info", 202)
    assert "target" not in together
    ended = query.runs(database.engine, finished_after=BEGIN, limit=3)
    assert [run["finished"] for run in ended] == sorted(run["finished"] for run in ended)
    (timeout,) = query.runs(database.engine, finished_after=BEGIN, outcome="timeout")
    assert (timeout["service"], timeout["target"], timeout["poll"], timeout["samples"]) == ("redis", "two", "info", 0)
    assert timeout["milliseconds"] == 20


def test_targets_and_how_they_fare(database: Database, history: History) -> None:
    one, _ = database.target("one"), database.target("two")
    for poll in ("info", "slow"):
        database.run("INSERT INTO schedules VALUES (:target, :poll, 1000, 0)", target=one, poll=poll)
    history.write(
        [
            slot(one, 0, due=at(0)),
            slot(one, 0, [], due=at(1), outcome=Outcome.TIMEOUT),
            slot(one, 0, due=at(0), poll="slow"),
        ]
    )
    listed = query.targets(database.engine)
    assert [row["name"] for row in listed] == ["one", "two"]
    assert listed[0]["outcomes"] == {"info": "timeout", "slow": "ok"}
    assert listed[0]["last_ok"] == at(0) + timedelta(milliseconds=20)
    assert (listed[1]["outcomes"], listed[1]["last_ok"]) == ({}, None)
