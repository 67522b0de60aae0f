"""From settings to rows, schedules and inventory: only what changed is touched."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from sqlalchemy import Engine, text

from nms_workers.fleet.inventory import Inventory
from nms_workers.fleet.targets import Synced, sync
from nms_workers.settings import Settings, TargetConfig
from tests.fleet.stores import rows

pytestmark = pytest.mark.usefixtures("shelf")

NOW = datetime(2026, 6, 1, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)


def one(name: str, **options: Any) -> TargetConfig:
    return TargetConfig.model_validate({"service": "shelf", "name": name, "url": "env:X", "key": "k", **options})


@pytest.fixture
def inventory(red: "redis.Redis") -> Inventory:
    return Inventory(red)


Take = Callable[..., Synced]


@pytest.fixture
def take(engine: Engine, inventory: Inventory) -> Take:
    """`take(target, ..., now=...)`: sync to these targets."""

    def make(*targets: TargetConfig, now: datetime = NOW, **settings: Any) -> Synced:
        return sync(engine, inventory, Settings(targets=list(targets), **settings), now)

    return make


def state_of(engine: Engine) -> list[tuple[Any, ...]]:
    return rows(engine, "SELECT id, service, name, source, state, settings, options, worker FROM targets ORDER BY id")


def schedules_of(engine: Engine) -> list[tuple[Any, ...]]:
    return rows(engine, "SELECT * FROM schedules ORDER BY target_id, poll")


def test_targets_become_rows_schedules_and_inventory(engine: Engine, inventory: Inventory, take: Take) -> None:
    synced = take(one("a", every={"items": "7s"}, skip=["rack"], max_series=5), one("b", worker="fw1"))
    assert synced == Synced(added=["shelf/a", "shelf/b"])
    a, b = state_of(engine)
    options = {"every": {"items": 7.0}, "skip": ["rack"], "max_series": 5}
    assert a[1:] == ("shelf", "a", "file", "active", {"url": "env:X", "key": "k"}, options, None)
    assert b[-1] == "fw1"
    every = {(target, poll): (ms, phase) for target, poll, ms, phase, _ in schedules_of(engine)}
    assert {key: ms for key, (ms, _) in every.items()} == {
        (a[0], "items"): 7_000,
        (a[0], "loose"): 30_000,
        (b[0], "items"): 30_000,
        (b[0], "loose"): 30_000,
        (b[0], "rack"): 10_000,
    }
    found = inventory.all()
    assert found.keys() == {a[0], b[0]}
    assert found[a[0]].every == {"items": 7.0, "loose": 30.0}
    assert (found[a[0]].max_series, found[b[0]].worker) == (5, "fw1")


def test_intervals_of_a_target_come_before_those_of_all(inventory: Inventory, take: Take) -> None:
    take(one("a", every={"items": "7s"}), one("b"), every={"shelf.items": 20.0, "shelf.rack": 40.0})
    a, b = inventory.all().values()
    assert a.every == {"items": 7.0, "loose": 30.0, "rack": 40.0}
    assert b.every == {"items": 20.0, "loose": 30.0, "rack": 40.0}


def test_nothing_changed_touches_nothing(engine: Engine, take: Take) -> None:
    targets = [one("a", every={"items": "7.5s"}), one("b", size=3, paused=True)]
    take(*targets)
    before = rows(engine, "SELECT t.*, t.xmin::text FROM targets t"), schedules_of(engine)
    assert take(*targets, now=LATER) == Synced()
    assert (rows(engine, "SELECT t.*, t.xmin::text FROM targets t"), schedules_of(engine)) == before
    assert str(Synced()) == "no target changed"


def test_only_what_changed_changes(engine: Engine, inventory: Inventory, take: Take) -> None:
    take(one("a"), one("b"), one("c"))
    ids = {name: number for number, _, name, *_ in state_of(engine)}
    before = {target.name: target for target in inventory.all().values()}
    old = schedules_of(engine)
    assert take(one("a"), one("b", size=2), one("c", every={"items": "5s"}), now=LATER) == Synced(
        changed=["shelf/b", "shelf/c"]
    )
    after = {target.name: target for target in inventory.all().values()}
    assert {name: number for number, _, name, *_ in state_of(engine)} == ids
    assert after["a"] == before["a"]
    assert after["b"].fingerprint != before["b"].fingerprint
    assert after["c"].fingerprint == before["c"].fingerprint, "its clients stay: only an interval changed"
    moved = [row[:2] for row in schedules_of(engine) if row not in old]
    assert moved == [(ids["c"], "items")], "only a changed interval is audited anew"
    assert rows(engine, "SELECT name FROM targets WHERE updated_at = :at ORDER BY 1", at=LATER) == [("b",), ("c",)]


def test_phases_are_kept_over_changes(engine: Engine, take: Take) -> None:
    take(one("a"), one("b"))
    before = schedules_of(engine)
    take(one("a", size=2), one("b"), one("z"), now=LATER)
    assert schedules_of(engine)[: len(before)] == before


def test_what_is_gone_keeps_its_row_and_comes_back_as_itself(engine: Engine, inventory: Inventory, take: Take) -> None:
    take(one("a"), one("b"))
    ids = {name: number for number, _, name, *_ in state_of(engine)}
    phases = [row[:4] for row in schedules_of(engine)]
    assert take(one("b"), now=LATER) == Synced(gone=["shelf/a"])
    assert {name: state for _, _, name, _, state, *_ in state_of(engine)} == {"a": "gone", "b": "active"}
    assert {row[0] for row in schedules_of(engine)} == {ids["b"]}
    assert inventory.all().keys() == {ids["b"]}
    assert take(one("b"), now=LATER) == Synced(), "gone is told once"
    back = LATER + timedelta(hours=1)
    assert take(one("a"), one("b"), now=back) == Synced(added=["shelf/a"])
    assert {name: number for number, _, name, *_ in state_of(engine)} == ids
    assert [row[:4] for row in schedules_of(engine)] == phases
    assert {row[4] for row in schedules_of(engine) if row[0] == ids["a"]} == {back}


def test_paused_is_known_and_not_polled(engine: Engine, inventory: Inventory, take: Take) -> None:
    take(one("a"))
    assert take(one("a", paused=True)) == Synced(changed=["shelf/a"])
    assert [row[4] for row in state_of(engine)] == ["paused"]
    assert schedules_of(engine) == []
    assert inventory.all() == {}
    assert inventory.known()


def test_targets_of_other_sources_are_left_alone_and_polled(engine: Engine, inventory: Inventory, take: Take) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO targets (service, name, source, state, settings, options) VALUES
                ('shelf', 'found', 'docker', 'active', '{"url": "env:X", "key": "k"}', '{}'),
                ('shelf', 'maybe', 'docker', 'proposed', '{}', '{}'),
                ('gopher', 'other', 'import', 'active', '{}', '{}')""")
        )
    before = state_of(engine)
    assert take(one("a")) == Synced(added=["shelf/a"])
    assert take() == Synced(gone=["shelf/a"])
    assert [row for row in state_of(engine) if row[3] != "file"] == before
    assert [target.name for target in inventory.all().values()] == ["found"], "its service is here, and it is active"


