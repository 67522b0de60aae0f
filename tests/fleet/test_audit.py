"""The ledger has no holes: compared with the slots there should have been, by the clock alone."""

import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

import pytest
import redis
from sqlalchemy import Engine, text

from nms_workers.errors import Outcome
from nms_workers.fleet import pauses
from nms_workers.fleet.audit import AT_ONCE_MS, LONGEST_GAP, audit
from nms_workers.fleet.flight import STARTED, Flights, slot_key
from nms_workers.fleet.inventory import Inventory
from nms_workers.fleet.slots import settled
from nms_workers.fleet.targets import sync
from nms_workers.settings import Settings, TargetConfig
from nms_workers.store import partitions
from nms_workers.store.history import History
from nms_workers.store.slot import SlotResult
from tests.fleet.stores import milliseconds, rows

pytestmark = pytest.mark.usefixtures("shelf")

BOTH = pytest.mark.parametrize("postgres_name", ["postgresql-15", "postgresql-18"])
Ledger = Mapping[tuple[int, str, int], str]
EVERY = 10.0
SETTLED = timedelta(seconds=settled(EVERY))


def configured(count: int = 3, **options: object) -> Settings:
    every = {"items": EVERY}
    target = {"service": "shelf", "url": "env:X", "key": "k", "every": every, "skip": ["loose", "rack"], **options}
    return Settings(targets=[TargetConfig.model_validate({"name": f"s{n}", **target}) for n in range(count)])


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def start(engine: Engine, red: "redis.Redis", now: datetime) -> Callable[..., None]:
    """`start(settings, before=...)`: as if these targets had been there for so long."""

    def make(settings: Settings, before: timedelta) -> None:
        sync(engine, Inventory(red), settings, now - before)

    return make


def due_between(engine: Engine, after: datetime, until: datetime) -> set[tuple[int, str, int]]:
    """Every slot in [after, until) of every schedule."""
    found = set()
    for target_id, poll, every, offset in rows(engine, "SELECT target_id, poll, every_ms, phase_ms FROM schedules"):
        first = milliseconds(after) + (offset - milliseconds(after)) % every
        found |= {(target_id, poll, due) for due in range(first, milliseconds(until), every)}
    return found


def ledger(engine: Engine) -> Ledger:
    found = rows(engine, "SELECT target_id, poll, due, outcome FROM poll_runs")
    slots = {(target_id, poll, milliseconds(due)): outcome for target_id, poll, due, outcome in found}
    assert len(slots) == len(found)
    return slots


def result(slot: tuple[int, str, int], outcome: Outcome = Outcome.OK) -> SlotResult:
    target_id, poll, due_ms = slot
    due = datetime.fromtimestamp(due_ms / 1000, UTC)
    return SlotResult(
        target_id=target_id, service="shelf", target="s", poll=poll, due=due, started=due, finished=due, outcome=outcome
    )


@BOTH
def test_what_left_no_trace_is_named_once(
    engine: Engine, red: "redis.Redis", now: datetime, start: Callable[..., None]
) -> None:
    begun = now - timedelta(seconds=100)
    start(configured(), timedelta(seconds=100))
    due = due_between(engine, begun, now - SETTLED)
    assert len(due) >= 3 * 7
    ran = set(sorted(due)[::3])
    History(engine, lambda _: None).write([result(slot) for slot in ran])
    lost = set(sorted(due - ran)[::4])
    for slot in lost:
        red.hset(STARTED, slot_key(*slot), "host-a:1")

    found: dict[str, int] = {}
    for _ in range(4):  # a gap is made up for in steps
        for outcome, count in audit(engine, red, now).items():
            found[outcome] = found.get(outcome, 0) + count

    assert found == {"lost": len(lost), "expired": len(due - ran - lost)}
    wanted = dict.fromkeys(due, "expired") | dict.fromkeys(ran, "ok") | dict.fromkeys(lost, "lost")
    assert ledger(engine) == wanted
    named = rows(engine, "SELECT DISTINCT outcome, worker, started IS NULL, samples, manual FROM poll_runs")
    assert set(named) == {
        ("ok", "", False, 0, False),
        ("expired", "", True, 0, False),
        ("lost", "host-a:1", True, 0, False),
    }


@BOTH
def test_over_time_every_slot_is_named_once_whatever_the_rhythm(
    engine: Engine, red: "redis.Redis", now: datetime, start: Callable[..., None]
) -> None:
    begun = now - timedelta(seconds=300)
    start(configured(5), timedelta(seconds=300))
    total, moment = 0, begun
    for step in (3, 10, 10, 1, 0, 25, 10, 40, 10, 10, 10, 7, 10, 30, 10, 10, 10, 10, 10, 10, 10, 10, 10, 34):
        moment += timedelta(seconds=step)
        total += sum(audit(engine, red, moment).values())
        assert ledger(engine).keys() >= due_between(engine, begun, moment - SETTLED - timedelta(seconds=40))
    assert moment == now
    assert ledger(engine).keys() == due_between(engine, begun, now - SETTLED)
    assert total == len(ledger(engine))


