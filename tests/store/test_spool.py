import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from nms_workers.errors import Outcome
from nms_workers.records import Entity, Event
from nms_workers.store.slot import SlotResult
from nms_workers.store.spool import Spool, SpoolError
from tests.store.slots import LAYOUT, layout, slot


def drained(spool: Spool) -> list[SlotResult]:
    results = []
    while waiting := spool.batch(10):
        results += [spooled.result for spooled in waiting]
        spool.done(waiting[-1].id)
    return results


def test_everything_comes_back_as_it_was_and_in_order(spool: Spool) -> None:
    put = [
        slot(1, number, events=(Event("x", "happened", attributes={"n": number}),), entities=(Entity("db", "a"),))
        for number in range(25)
    ]
    for result in put:
        spool.append(result, [LAYOUT])
    assert drained(spool) == put
    assert spool.first() is None
    found = spool.layout(LAYOUT.digest)
    assert found is not None
    assert found.members == LAYOUT.members


def test_many_threads_lose_nothing(spool: Spool) -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda number: spool.append(slot(number, 0), [LAYOUT]), range(200)))
    assert sorted(ids) == list(range(1, 201))
    assert sorted(result.target_id for result in drained(spool)) == list(range(200))


def test_a_forked_process_uses_a_connection_of_its_own(spool: Spool) -> None:
    spool.append(slot(1, 0), [LAYOUT])
    child = os.fork()
    if child == 0:
        try:
            spool.append(slot(2, 0), [LAYOUT])
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    spool.append(slot(3, 0), [LAYOUT])
    assert [result.target_id for result in drained(spool)] == [1, 2, 3]


def test_only_one_drains_and_a_forked_child_does_not_hold_the_lock(spool: Spool) -> None:
    neighbour = Spool(spool.folder)
    reading, writing = os.pipe()
    with spool.draining() as ours:
        assert ours
        with neighbour.draining() as theirs:
            assert not theirs
        child = os.fork()
        if child == 0:
            os.close(writing)
            os.read(reading, 1)  # lives until the parent lets go
            os._exit(0)
    try:
        with neighbour.draining() as theirs:
            assert theirs
    finally:
        os.close(writing)
        os.close(reading)
        os.waitpid(child, 0)


def test_what_was_appended_survives_kill_9(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from nms_workers.store.spool import Spool; from tests.store.slots import LAYOUT, slot\n"
        "spool = Spool(Path(sys.argv[1]))\n"
        "[spool.append(slot(n, 0), [LAYOUT]) for n in range(50)]\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    died = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert died.returncode == -9
    spool = Spool(tmp_path)
    assert [result.target_id for result in drained(spool)] == list(range(50))
    spool.close()


def test_a_full_spool_keeps_the_ledger_and_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    wide = layout(500)
    spool = Spool(tmp_path, max_bytes=1_000_000)
    with caplog.at_level(logging.WARNING):
        for number in range(400):
            spool.append(slot(1, number, list(range(500)), layout=wide), [wide])
    assert spool.backlog().bytes < 1_000_000 * 1.11
    assert [record.message for record in caplog.records if "is full" in record.message] == [
        f"the spool {tmp_path} is full ({spool.max_bytes + spool_excess(caplog)} bytes): what is read from now on is "
        "dropped. See why PostgreSQL does not take it, or give the spool more room."
    ]
    results = drained(spool)
    whole = [result for result in results if result.blocks]
    stripped = [result for result in results if not result.blocks]
    assert [result.due for result in results] == sorted(result.due for result in results)
    assert 100 < len(whole) < 300
    assert {(r.outcome, r.detail) for r in stripped} == {(Outcome.ERROR, "spool full: 500 samples dropped")}
    assert len(whole) + len(stripped) == 400
    spool.append(slot(1, 401, list(range(500)), layout=wide), [wide])
    assert drained(spool)[0].samples == 500
    assert "has room again" in caplog.text
    spool.close()


def spool_excess(caplog: pytest.LogCaptureFixture) -> int:
    """By how much the spool was over its size when it said so: a page or two."""
    (full,) = [record for record in caplog.records if "is full" in record.message]
    _, used = full.args  # type: ignore[misc] - logging allows a mapping too
    excess = int(used) - 1_000_000  # type: ignore[call-overload] - any object may be logged
    assert 0 <= excess < 100_000
    return excess


def test_a_row_that_cannot_be_read_is_set_aside_and_can_be_put_back(spool: Spool) -> None:
    spool.append(slot(1, 0), [LAYOUT])
    with spool._transaction() as db:
        db.execute("INSERT INTO slots (at, body) VALUES (0, ?)", (msgspec.msgpack.encode({"of": "another version"}),))
    spool.append(slot(2, 0), [LAYOUT])
    assert [spooled.result.target_id for spooled in spool.batch(10)] == [1, 2]
    spool.done(3)
    ((key, reason),) = spool.refused()
    assert key == 2
    assert "cannot be read" in reason
    assert spool.retry_refused() == 1
    assert spool.batch(10) == []
    assert len(spool.refused()) == 1


def test_the_quarantine_is_bounded(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nms_workers.store.spool.REFUSED_KEPT", 5)
    for number in range(8):
        spool.refuse(spool.append(slot(number, 0), [LAYOUT]), "no")
    assert [key for key, _ in spool.refused()] == [4, 5, 6, 7, 8]


def test_what_cannot_be_encoded_still_ends_in_the_ledger(spool: Spool) -> None:
    spool.append(slot(1, 0, events=(Event("x", "y", attributes={"n": 1 << 80}),)), [LAYOUT])
    (result,) = drained(spool)
    assert result.outcome is Outcome.ERROR
    assert result.detail.startswith("cannot be stored: ")
    assert not result.events


def test_layouts_of_volatile_polls_do_not_pile_up(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nms_workers.store.spool.LAYOUTS_BEFORE_SWEEP", 10)
    for number in range(10):
        one = layout(3, f"metric_{number}")
        spool.append(slot(1, number, layout=one), [one])
    assert len(drained(spool)) == 10
    assert spool.layout(layout(3, "metric_1").digest) is None


def test_the_backlog_is_counted(spool: Spool) -> None:
    assert spool.backlog().rows == 0
    for number in range(7):
        spool.append(slot(1, number), [LAYOUT])
    spool.done(2)
    backlog = spool.backlog()
    assert backlog.rows == 5
    assert 0 <= backlog.oldest_seconds < 60


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    spool = Spool(tmp_path / "file")
    with pytest.raises(SpoolError, match="file cannot be used"):
        spool.append(slot(1, 0), [LAYOUT])