def test_a_secret_travels_as_its_reference(
    engine: Engine, red: "redis.Redis", take: Take, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("X", "hunter2")
    take(one("a"))
    assert state_of(engine)[0][5] == {"url": "env:X", "key": "k"}
    assert b"hunter2" not in b"".join(red.hvals("nms:targets"))


def test_two_syncs_at_once_agree(engine: Engine, inventory: Inventory) -> None:
    settings = Settings(targets=[one(f"s{n}") for n in range(200)])
    barrier, failures = threading.Barrier(4), []

    def work() -> None:
        barrier.wait(10)
        try:
            sync(engine, inventory, settings, NOW)
        except Exception as exc:  # noqa: BLE001 - told below
            failures.append(exc)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert len(state_of(engine)) == len(inventory.all()) == 200


def test_six_thousand_targets_come_and_go(engine: Engine, inventory: Inventory, take: Take) -> None:
    targets = [one(f"s{n}") for n in range(6_000)]
    began = time.monotonic()
    assert len(take(*targets).added) == 6_000
    assert len(inventory.all()) == 6_000
    assert rows(engine, "SELECT count(*) FROM schedules") == [(18_000,)]
    assert take(*targets) == Synced()
    gone = take()
    assert len(gone.gone) == 6_000
    assert "shelf/s19 and 5980 more" in str(gone)
    assert inventory.all() == {}
    assert time.monotonic() - began < 60, "4 s where nothing else runs"


# The inventory, as workers see it.


def test_a_worker_sees_a_change_at_its_next_look(red: "redis.Redis", inventory: Inventory, take: Take) -> None:
    worker = Inventory(red)
    assert worker.all() == {}
    assert not worker.known()
    take(one("a"))
    assert [target.name for target in worker.all().values()] == ["a"]
    assert worker.all() is worker.all(), "read once, not at each look"
    take(one("b"))
    assert [target.name for target in worker.all().values()] == ["b"]
    assert worker.known()


def test_a_redis_that_lost_its_data_is_not_taken_for_the_old_one(
    red: "redis.Redis", inventory: Inventory, take: Take
) -> None:
    worker = Inventory(red)
    take(one("a"))
    assert [target.name for target in worker.all().values()] == ["a"]
    red.flushdb()
    assert not inventory.known()
    take(one("b"))
    assert [target.name for target in worker.all().values()] == ["b"]


def test_what_a_message_names_is_picked_if_it_is_still_there(inventory: Inventory, take: Take) -> None:
    take(one("a"), one("b"))
    a, b = inventory.all()
    assert [target.name for target in inventory.pick([b, 999, a])] == ["b", "a"]
    take(one("b"))
    assert [target.name for target in inventory.pick([b, a])] == ["b"]
    assert [target.name for target in inventory.with_poll("shelf", "items")] == ["b"]
    assert inventory.with_poll("shelf", "nothing") == inventory.with_poll("redis", "items") == []
