"""Which targets are due now: over any clock, with several dispatchers, each slot is published once or not at all."""

import threading
import time
from collections import Counter
from collections.abc import Iterable

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kombu.exceptions import OperationalError

from nms_workers.fleet.dispatch import Dispatcher, Shard, shards
from nms_workers.fleet.inventory import Inventory, Target
from nms_workers.fleet.slots import late, latest_due, phase, tick

pytestmark = pytest.mark.usefixtures("shelf")

NOW = 1_790_000_000_000


def target(number: int, *, every: float = 30.0, worker: str | None = None, poll: str = "items") -> Target:
    return Target(id=number, service="shelf", name=f"s{number}", settings={}, every={poll: every}, worker=worker)


class Sent:
    """What was published; as many threads as like."""

    def __init__(self) -> None:
        self.shards: list[Shard] = []

    def __call__(self, found: Iterable[Shard]) -> None:
        self.shards.extend(found)

    @property
    def slots(self) -> list[tuple[int, int]]:
        return [(one.id, due) for shard in self.shards for one, due in shard.slots]


@pytest.fixture
def sent() -> Sent:
    return Sent()


def slots_between(targets: Iterable[Target], after: int, until: int, poll: str = "items") -> list[tuple[int, int]]:
    """Every slot in (after, until], by the definition: one at each multiple of the interval, plus the phase."""
    found = []
    for one in targets:
        every = int(one.every[poll] * 1000)
        offset = phase("shelf", one.name, poll, every)
        first = after + 1 + (offset - after - 1) % every
        found += [(one.id, due) for due in range(first, until + 1, every)]
    return found


