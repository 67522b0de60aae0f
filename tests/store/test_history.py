"""Batches into PostgreSQL: once, whatever is tried twice."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import psycopg
import pytest
from sqlalchemy.exc import DBAPIError

from nms_workers.errors import Outcome
from nms_workers.records import Event, Layout, SampleBlock, series
from nms_workers.store.history import History, UnknownLayoutError
from nms_workers.store.slot import Block
from tests.store.conftest import Database
from tests.store.slots import LAYOUT, START, layout, slot

LAYOUTS = {one.digest: one for one in (LAYOUT, layout(200), layout(1000), layout(3, "other"))}


@pytest.fixture
def history(database: Database) -> Iterator[History]:
    history = History(database.engine, LAYOUTS.get)
    yield history
    history.engine.dispose()


def test_values_come_back_exactly(database: Database, history: History) -> None:
    target = database.target()
    odd = [np.nan, np.inf, -np.inf]
    draw = np.random.default_rng(7)
    wide = {size: draw.normal(0, 1e9, size) for size in (200, 1000)}
    history.write(
        [slot(target, 0, odd)]
        + [slot(target, size, values, layout=layout(size), poll=f"wide{size}") for size, values in wide.items()]
    )
    stored = {len(row[0]): np.array(row[0]) for row in database.rows('SELECT "values" FROM sample_blocks')}
    assert np.array_equal(stored[3], odd, equal_nan=True)
    for size, values in wide.items():
        assert np.array_equal(stored[size], values)
    seen = database.rows(
        'SELECT service, target, metric, labels, value FROM samples WHERE labels = \'{"number": "150"}\' AND ts = :ts',
        ts=START + timedelta(seconds=200),
    )
    assert [tuple(row) for row in seen] == [("redis", "one", "test_value", {"number": "150"}, wide[200][150])]


def test_writing_again_writes_nothing(database: Database, history: History) -> None:
    target = database.target()
    batch = [slot(target, number, events=(Event("x", f"number {number}"),)) for number in range(20)]
    history.write(batch)
    history.write(batch)
    History(database.engine, LAYOUTS.get).write([*batch, slot(target, 20)])
    assert database.value("SELECT count(*) FROM poll_runs") == 21
    assert database.value("SELECT count(*) FROM sample_blocks") == 21
    assert database.value("SELECT count(*) FROM events") == 20
    assert database.value("SELECT count(*) FROM layouts") == 1


def test_no_ids_are_burnt_by_what_is_known(database: Database, history: History) -> None:
    target = database.target()
    for number in range(5):
        history.forget()
        history.write([slot(target, number)])
    assert database.value("SELECT last_value FROM series_id_seq") == len(LAYOUT)
    assert database.value("SELECT last_value FROM layouts_id_seq") == 1


@pytest.mark.parametrize("outcome", [Outcome.LOST, Outcome.EXPIRED, Outcome.SKIPPED, Outcome.ERROR])
def test_a_run_that_read_the_target_replaces_one_that_did_not(
    database: Database, history: History, outcome: Outcome
) -> None:
    target = database.target()
    unread = slot(target, 0, [], outcome=outcome, started=None)
    history.write([unread])
    assert database.rows("SELECT outcome, milliseconds FROM poll_runs") == [(outcome.value, None)]
    history.write([slot(target, 0)])
    history.write([unread])
    history.write([slot(target, 0, [], outcome=Outcome.TIMEOUT)])
    assert database.rows("SELECT outcome, samples, milliseconds FROM poll_runs") == [("ok", 3, 20.0)]
    assert database.value("SELECT count(*) FROM sample_blocks") == 1


def test_what_was_read_is_not_lost_because_the_slot_had_ended(database: Database, history: History) -> None:
    target = database.target()
    history.write([slot(target, 0, [], outcome=Outcome.TIMEOUT)])
    history.write([slot(target, 0, outcome=Outcome.PARTIAL)])
    assert database.rows("SELECT outcome, samples FROM poll_runs") == [("partial", 3)]
    assert database.value("SELECT count(*) FROM sample_blocks") == 1


def test_of_one_slot_twice_in_a_batch_the_real_outcome_counts(database: Database, history: History) -> None:
    target = database.target()
    history.write(
        [slot(target, 0, [], outcome=Outcome.EXPIRED), slot(target, 0), slot(target, 0, [], outcome=Outcome.ERROR)]
    )
    assert database.rows("SELECT outcome FROM poll_runs") == [("ok",)]
    assert database.value("SELECT count(*) FROM sample_blocks") == 1


def test_a_block_of_a_time_that_is_there_does_not_lose_the_batch(database: Database, history: History) -> None:
    """A target that says when it measured may say the same time twice."""
    target = database.target()
    measured = START + timedelta(seconds=1)

    def block(value: float) -> Block:
        return Block.of(SampleBlock(LAYOUT, np.full(3, value, dtype=np.float64), measured), START)

    history.write([slot(target, 1, blocks=(block(1),))])
    history.write([slot(target, 2, blocks=(block(2),)), slot(target, 3, blocks=(block(3),)), slot(target, 4)])
    assert database.value("SELECT count(*) FROM poll_runs") == 4
    stored = database.rows('SELECT ts, "values"[1] FROM sample_blocks ORDER BY ts')
    assert stored == [(measured, 1.0), (START + timedelta(seconds=4), 4.0)]


def test_series_are_shared_by_layouts(database: Database, history: History) -> None:
    target, other = database.target("one"), database.target("two")
    history.write([slot(target, 0), slot(target, 1, np.arange(200.0), layout=layout(200)), slot(other, 0)])
    assert database.value("SELECT count(*) FROM layouts") == 3
    assert database.rows("SELECT target_id, count(*) FROM series GROUP BY 1 ORDER BY 1") == [(target, 200), (other, 3)]


def test_labels_may_be_longer_than_an_index_entry(database: Database) -> None:
    draw = np.random.default_rng(3)
    long = tuple((f"label_{number}", draw.bytes(500).hex()) for number in range(8))
    wide = Layout([series("test_value", long)])
    history = History(database.engine, {wide.digest: wide}.get)
    history.write([slot(database.target(), 0, [1.0], layout=wide)])
    assert database.value("SELECT labels FROM samples") == dict(long)


def test_no_character_costs_a_slot(database: Database) -> None:
    odd = Layout([series("test_value", (("query", 'select \x00 "ü" \\u0000 \ud7ff'),))])
    history = History(database.engine, {odd.digest: odd}.get)
    history.write([slot(database.target(), 0, [1.0], layout=odd, detail="nul \x00")])
    assert database.value("SELECT count(*) FROM samples") == 1


def test_late_data_makes_its_partition_and_older_data_is_dropped_and_told(
    database: Database, history: History, caplog: pytest.LogCaptureFixture
) -> None:
    target = database.target()
    now = datetime.now(UTC)
    late, old, future = now - timedelta(days=3), now - timedelta(days=31, hours=1), now + timedelta(days=9)
    with caplog.at_level(logging.WARNING):
        history.write([slot(target, 0, due=late), slot(target, 0, due=old), slot(target, 0, due=future)])
        history.write([slot(target, 0, due=late)])  # too old for the ledger to know it
    assert database.rows("SELECT ts FROM sample_blocks") == [(late,)]
    assert database.value("SELECT count(*) FROM poll_runs") == 0
    assert "2 rows for sample_blocks are past its retention or in the future: dropped" in caplog.messages
    assert "3 rows for poll_runs are past its retention or in the future: dropped" in caplog.messages


def test_a_batch_is_written_whole_or_not_at_all(database: Database, history: History) -> None:
    target = database.target()
    with pytest.raises((psycopg.errors.ForeignKeyViolation, DBAPIError)):
        history.write([slot(target, 0), slot(target + 1, 0)])
    with pytest.raises(UnknownLayoutError):
        history.write([slot(target, 0), slot(target, 1, [1.0], layout=layout(1, "never_brought"))])
    assert database.value("SELECT count(*) FROM poll_runs") == 0
    assert database.value("SELECT count(*) FROM layouts") == 0
    history.write([slot(target, 0)])  # what was learned in what was rolled back is not believed
    assert database.value("SELECT count(*) FROM samples") == 3


def test_an_empty_block_is_no_row(database: Database) -> None:
    empty = Layout([])
    history = History(database.engine, {empty.digest: empty}.get)
    block = Block.of(SampleBlock(empty, np.empty(0)), START)
    history.write([slot(database.target(), 0, blocks=(block,))])
    assert database.value("SELECT count(*) FROM poll_runs") == 1
    assert database.value("SELECT count(*) FROM sample_blocks") == 0
