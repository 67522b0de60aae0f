"""The whole way of a slot, through deaths and outages: each slot once, in order, nothing lost."""

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nms_workers.records import Layout, SampleBlock, series
from nms_workers.store.partitions import partition_name
from nms_workers.store.slot import Block
from nms_workers.store.spool import Spool
from nms_workers.store.writer import Writer
from tests.servers import Server
from tests.store.conftest import Database, MakeDatabase
from tests.store.slots import LAYOUT, START, slot
from tests.store.waiting import until


@pytest.fixture
def writer(database: Database, spool: Spool) -> Writer:
    return Writer(spool, database.url, schema=database.schema)


def numbers(database: Database, target: int) -> list[int]:
    """The slots in the ledger by number, in their order of time."""
    rows = database.rows("SELECT due FROM poll_runs WHERE target_id = :target ORDER BY due", target=target)
    return [round((due - START).total_seconds()) for (due,) in rows]


def stored(database: Database) -> list[float]:
    """The first value of each block, in the order in which they were written."""
    return [value for (value,) in database.rows('SELECT "values"[1] FROM sample_blocks ORDER BY tableoid, ctid')]


def child(database: Database, spool: Spool, target: int, first: int, count: int, *how: str) -> "subprocess.Popen[str]":
    arguments = [database.url, database.schema, str(spool.folder), str(target), str(first), str(count), *how]
    return subprocess.Popen([sys.executable, "-m", "tests.store.worker", *arguments], stdout=subprocess.PIPE, text=True)


def test_what_is_put_is_written(database: Database, spool: Spool, writer: Writer) -> None:
    target = database.target()
    writer.start()
    for number in range(300):
        writer.put(slot(target, number), [LAYOUT])
    assert writer.flush(20)
    assert numbers(database, target) == list(range(300))
    assert stored(database) == list(range(300))
    assert writer.backlog().rows == 0
    assert writer.close(5)


def test_killed_between_commit_and_forgetting_nothing_is_written_twice(
    database: Database, spool: Spool, writer: Writer
) -> None:
    target = database.target()
    died = child(database, spool, target, 0, 20, "after-commit")
    died.communicate(timeout=60)
    assert died.returncode == -9
    assert len(numbers(database, target)) == 20
    assert spool.backlog().rows == 20
    writer.start()
    writer.put(slot(target, 20), [LAYOUT])
    assert writer.flush(20)
    assert numbers(database, target) == list(range(21))
    assert stored(database) == list(range(21))
    assert writer.close(5)


def test_a_killed_worker_s_slots_are_written_by_its_neighbour(newest: Database, spool: Spool) -> None:
    """Two processes share the spool; one is killed in the middle, and what it put is there once."""
    one, two = newest.target("one"), newest.target("two")
    doomed, neighbour = child(newest, spool, one, 0, 10_000), child(newest, spool, two, 0, 400)
    assert doomed.stdout is not None
    safe = [int(doomed.stdout.readline()) for _ in range(150)]
    doomed.kill()
    safe += map(int, doomed.stdout.read().split())
    doomed.wait(10)
    doomed.stdout.close()
    assert neighbour.communicate(timeout=60)[0].split()[-1] == "399"
    assert neighbour.returncode == 0
    assert spool.first() is None
    written = numbers(newest, one)
    assert written[: len(safe)] == safe
    assert len(written) <= len(safe) + 1  # the last may have been safe before its number was told
    assert numbers(newest, two) == list(range(400))
    blocks = newest.value("SELECT count(*) FROM sample_blocks")
    assert blocks == len(written) + 400