@given(
    start=st.integers(10**12, 2 * 10**12),
    every=st.sampled_from([1.0, 1.5, 7.0, 30.0, 60.0, 3600.0]),
    jitter=st.lists(st.floats(0, 1), min_size=3, max_size=30),
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_over_consecutive_dispatches_each_slot_is_found_once(
    red: "redis.Redis", start: int, every: float, jitter: list[float]
) -> None:
    red.flushdb()
    sent, inventory, targets = Sent(), Inventory(red), [target(n, every=every) for n in range(20)]
    inventory.publish(targets)
    dispatcher = Dispatcher(inventory, red, sent)
    dispatcher.dispatch("shelf", "items", start)
    sent.shards.clear()
    now = start
    for part in jitter:  # beat comes a little early or late, but never as late as a slot may be
        now += max(1, int(part * late(every) * 1000))
        dispatcher.dispatch("shelf", "items", now)
    assert sorted(sent.slots) == sorted(slots_between(targets, start, now))


def test_the_first_dispatch_ever_finds_only_what_is_not_late(red: "redis.Redis", sent: Sent) -> None:
    targets = [target(n) for n in range(200)]
    inventory = Inventory(red)
    inventory.publish(targets)
    count = Dispatcher(inventory, red, sent).dispatch("shelf", "items", NOW)
    assert sorted(sent.slots) == sorted(slots_between(targets, NOW - int(late(30.0) * 1000), NOW))
    assert count == len(sent.slots) < 200


@pytest.mark.parametrize("outage", [60.0, 3600.0, 86_400.0 * 3])
def test_after_an_outage_nothing_is_caught_up(red: "redis.Redis", sent: Sent, outage: float) -> None:
    targets = [target(n) for n in range(200)]
    inventory = Inventory(red)
    inventory.publish(targets)
    dispatcher = Dispatcher(inventory, red, sent)
    dispatcher.dispatch("shelf", "items", NOW)
    sent.shards.clear()
    back = NOW + int(outage * 1000)
    dispatcher.dispatch("shelf", "items", back)
    assert sorted(sent.slots) == sorted(slots_between(targets, back - int(late(30.0) * 1000), back))
    assert max(Counter(one for one, _ in sent.slots).values()) == 1


def test_two_dispatchers_at_once_publish_each_slot_once(redis_server: object, red: "redis.Redis") -> None:
    targets = [target(n, every=1.0) for n in range(50)]
    Inventory(red).publish(targets)
    everything, barrier = [Sent() for _ in range(4)], threading.Barrier(4)
    moments = [NOW + step * 500 for step in range(40)]
    Dispatcher(Inventory(red), red, Sent()).dispatch("shelf", "items", NOW - 1)

    def work(mine: Sent) -> None:
        with redis.Redis.from_url(redis_server.url) as own:  # type: ignore[attr-defined]
            dispatcher = Dispatcher(Inventory(own), own, mine)
            for moment in moments:
                barrier.wait(10)
                dispatcher.dispatch("shelf", "items", moment)

    threads = [threading.Thread(target=work, args=(mine,)) for mine in everything]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    found = Counter(slot for mine in everything for slot in mine.slots)
    assert set(found.values()) == {1}
    assert sorted(found) == sorted(slots_between(targets, NOW - 1, moments[-1]))
    assert sum(bool(mine.slots) for mine in everything) > 1, "one did all of the work: nothing raced"


def test_a_dispatch_the_broker_did_not_take_is_done_anew(red: "redis.Redis", sent: Sent) -> None:
    targets = [target(n) for n in range(100)]
    inventory = Inventory(red)
    inventory.publish(targets)

    def away(_: Iterable[Shard]) -> None:
        raise OperationalError("no broker")

    Dispatcher(inventory, red, sent).dispatch("shelf", "items", NOW)
    sent.shards.clear()
    with pytest.raises(OperationalError):
        Dispatcher(inventory, red, away).dispatch("shelf", "items", NOW + 2500)
    Dispatcher(inventory, red, sent).dispatch("shelf", "items", NOW + 5000)
    assert sorted(sent.slots) == sorted(slots_between(targets, NOW, NOW + 5000))


def test_a_clock_that_was_ahead_for_a_moment_does_not_stop_the_fleet(red: "redis.Redis", sent: Sent) -> None:
    targets = [target(n) for n in range(100)]
    inventory = Inventory(red)
    inventory.publish(targets)
    dispatcher = Dispatcher(inventory, red, sent)
    dispatcher.dispatch("shelf", "items", NOW + 3_600_000)
    sent.shards.clear()
    dispatcher.dispatch("shelf", "items", NOW)
    dispatcher.dispatch("shelf", "items", NOW + 2500)
    assert sorted(sent.slots) == sorted(slots_between(targets, NOW - int(late(30.0) * 1000), NOW + 2500))


def test_a_clock_a_little_behind_publishes_nothing_twice(red: "redis.Redis", sent: Sent) -> None:
    inventory = Inventory(red)
    inventory.publish([target(n, every=1.0) for n in range(50)])
    dispatcher = Dispatcher(inventory, red, sent)
    for offset in (0, 900, 400, 1300, 800, 1700):  # two hosts half a second apart take turns
        dispatcher.dispatch("shelf", "items", NOW + offset)
    assert max(Counter(sent.slots).values()) == 1


def test_polls_that_are_off_and_other_services_are_left_alone(red: "redis.Redis", sent: Sent) -> None:
    others = [target(1, poll="loose"), Target(id=2, service="redis", name="r", settings={}, every={"items": 30.0})]
    inventory = Inventory(red)
    inventory.publish(others)
    dispatcher = Dispatcher(inventory, red, sent)
    assert sum(dispatcher.dispatch("shelf", "items", NOW + step * 2500) for step in range(20)) == 0
    assert sent.slots == []


def test_shards_have_the_size_the_poll_declares() -> None:
    due = [(target(n, poll="rack"), NOW) for n in range(8)]
    cut = list(shards("shelf", "rack", due))
    assert [len(shard.slots) for shard in cut] == [3, 3, 2]
    assert [slot for shard in cut for slot in shard.slots] == due
    assert {(shard.queue, shard.task, shard.manual) for shard in cut} == {("poll.shelf", "nms.shelf.rack", False)}
    assert [len(shard.slots) for shard in shards("shelf", "items", [(target(n), NOW) for n in range(3)])] == [1, 1, 1]


def test_targets_beside_a_worker_go_to_its_queue() -> None:
    workers = [None, "fw1", "fw1", None, "fw2", "fw1", "fw1"]
    due = [(target(n, poll="rack", worker=worker), NOW) for n, worker in enumerate(workers)]
    found = Counter((shard.queue, len(shard.slots)) for shard in shards("shelf", "rack", due, manual=True))
    assert found == {("poll.shelf", 2): 1, ("edge.fw1", 3): 1, ("edge.fw1", 1): 1, ("edge.fw2", 1): 1}


def test_a_shard_expires_when_the_first_of_its_next_slots_is_due() -> None:
    slots = ((target(1, every=10.0, poll="rack"), NOW - 9_000), (target(2, every=60.0, poll="rack"), NOW))
    assert Shard("shelf", "rack", "q", slots).expires_ms == NOW + 1_000


def test_five_thousand_targets_with_ten_polls_take_a_fraction_of_a_tick(red: "redis.Redis", sent: Sent) -> None:
    polls = [f"p{n}" for n in range(9)] + ["items"]
    every = dict.fromkeys(polls, 30.0)
    everyone = [
        Target(id=n, service="shelf", name=f"switch-{n}", settings={"url": "x"}, every=every) for n in range(5_000)
    ]
    inventory = Inventory(red)
    inventory.publish(everyone)
    dispatcher = Dispatcher(inventory, red, sent)
    dispatcher.dispatch("shelf", "items", NOW)  # reads the inventory, once
    sent.shards.clear()
    began = time.process_time()
    ticks = int(30 / tick(30.0))
    for step in range(1, ticks + 1):
        dispatcher.dispatch("shelf", "items", NOW + int(step * tick(30.0) * 1000))
    spent = (time.process_time() - began) / ticks
    assert Counter(one for one, _ in sent.slots) == Counter(range(5_000))
    assert spent < tick(30.0) / 20


def test_latest_due_and_the_definition_agree() -> None:
    one = target(3)
    every = 30_000
    newest = latest_due(NOW, every, phase("shelf", one.name, "items", every))
    assert slots_between([one], NOW - every, NOW) == [(3, newest)]
