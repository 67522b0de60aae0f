"""The file that a health check looks at: fresh while a worker can receive messages, and only then."""

import os
import time
from pathlib import Path

import pytest

from nms_workers.heartbeat import EVERY_SECONDS, STALE_SECONDS, stale
from tests.real.conftest import POSTGRES, REDIS
from tests.real.fleet import Fleet, until
from tests.servers import Server


def test_a_file_is_stale_when_it_is_old_or_not_there(tmp_path: Path) -> None:
    file = tmp_path / "polls@host.heartbeat"
    assert stale(file)
    file.touch()
    assert not stale(file)
    for age, expected in ((STALE_SECONDS - 5, False), (STALE_SECONDS + 1, True)):
        os.utime(file, times=(time.time() - age,) * 2)
        assert stale(file) is expected
    assert EVERY_SECONDS * 5 < STALE_SECONDS, "a busy machine may be late a few times"


@pytest.mark.real(POSTGRES, REDIS)
@pytest.mark.parametrize("worker_class", ["control", "actions"])
def test_it_grows_stale_while_the_broker_is_away_and_fresh_when_it_is_back(
    fleet: Fleet, own_redis: Server, worker_class: str
) -> None:
    """Threads and processes alike. The worker lives all the time: that it runs is no proof that it works."""
    fleet.configure()
    worker = fleet.worker(worker_class).ready()
    file = worker.heartbeat
    assert file is not None
    first = file.stat().st_mtime
    until(lambda: file.stat().st_mtime > first, "it is touched again and again")

    own_redis.kill()
    until(lambda: stale(file), "it grows stale", STALE_SECONDS + 30)
    assert worker.running
    own_redis.start()
    returned = time.time()
    until(lambda: worker.beats(returned), "it is fresh again", 60)
    assert not stale(file)


@pytest.mark.real(POSTGRES, REDIS)
def test_a_worker_that_was_killed_leaves_a_file_that_grows_stale(fleet: Fleet) -> None:
    fleet.configure()
    worker = fleet.worker("control").ready()
    worker.kill()
    assert worker.heartbeat is not None
    last = worker.heartbeat.stat().st_mtime
    until(lambda: time.time() - last > EVERY_SECONDS * 2, "two more beats would have come")
    assert worker.heartbeat.stat().st_mtime == last
