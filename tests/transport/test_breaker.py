"""The breaker against a real Redis: in step with the fleet, one trial at a time, and on its own while Redis is away."""

import logging
import multiprocessing
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Barrier
from uuid import uuid4

import pytest
import redis
from prometheus_client import REGISTRY

from nms_workers.errors import AuthError, Skipped, Timeout, Unreachable
from nms_workers.service import BreakerPolicy
from nms_workers.transport import breaker as breaker_module
from nms_workers.transport.breaker import Breakers
from nms_workers.transport.deadline import deadline
from tests.conftest import StartServer
from tests.servers import Server

POLICY = BreakerPolicy(failures=3, reset=0.3)
LONG = BreakerPolicy(failures=3, reset=30)
_spawn = multiprocessing.get_context("spawn")


def connect(url: str, **options: object) -> redis.Redis:
    """A client as the fleet should have it: quick to give up."""
    return redis.Redis.from_url(url, socket_timeout=0.5, socket_connect_timeout=0.5, retry=None, **options)


@pytest.fixture(params=["valkey", "valkey, text", "process"])
def breakers(request: pytest.FixtureRequest, session_server: StartServer) -> Breakers:
    """All ways to keep the state; the same steps must give the same answers."""
    if request.param == "process":
        return Breakers(None)
    client = connect(session_server("valkey-9").url, decode_responses="text" in request.param)
    return Breakers(client, prefix=f"test:{uuid4()}:")


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    return f"prometheus/{request.node.name}"


def allowed(breakers: Breakers, key: str, policy: BreakerPolicy = POLICY) -> bool:
    try:
        breakers.allow(key, policy)
    except Skipped:
        return False
    return True


def fail(breakers: Breakers, key: str, times: int, policy: BreakerPolicy = POLICY) -> None:
    for _ in range(times):
        breakers.failure(key, policy)


def until_half_open(breakers: Breakers, key: str) -> None:
    deadline_at = time.monotonic() + 5
    while breakers.state(key).name != "half-open":
        assert time.monotonic() < deadline_at, breakers.state(key)
        time.sleep(0.01)


def count(metric: str, key: str) -> float:
    return REGISTRY.get_sample_value(f"nms_breaker_{metric}_total", {"key": key}) or 0.0


def test_opens_after_failures_in_a_row(breakers: Breakers, key: str) -> None:
    fail(breakers, key, 2)
    breakers.success(key)
    fail(breakers, key, 2)
    assert breakers.state(key).name == "closed"
    assert breakers.state(key).failures == 2
    assert allowed(breakers, key)
    fail(breakers, key, 1, LONG)
    state = breakers.state(key)
    assert (state.name, state.failures) == ("open", 3)
    assert 20 < state.wait <= LONG.reset
    with pytest.raises(Skipped, match=r"breaker of prometheus/.* is open, next try in [23]\d s"):
        breakers.allow(key, POLICY)
    assert count("opened", key) == 1
    assert count("skipped", key) == 1


def test_a_good_trial_closes_it(breakers: Breakers, key: str) -> None:
    fail(breakers, key, 3)
    until_half_open(breakers, key)
    assert allowed(breakers, key, LONG)
    assert breakers.state(key).name == "half-open"
    assert not allowed(breakers, key)  # one trial is enough
    breakers.success(key)
    assert breakers.state(key).name == "closed"
    assert allowed(breakers, key)


def test_a_bad_trial_opens_it_at_once(breakers: Breakers, key: str) -> None:
    fail(breakers, key, 3)
    until_half_open(breakers, key)
    assert allowed(breakers, key)
    fail(breakers, key, 1, LONG)
    assert breakers.state(key).name == "open"
    assert not allowed(breakers, key)


def test_a_late_failure_does_not_hold_it_open(breakers: Breakers, key: str) -> None:
    """Calls that were under way when it opened fail later; the next try is not put off by them."""
    policy = BreakerPolicy(failures=1, reset=30)
    fail(breakers, key, 1, policy)
    before = breakers.state(key).wait
    fail(breakers, key, 5, BreakerPolicy(failures=1, reset=3000))
    assert breakers.state(key).wait <= before


def test_a_trial_that_never_ends_makes_room_for_another(breakers: Breakers, key: str) -> None:
    fail(breakers, key, 3)
    until_half_open(breakers, key)
    assert allowed(breakers, key)
    until = time.monotonic() + 5
    while not allowed(breakers, key):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_trial_may_take_as_long_as_its_run(breakers: Breakers, key: str) -> None:
    fail(breakers, key, 3)
    until_half_open(breakers, key)
    with deadline(60):
        assert allowed(breakers, key)
    assert 50 < breakers.state(key).wait <= 60


