"""Beat for a fleet: one leads, and a changed file is taken over, on a real Redis and a real PostgreSQL."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from sqlalchemy import Engine

from nms_workers.app import create_app
from nms_workers.fleet import pauses
from nms_workers.fleet.inventory import Inventory
from nms_workers.runtime import runtime
from nms_workers.scheduler import LeaderScheduler, Lease
from nms_workers.settings import Settings
from nms_workers.settings_file import SettingsFile
from tests.fleet.stores import database_url, engine, postgres_name, red, redis_server, rows, shelf, wait_until
from tests.servers import Server

__all__ = ["database_url", "engine", "postgres_name", "red", "redis_server", "shelf"]  # fixtures

KEY = "nms:lease:beat"


# The lease.


def test_one_leads_and_the_other_stands_by(red: "redis.Redis") -> None:
    first, second = Lease(red), Lease(red)
    assert first.held()
    assert not second.held()
    assert first.held(), "asking again does not lose it"
    assert 10_000 < red.pttl(KEY) <= 15_000


def test_of_many_at_once_one_leads(red: "redis.Redis") -> None:
    barrier, leads = threading.Barrier(8), []

    def work() -> None:
        mine = Lease(red)
        barrier.wait(10)
        leads.append(mine.held())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(leads) == [False] * 7 + [True]


def test_the_leader_renews_and_a_dead_one_is_followed(red: "redis.Redis") -> None:
    first, second = Lease(red, seconds=1.2), Lease(red, seconds=1.2)
    assert first.held()
    ends = time.monotonic() + 2.5  # longer than one lease
    while time.monotonic() < ends:
        assert first.held()
        assert not second.held()
        time.sleep(0.05)
    died = time.monotonic()  # the first one asks no more
    wait_until(second.held)
    assert time.monotonic() - died < 1.2 + 1.0 + 1.0
    assert not first.held(), "it comes back, and stands by"


def test_dropped_another_leads_at_once(red: "redis.Redis") -> None:
    first, second = Lease(red), Lease(red)
    assert first.held()
    first.drop()
    assert not red.exists(KEY)
    assert second.held()
    assert not first.held(), "who dropped it does not go on from memory"
    first.drop()
    assert red.exists(KEY), "only the holder's own is dropped"


def test_a_restart_of_redis_keeps_the_leader(start_server: Callable[..., Server]) -> None:
    server = start_server("valkey-9")
    with redis.Redis.from_url(server.url, socket_timeout=2) as client:
        first, second = Lease(client, seconds=6.0), Lease(client, seconds=6.0)
        assert first.held()
        server.restart()
        assert first.held()
        assert not second.held()


def test_without_redis_nobody_leads_for_longer_than_the_lease(start_server: Callable[..., Server]) -> None:
    server = start_server("valkey-9")
    with redis.Redis.from_url(server.url, socket_timeout=1, retry=None) as client:
        first, second = Lease(client, seconds=1.5), Lease(client, seconds=1.5)
        assert first.held()
        began = time.monotonic()
        server.kill()
        assert not second.held()
        wait_until(lambda: not first.held())
        assert time.monotonic() - began < 2.0
        server.start()
        wait_until(lambda: first.held() or second.held())
        assert not (first.held() and second.held())
        server.stop()
        first.drop()  # says so, and is no error


# The settings file.


def _redis(name: str, extra: str = "") -> str:
    return f'[[targets]]\nservice = "redis"\nname = "{name}"\n{extra}\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "nms.toml"
    found.write_text(_redis("a"))
    return found


def test_a_changed_file_is_taken_over_once(path: Path) -> None:
    watched = SettingsFile(path, Settings.load(path))
    assert not watched.changed()
    path.write_text(_redis("a") + _redis("b"))
    assert watched.changed()
    assert [target.name for target in watched.settings.targets] == ["a", "b"]
    assert not watched.changed()


@pytest.mark.parametrize("broken", ["[[targets", _redis("a", "colour = 'red'"), _redis("a") * 2, None])
def test_a_broken_file_is_refused_and_told_once(
    path: Path, broken: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    before = Settings.load(path)
    watched = SettingsFile(path, before)
    if broken is None:
        path.unlink()
    else:
        path.write_text(broken)
    with caplog.at_level(logging.ERROR, logger="nms_workers.settings_file"):
        assert [watched.changed() for _ in range(3)] == [False] * 3
    assert watched.settings is before
    assert len(caplog.records) == 1
    assert "the changed settings are refused, the ones before stay" in caplog.text
    assert str(path) in caplog.text
    path.write_text(_redis("mended"))
    assert watched.changed()
    assert [target.name for target in watched.settings.targets] == ["mended"]


def test_a_file_that_is_replaced_is_seen(path: Path) -> None:
    watched = SettingsFile(path, Settings.load(path))
    new = path.with_suffix(".new")
    new.write_text(_redis("z"))
    new.replace(path)
    assert watched.changed()


# Beat.


Beat = Callable[[], LeaderScheduler]


@pytest.fixture
def beat(
    engine: Engine, redis_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: Path
) -> Iterator[Beat]:
    """`beat()`: one more scheduler on this settings file."""
    path.write_text(_redis("a"))
    monkeypatch.setenv("NMS_CONFIG", str(path))
    monkeypatch.setenv("NMS_DATA", str(tmp_path))
    monkeypatch.setenv("NMS_DATABASE_URL", engine.url.render_as_string(hide_password=False))
    monkeypatch.setenv("NMS_REDIS_URL", redis_server.url)
    monkeypatch.setattr("nms_workers.scheduler.LOOK_SECONDS", 0.0)
    runtime.cache_clear()
    made: list[LeaderScheduler] = []

    def make() -> LeaderScheduler:
        app = create_app(Settings.load(path))
        made.append(LeaderScheduler(app=app, max_interval=1))
        return made[-1]

    yield make
    for one in made:
        one.close()
        one.app.close()
    runtime().close()
    runtime.cache_clear()


def _names(engine: Engine) -> list[tuple[str, str]]:
    return rows(engine, "SELECT name, state FROM targets ORDER BY name")


def test_the_leader_syncs_the_targets_and_sends_what_is_due(
    beat: Beat, engine: Engine, red: "redis.Redis", tmp_path: Path
) -> None:
    first, second = beat(), beat()
    assert first.tick() <= 1
    assert _names(engine) == [("a", "active")]
    assert (tmp_path / "run" / "beat.heartbeat").exists()
    wait_until(lambda: first.tick() >= 0 and red.llen("dispatch") > 0)
    sent = red.llen("dispatch")
    assert second.tick() == 1.0
    assert red.llen("dispatch") == sent, "who stands by sends nothing"


def test_a_beat_that_closes_hands_over(beat: Beat, red: "redis.Redis") -> None:
    first, second = beat(), beat()
    first.tick()
    second.tick()
    first.close()
    wait_until(lambda: second.tick() >= 0 and red.llen("dispatch") > 0, seconds=5)
    [begin, pause] = pauses.pauses(red)
    assert begin.after_ms == 0
    assert pause.until_ms - pause.after_ms < 5_000


def test_one_that_stands_by_leaves_the_lease_alone_when_it_closes(beat: Beat, red: "redis.Redis") -> None:
    first, second = beat(), beat()
    first.tick()
    second.tick()
    second.close()
    assert red.exists(KEY)


def test_a_reload_changes_only_what_changed(beat: Beat, engine: Engine, path: Path) -> None:
    path.write_text(_redis("a") + _redis("b"))
    scheduler = beat()
    scheduler.tick()
    before = rows(engine, "SELECT * FROM schedules ORDER BY 1, 2")
    assert scheduler.schedule["redis.server"].schedule.seconds == 1.25

    path.write_text("[every]\n'redis.keys' = '24s'\n" + _redis("a") + _redis("b", "port = 7000") + _redis("c"))
    wait_until(lambda: scheduler.tick() >= 0 and len(_names(engine)) == 3)
    after = rows(engine, "SELECT * FROM schedules ORDER BY 1, 2")
    changed = {(target, poll) for target, poll, *_ in set(before) - set(after)}
    assert changed == {(1, "keys"), (2, "keys")}
    assert scheduler.schedule["redis.keys"].schedule.seconds == 2.0
    assert scheduler.schedule["redis.server"].schedule.seconds == 1.25

    path.write_text(_redis("a", "prot = 1"))
    for _ in range(3):
        scheduler.tick()
    assert [state for _, state in _names(engine)] == ["active"] * 3, "a broken file changes nothing"
    assert scheduler.schedule["redis.keys"].schedule.seconds == 2.0


def test_a_redis_that_lost_its_data_is_told_the_targets_again(beat: Beat, red: "redis.Redis") -> None:
    scheduler = beat()
    scheduler.tick()
    red.flushdb()
    wait_until(lambda: scheduler.tick() >= 0 and Inventory(red).known(), seconds=30)
    assert [target.name for target in Inventory(red).all().values()] == ["a"]
    assert pauses.pauses(red) == [], "a loss of data excuses no slot of before"


def test_a_fleet_that_never_ran_missed_nothing(red: "redis.Redis") -> None:
    pauses.resume(red, 1_000)
    assert pauses.pauses(red) == [(0, 1_000)]
    pauses.resume(red, 2_000)  # a beat that was killed left no word: what it did not send is named
    assert pauses.pauses(red) == [(0, 1_000)]
    pauses.stop(red, 3_000)
    pauses.resume(red, 4_000, running=True)
    assert pauses.pauses(red) == [(0, 1_000), (3_000, 4_000)]
    for moment in range(10_000, 10_200, 2):
        pauses.stop(red, moment)
        pauses.resume(red, moment + 1)
    assert len(pauses.pauses(red)) == 50
