"""Single flight: one run at a time, whoever dies and whatever Redis forgets."""

import threading

import pytest
import redis

from nms_workers.errors import Skipped
from nms_workers.fleet.flight import STARTED, Flights, Running, slot_key
from tests.fleet.stores import wait_until

DUE = 1_790_000_000_000
LOCK = "nms:flight:1:items"


@pytest.fixture
def flights(red: "redis.Redis") -> Flights:
    return Flights(red, "host-a:1")


def test_a_lock_is_held_inside_and_gone_after(red: "redis.Redis", flights: Flights) -> None:
    with flights.flight(1, "items", DUE, 30.0):
        assert red.exists(LOCK)
        assert 25_000 < red.pttl(LOCK) <= 30_000
        assert red.hgetall(STARTED) == {slot_key(1, "items", DUE).encode(): b"host-a:1"}
    assert red.keys("nms:*") == []


def test_the_second_one_is_skipped_and_told_who_holds_it(red: "redis.Redis", flights: Flights) -> None:
    with flights.flight(1, "items", DUE, 30.0):
        with (
            pytest.raises(Skipped, match=r"the previous run still goes \(host-a:1\)") as skipped,
            Flights(red, "host-b:2").flight(1, "items", DUE + 1000, 30.0),
        ):
            pytest.fail("two at once")
        assert not isinstance(skipped.value, Running)
        assert red.exists(LOCK), "who was skipped must not release it"
        assert red.hlen(STARTED) == 1


def test_the_same_slot_twice_is_told_apart(red: "redis.Redis", flights: Flights) -> None:
    with (
        flights.flight(1, "items", DUE, 30.0),
        pytest.raises(Running, match="host-a:1"),
        Flights(red, "host-b:2").flight(1, "items", DUE, 30.0),
    ):
        pytest.fail("two at once")


def test_other_polls_and_targets_go_on(flights: Flights) -> None:
    with (
        flights.flight(1, "items", DUE, 30.0),
        flights.flight(1, "loose", DUE, 30.0),
        flights.flight(2, "items", DUE, 30.0),
    ):
        pass


def test_an_error_inside_releases_it(red: "redis.Redis", flights: Flights) -> None:
    with pytest.raises(ZeroDivisionError), flights.flight(1, "items", DUE, 30.0):
        raise ZeroDivisionError
    assert red.keys("nms:*") == []


def test_of_many_at_once_one_flies(red: "redis.Redis", redis_server: object) -> None:
    barrier, flown, skipped = threading.Barrier(12), [], []

    def run(number: int) -> None:
        with redis.Redis.from_url(redis_server.url) as own:  # type: ignore[attr-defined]
            mine = Flights(own, f"host:{number}")
            barrier.wait(10)
            try:
                with mine.flight(1, "items", DUE, 30.0):
                    flown.append(number)
                    barrier.wait(10)  # held until everybody has tried
            except Skipped:
                skipped.append(number)
                barrier.wait(10)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert (len(flown), len(skipped)) == (1, 11)
    assert red.keys("nms:*") == []


@pytest.mark.parametrize("worker", ["host-a:1", "host-b:2"])
@pytest.mark.parametrize("due", [DUE, DUE + 1000])
def test_who_lost_its_lock_does_not_release_the_next_one_s(
    red: "redis.Redis", flights: Flights, worker: str, due: int
) -> None:
    """Also when the next one is the same worker with the same slot: a message that came twice."""
    first = flights.flight(1, "items", DUE, 30.0)
    first.__enter__()
    red.delete(LOCK)  # its time was over, or Redis lost its data
    with Flights(red, worker).flight(1, "items", due, 30.0):
        held = red.get(LOCK)
        first.__exit__(None, None, None)
        assert red.get(LOCK) == held
    assert not red.exists(LOCK)


def test_a_dead_worker_s_lock_ends_by_itself_and_its_mark_stays(red: "redis.Redis", flights: Flights) -> None:
    dead = flights.flight(1, "items", DUE, 30.0)
    dead.__enter__()  # and it never comes back
    assert 0 < red.pttl(LOCK) <= 30_000
    red.pexpire(LOCK, 1)
    wait_until(lambda: not red.exists(LOCK))
    with Flights(red, "host-b:2").flight(1, "items", DUE + 30_000, 30.0):
        assert red.hgetall(STARTED)[slot_key(1, "items", DUE).encode()] == b"host-a:1"
    assert list(red.hkeys(STARTED)) == [slot_key(1, "items", DUE).encode()]
    del dead


def test_redis_away_at_the_end_is_no_error_and_away_at_the_start_is_one(start_server: object) -> None:
    server = start_server("valkey-9")  # type: ignore[operator]
    with redis.Redis.from_url(server.url, socket_timeout=2, retry=None) as client:
        flights = Flights(client, "host:1")
        with flights.flight(1, "items", DUE, 30.0):
            server.kill()
        with pytest.raises(redis.ConnectionError), flights.flight(2, "items", DUE, 30.0):
            pytest.fail("nobody knows who polls")