def test_a_slot_that_may_still_end_is_left_alone(
    engine: Engine, red: "redis.Redis", now: datetime, start: Callable[..., None]
) -> None:
    start(configured(), SETTLED)
    assert audit(engine, red, now) == {}
    assert ledger(engine) == {}


def test_a_real_result_that_comes_late_takes_the_place(
    engine: Engine, red: "redis.Redis", now: datetime, start: Callable[..., None]
) -> None:
    start(configured(1), timedelta(seconds=40))
    audit(engine, red, now)
    first = min(ledger(engine))
    History(engine, lambda _: None).write([result(first, Outcome.PARTIAL)])
    assert ledger(engine)[first] == "partial"
    audit(engine, red, now + timedelta(seconds=10))
    assert ledger(engine)[first] == "partial"


def test_after_a_long_gap_only_what_comes_is_due(
    engine: Engine, red: "redis.Redis", now: datetime, start: Callable[..., None]
) -> None:
    start(configured(), LONGEST_GAP + 2 * SETTLED)
    assert audit(engine, red, now) == {}
    later = now + timedelta(seconds=60)
    audit(engine, red, later)
    assert ledger(engine).keys() == due_between(engine, now, later - SETTLED)


def test_a_gap_below_that_is_made_up_for_in_bounded_steps(
    engine: Engine, red: "redis.Redis", now: datetime, start: Callable[..., None]
) -> None:
    gap = LONGEST_GAP - timedelta(seconds=1)
    start(configured(), gap)
    steps = []
    while found := audit(engine, red, now):
        steps.append(sum(found.values()))
    assert ledger(engine).keys() == due_between(engine, now - gap, now - SETTLED)
    assert max(steps) <= 3 * AT_ONCE_MS / 1000 / EVERY
    assert len(steps) > 10


def test_partitions_that_an_outage_left_out_are_made(
    engine: Engine, red: "redis.Redis", now: datetime, start: Callable[..., None]
) -> None:
    """A poll with a long interval has slots in hours in which nobody made partitions."""
    start(configured(10, every={"items": "4h"}), timedelta(hours=11))
    while audit(engine, red, now):
        pass
    due = due_between(engine, now - timedelta(hours=11), now - timedelta(seconds=settled(4 * 3600.0)))
    assert len(due) > 2
    assert ledger(engine).keys() == due


def test_a_slot_older_than_the_ledger_is_not_named_and_stops_nothing(
    engine: Engine, red: "redis.Redis", now: datetime, start: Callable[..., None]
) -> None:
    gap = timedelta(days=2.5)
    daily = configured(10, every={"items": "1d"})
    start(daily, gap)
    assert audit(engine, red, now) == {}
    start(daily, gap)
    due = due_between(engine, now - gap, now - timedelta(seconds=settled(86400.0)))
    assert due
    assert audit(engine, red, now, {"poll_runs": timedelta(days=10)}) == {"expired": len(due)}
    assert ledger(engine).keys() == due


def test_a_changed_interval_is_audited_from_then_on(
    engine: Engine, red: "redis.Redis", now: datetime, start: Callable[..., None]
) -> None:
    start(configured(), timedelta(seconds=100))
    changed = now - timedelta(seconds=50)
    start(configured(every={"items": "7s"}), timedelta(seconds=50))
    audit(engine, red, now)
    assert ledger(engine).keys() == due_between(engine, changed, now - timedelta(seconds=settled(7.0)))


@pytest.mark.parametrize("change", [{"paused": True}, {"skip": ["items"]}])
def test_what_is_switched_off_is_not_due(
    engine: Engine, red: "redis.Redis", now: datetime, start: Callable[..., None], change: dict[str, object]
) -> None:
    start(configured(), timedelta(seconds=100))
    start(configured(**change), timedelta(seconds=90))
    audit(engine, red, now)
    assert {poll for _, poll, _ in ledger(engine)} <= {"loose", "rack"}
    start(configured(), timedelta(seconds=45))  # and on again
    audit(engine, red, now)
    assert {slot for slot in ledger(engine) if slot[1] == "items"} == due_between(
        engine, now - timedelta(seconds=45), now - SETTLED
    )


