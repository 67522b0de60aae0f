"""What beat does and how often."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beat_schedule import HOUSEKEEPING, beat_schedule
from nms_workers.fleet.slots import late, tick
from nms_workers.queues import CLASSES, queue_names
from nms_workers.service import services
from nms_workers.settings import Settings, TargetConfig
from nms_workers.tasks import _FLEET_TASKS


def test_every_poll_of_every_service_has_one_entry() -> None:
    entries = beat_schedule(Settings())
    polls = {(kind, name) for kind, one in services().items() for name in one.polls()}
    dispatches = {name: entry["kwargs"] for name, entry in entries.items() if entry["task"] == "nms.dispatch"}
    assert {(kwargs["service"], kwargs["poll"]) for kwargs in dispatches.values()} == polls
    assert entries.keys() - dispatches.keys() == HOUSEKEEPING.keys()


def test_entries_name_tasks_and_queues_that_exist() -> None:
    settings = Settings()
    for name, entry in beat_schedule(settings).items():
        assert entry["task"] in _FLEET_TASKS, name
        assert entry["options"]["queue"] in queue_names(settings), name
        assert entry["options"]["queue"].startswith(CLASSES["control"]), name


def test_what_waits_longer_than_two_ticks_is_dropped() -> None:
    for name, entry in beat_schedule(Settings()).items():
        assert entry["schedule"] <= entry["options"]["expires"] <= 2 * entry["schedule"], name


def _redis(name: str, **options: object) -> TargetConfig:
    return TargetConfig.model_validate({"service": "redis", "name": name, **options})


@pytest.mark.parametrize(
    ("settings", "schedule"),
    [
        (Settings(every={"redis.server": 120}), 10.0),
        (Settings(every={"redis.server": 24}), 2.0),
        (Settings(every={"redis.server": 120}, targets=[_redis("a", every={"server": "24s"}), _redis("b")]), 2.0),
        (Settings(every={"redis.server": 24}, targets=[_redis("a", every={"server": "1h"})]), 2.0),
        (Settings(every={"redis.server": 24}, targets=[_redis("a", every={"memory": "1s"})]), 2.0),
    ],
)
def test_dispatch_looks_often_enough_for_the_shortest_interval(settings: Settings, schedule: float) -> None:
    entry = beat_schedule(settings)["redis.server"]
    assert entry["schedule"] == schedule
    assert entry["kwargs"] == {"service": "redis", "poll": "server"}


@given(st.floats(1, 7 * 86_400))
def test_dispatch_looks_several_times_before_a_slot_is_late(every: float) -> None:
    assert tick(every) <= every
    assert late(every) >= min(every, 2 * tick(every))