def test_keys_and_policies_are_apart(breakers: Breakers, key: str) -> None:
    elastic = BreakerPolicy(failures=5, reset=60)
    fail(breakers, key, 3)
    fail(breakers, key + "/other", 4, elastic)
    assert not allowed(breakers, key)
    assert allowed(breakers, key + "/other", elastic)
    fail(breakers, key + "/other", 1, elastic)
    assert 59 < breakers.state(key + "/other").wait <= 60


@pytest.mark.parametrize(
    ("error", "counts"),
    [(Unreachable("x"), True), (Timeout("x"), True), (AuthError("x"), False), (ValueError("x"), False)],
    ids=lambda value: type(value).__name__,
)
def test_guard(error: Exception, counts: bool, breakers: Breakers, key: str) -> None:
    for _ in range(3):
        with pytest.raises(type(error)), breakers.guard(key, LONG):
            raise error
    assert allowed(breakers, key) is not counts


def test_guard_forgets_failures_when_it_answers(breakers: Breakers, key: str) -> None:
    fail(breakers, key, 2)
    with breakers.guard(key, POLICY):
        pass
    assert breakers.state(key).failures == 0


def test_one_trial_among_many_threads(breakers: Breakers, key: str) -> None:
    fail(breakers, key, 3)
    until_half_open(breakers, key)
    ready = threading.Barrier(16)

    def contend(_: int) -> bool:
        ready.wait()
        return allowed(breakers, key, LONG)

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(contend, range(16))) == 1


def _contend(url: str, prefix: str, key: str, ready: Barrier, answers: "multiprocessing.Queue[int]") -> None:
    breakers = Breakers(connect(url), prefix=prefix)
    ready.wait(30)
    answers.put(sum(allowed(breakers, key, BreakerPolicy(failures=3, reset=60)) for _ in range(200)))


def test_one_trial_among_processes(session_server: StartServer, key: str) -> None:
    url, prefix = session_server("valkey-9").url, f"test:{uuid4()}:"
    mine = Breakers(connect(url), prefix=prefix)
    fail(mine, key, 3)
    until_half_open(mine, key)
    ready, answers = _spawn.Barrier(2), _spawn.Queue()
    others = [_spawn.Process(target=_contend, args=(url, prefix, key, ready, answers)) for _ in range(2)]
    for other in others:
        other.start()
    counts = [answers.get(timeout=60) for _ in others]
    for other in others:
        other.join(30)
    assert sorted(counts) == [0, 1]
    assert not allowed(mine, key)  # and this process sees it too
    mine.success(key)
    assert Breakers(connect(url), prefix=prefix).state(key).name == "closed"


def test_nothing_is_left_behind(session_server: StartServer, key: str) -> None:
    client = connect(session_server("valkey-9").url)
    prefix = f"test:{uuid4()}:"
    breakers = Breakers(client, prefix=prefix)
    fail(breakers, key, 1)
    name = prefix + key
    assert 86_000 < client.ttl(name) <= 86_401
    breakers.success(key)
    assert client.exists(name) == 0


def messages(caplog: pytest.LogCaptureFixture, words: str) -> int:
    return sum(words in record.getMessage() for record in caplog.records)


def test_redis_goes_and_comes_back(
    start_server: StartServer, key: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(breaker_module, "_REDIS_PAUSE", 0.2)
    server: Server = start_server("valkey-9")
    breakers, other = Breakers(connect(server.url)), Breakers(connect(server.url))
    fail(breakers, key, 3, LONG)
    assert not allowed(other, key, LONG)

    server.kill()
    assert allowed(breakers, key, LONG)  # it starts anew, by what it sees itself
    fail(breakers, key, 3, LONG)
    assert not allowed(breakers, key, LONG)
    assert breakers.state(key).name == "open"
    assert allowed(other, key, LONG)  # which the other does not know of
    assert messages(caplog, "Redis is away") == 2  # once for each of the two
    assert REGISTRY.get_sample_value("nms_breaker_shared") == 0

    server.start()
    back_by = time.monotonic() + 10
    while messages(caplog, "Redis is back") < 2:
        assert time.monotonic() < back_by
        fail(breakers, key, 1, LONG)
        other.state(key)
        time.sleep(0.02)
    assert REGISTRY.get_sample_value("nms_breaker_shared") == 1
    fail(breakers, key, 3, LONG)
    assert not allowed(other, key, LONG)
    assert messages(caplog, "Redis is away") == 2
    assert server.password not in caplog.text


def test_a_dead_redis_costs_one_wait_and_not_one_a_call(free_port: Callable[[], int], key: str) -> None:
    breakers = Breakers(connect(f"redis://:hidden-word@127.0.0.1:{free_port()}"))
    breakers.failure(key, POLICY)
    started = time.monotonic()
    for _ in range(1000):
        breakers.allow(key, POLICY)
    assert time.monotonic() - started < 0.5
    assert breakers.state(key).failures == 1