def test_postgresql_stops_and_starts_under_load(
    start_server: Callable[..., Server], make_database: MakeDatabase, spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    server = start_server("postgresql-18")
    database = make_database(server)
    target = database.target()
    writer = Writer(spool, database.url, schema=database.schema)
    writer.start()
    done, put = threading.Event(), []

    def load() -> None:
        while not done.wait(0.002):
            writer.put(slot(target, len(put)), [LAYOUT])
            put.append(len(put))

    loading = threading.Thread(target=load)
    with caplog.at_level(logging.WARNING):
        loading.start()
        until(lambda: len(put) > 100 and len(stored(database)) > 10, "something is written")
        server.stop()
        during = len(put)
        until(lambda: len(put) > during + 300, "reading goes on")
        assert writer.backlog().rows >= 300
        assert writer.backlog().oldest_seconds > 0
        assert not writer.flush(0.1)
        server.start()
        after = len(put)
        until(lambda: len(put) > after + 50, "reading goes on")
        done.set()
        loading.join()
        assert writer.flush(30)
    database.engine.dispose()
    assert numbers(database, target) == put
    assert stored(database) == put
    told = [record.message for record in caplog.records if record.name == "nms_workers.store.writer"]
    assert len(told) == 2
    assert "does not take" in told[0]
    assert server.password not in told[0]
    assert "takes what was read again" in told[1]
    assert writer.close(5)


def test_postgresql_killed_under_load(
    start_server: Callable[..., Server], make_database: MakeDatabase, spool: Spool
) -> None:
    server = start_server("postgresql-15")
    database = make_database(server)
    target = database.target()
    writer = Writer(spool, database.url, schema=database.schema)
    writer.start()
    for number in range(600):
        writer.put(slot(target, number), [LAYOUT])
        if number in (100, 400):
            server.kill()
        if number in (200, 500):
            server.start()
    assert writer.flush(30)
    database.engine.dispose()
    assert numbers(database, target) == list(range(600))
    assert stored(database) == list(range(600))
    assert writer.close(5)


def test_a_row_that_postgresql_refuses_does_not_stop_the_others(
    database: Database, spool: Spool, writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    target = database.target()
    gone = target + 1  # deleted while its slots were on their way
    for number in range(40):
        writer.put(slot(gone if number in (7, 31) else target, number), [LAYOUT])
    writer.start()
    assert writer.flush(20)
    assert numbers(database, target) == [number for number in range(40) if number not in (7, 31)]
    assert stored(database) == numbers(database, target)
    assert database.rows("SELECT outcome, samples FROM poll_runs WHERE target_id = :gone", gone=gone) == [
        ("error", 0),
        ("error", 0),
    ]
    assert [key for key, _ in spool.refused()] == [8, 32]
    assert "foreign key" in spool.refused()[0][1]
    assert sum("is set aside" in message for message in caplog.messages) == 2
    database.run(
        "INSERT INTO targets (id, service, name, source, state) VALUES (:gone, 'x', 'y', 'z', 'gone')", gone=gone
    )
    assert spool.retry_refused() == 2  # the cause is gone
    assert writer.flush(20)
    assert numbers(database, gone) == [7, 31]
    assert database.value("SELECT sum(samples) FROM poll_runs") == 120
    assert writer.close(5)


def test_a_partition_that_somebody_dropped_is_made_again(newest: Database, spool: Spool) -> None:
    target = newest.target()
    writer = Writer(spool, newest.url, schema=newest.schema)
    writer.start()
    writer.put(slot(target, 0), [LAYOUT])
    assert writer.flush(20)
    newest.run(f"DROP TABLE {partition_name('sample_blocks', START)}")
    writer.put(slot(target, 1), [LAYOUT])
    assert writer.flush(20)
    assert stored(newest) == [1]
    assert spool.refused() == []
    assert writer.close(5)


def test_a_database_without_tables_is_an_outage_with_a_hint(
    newest: Database, spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    writer = Writer(spool, newest.url, schema="no_such_schema")
    writer.start()
    writer.put(slot(1, 0), [LAYOUT])
    until(lambda: "nms-workers db upgrade" in caplog.text, "the hint is told")
    asked = time.monotonic()
    assert not writer.close(20)
    assert time.monotonic() - asked < 5  # what waits is safe: nobody is held up for it
    assert spool.backlog().rows == 1
    assert spool.refused() == []


def test_a_block_without_its_layout_is_a_fault_told_at_once(newest: Database, spool: Spool) -> None:
    writer = Writer(spool, newest.url, schema=newest.schema)
    with pytest.raises(ValueError, match="came without its layout"):
        writer.put(slot(1, 0))
    short = Layout([series("test_value")])
    block = Block(short.digest, START, Block.of(SampleBlock(LAYOUT, np.zeros(3)), START).values)
    with pytest.raises(ValueError, match="does not fit"):
        writer.put(slot(1, 0, blocks=(block,)), [short])
    assert spool.first() is None
    assert writer.close(1)


def test_a_writer_can_be_closed_and_its_spool_taken_over(newest: Database, tmp_path: Path) -> None:
    target = newest.target()
    first = Writer(Spool(tmp_path), newest.url, schema=newest.schema)
    first.put(slot(target, 0), [LAYOUT])
    assert not first.close(1)  # never started: it says that something is left
    second = Writer(Spool(tmp_path), newest.url, schema=newest.schema)
    second.start()
    assert second.flush(10)
    assert numbers(newest, target) == [0]
    assert second.close(5)
    second.spool.close()
    first.spool.close()