def test_a_fleet_that_was_stopped_on_purpose_missed_nothing(
    engine: Engine, red: "redis.Redis", now: datetime, start: Callable[..., None]
) -> None:
    begun = now - timedelta(seconds=100)
    start(configured(), timedelta(seconds=100))
    pauses.resume(red, milliseconds(begun))
    pauses.stop(red, milliseconds(now - timedelta(seconds=80)))
    pauses.resume(red, milliseconds(now - timedelta(seconds=45)))
    while audit(engine, red, now):
        pass
    stopped = due_between(engine, now - timedelta(seconds=80), now - timedelta(seconds=45))
    assert stopped
    assert ledger(engine).keys() == due_between(engine, begun, now - SETTLED) - stopped


def test_a_clock_set_back_names_nothing_twice(
    engine: Engine, red: "redis.Redis", now: datetime, start: Callable[..., None]
) -> None:
    start(configured(), timedelta(seconds=60))
    assert audit(engine, red, now)
    before = ledger(engine)
    assert audit(engine, red, now - timedelta(hours=1)) == {}
    assert audit(engine, red, now) == {}
    assert ledger(engine) == before


def test_two_audits_at_once_name_each_slot_once(
    engine: Engine, red: "redis.Redis", now: datetime, start: Callable[..., None]
) -> None:
    start(configured(200), timedelta(seconds=60))
    found: list[int] = []
    barrier = threading.Barrier(3)

    def work() -> None:
        barrier.wait(10)
        found.append(sum(audit(engine, red, now).values()))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sum(found) == len(ledger(engine)) == len(due_between(engine, now - timedelta(seconds=60), now - SETTLED))


def test_a_mark_of_a_dead_worker_is_forgotten_after_a_day(engine: Engine, red: "redis.Redis", now: datetime) -> None:
    old, young = (milliseconds(now - timedelta(hours=hours)) for hours in (25, 23))
    for due in (old, young):
        red.hset(STARTED, slot_key(1, "items", due), "host:1")
    audit(engine, red, now)
    assert list(red.hkeys(STARTED)) == [slot_key(1, "items", young).encode()]


def test_a_lock_s_mark_is_what_the_audit_reads(
    engine: Engine, red: "redis.Redis", now: datetime, start: Callable[..., None]
) -> None:
    start(configured(1), timedelta(seconds=40))
    slot = min(due_between(engine, now - timedelta(seconds=40), now))
    died = Flights(red, "host-a:7").flight(*slot, 30.0)
    died.__enter__()  # and it is killed
    audit(engine, red, now)
    assert ledger(engine)[slot] == "lost"
    assert rows(engine, "SELECT worker FROM poll_runs WHERE outcome = 'lost'") == [("host-a:7",)]
    del died


def test_without_redis_nothing_is_named_wrongly(
    engine: Engine, start_server: Callable[..., object], now: datetime, red: "redis.Redis", start: Callable[..., None]
) -> None:
    start(configured(), timedelta(seconds=60))
    server = start_server("valkey-9")
    server.stop()  # type: ignore[attr-defined]
    with (
        redis.Redis.from_url(server.url, socket_timeout=1, retry=None) as gone,  # type: ignore[attr-defined]
        pytest.raises(redis.ConnectionError),
    ):
        audit(engine, gone, now)
    assert ledger(engine) == {}


@BOTH
def test_five_thousand_targets_are_audited_in_a_fraction_of_its_period(
    engine: Engine, red: "redis.Redis", now: datetime, start: Callable[..., None]
) -> None:
    """The whole ledger is never read: an audit costs as much as the slots of its period."""
    start(configured(5_000), timedelta(seconds=300))
    with engine.begin() as connection:
        partitions.ensure(connection, [("poll_runs", now - timedelta(hours=hour)) for hour in (0, 1)])
        connection.execute(
            text("""
                INSERT INTO poll_runs (target_id, poll, due, finished, outcome, samples, worker, detail, manual)
                SELECT target_id, poll, to_timestamp(ms / 1000.0), :now, 'ok', 1, '', '', false
                FROM schedules CROSS JOIN LATERAL generate_series(
                    (:from_ms / every_ms - 1) * every_ms + phase_ms, CAST(:until_ms AS bigint), every_ms) AS ms
                ON CONFLICT DO NOTHING"""),
            {"now": now, "from_ms": milliseconds(now) - 300_000, "until_ms": milliseconds(now)},
        )
        connection.execute(text("UPDATE schedules SET audited_until = :from"), {"from": now - timedelta(seconds=60)})
    audit(engine, red, now)
    began = time.monotonic()
    assert audit(engine, red, now + timedelta(seconds=10)) == {}
    assert time.monotonic() - began < 5, "5,000 slots of 150,000 in the ledger; 0.2 s where nothing else runs"
