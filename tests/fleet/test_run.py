"""Runs of a poll against real servers, read back from the ledger and the samples of a real database."""

import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import Engine

from nms_workers.errors import Outcome
from nms_workers.fleet import harvest
from nms_workers.fleet.clients import Clients
from nms_workers.fleet.dispatch import Shard
from nms_workers.fleet.flight import STARTED, Flights
from nms_workers.fleet.inventory import Inventory, Target
from nms_workers.fleet.round import Ran, run_round
from nms_workers.fleet.run import Runner
from nms_workers.fleet.targets import sync
from nms_workers.settings import Settings, TargetConfig
from nms_workers.store.latest import Latest, read_latest
from nms_workers.store.spool import Spool
from nms_workers.store.writer import Writer
from nms_workers.transport.breaker import Breakers
from tests.fleet.stores import rows, wait_until
from tests.servers import Server

pytestmark = pytest.mark.usefixtures("shelf")

DUE = int(datetime.now(UTC).timestamp() * 1000)


class Fleet:
    """Shelves, what lies on them, and a worker that polls them."""

    def __init__(self, engine: Engine, red: "redis.Redis", writer: Writer) -> None:
        self.engine, self.red, self.writer = engine, red, writer
        self.inventory, self.clients, self.breakers = Inventory(red), Clients(), Breakers(red)
        self.runner = Runner(Flights(red, "host:1"), self.breakers, self.clients, writer, "host:1")
        self.due = DUE

    def have(self, *names: str, **options: Any) -> None:
        """These targets; `a` reads the list `a`."""
        shelf = {"service": "shelf", "url": "env:SHELF_URL", **options}
        targets = [TargetConfig.model_validate({"key": name, "name": name, **shelf}) for name in names]
        sync(self.engine, self.inventory, Settings(targets=targets), datetime.now(UTC))

    def put(self, name: str, *items: dict[str, Any]) -> None:
        """Make this the list."""
        self.red.delete(name)
        self.red.rpush(name, *map(json.dumps, items))

    def reads(self, name: str) -> int:
        return int(self.red.get(f"{name}:reads") or 0)

    @property
    def targets(self) -> list[Target]:
        return list(self.inventory.all().values())

    def run(self, poll: str = "items", *, runner: Runner | None = None, due: int | None = None) -> dict[str, str]:
        """One slot of every target; returns the outcomes when all is written."""
        self.due += 1000
        slots = [(target, due or self.due) for target in self.targets]
        found = (runner or self.runner).run("shelf", poll, slots)
        assert self.writer.flush(20)
        return found

    def ledger(self) -> list[tuple[str, str, str, int]]:
        """(target, outcome, detail, samples) in the order of time."""
        return rows(
            self.engine,
            """SELECT t.name, r.outcome, r.detail, r.samples FROM poll_runs r JOIN targets t ON t.id = r.target_id
               ORDER BY r.due, t.id""",
        )

    def samples(self) -> list[tuple[str, str, dict[str, str], float]]:
        return rows(
            self.engine, "SELECT target, metric, labels, value FROM samples ORDER BY ts, target, metric, labels"
        )


@pytest.fixture
def fleet(
    engine: Engine, redis_server: Server, red: "redis.Redis", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Fleet]:
    monkeypatch.setenv("SHELF_URL", redis_server.url)
    database_url = engine.url.render_as_string(hide_password=False)
    writer = Writer(Spool(tmp_path / "spool"), database_url, Latest(redis_server.url))
    writer.start()
    made = Fleet(engine, red, writer)
    made.have("a")
    yield made
    writer.close(10)
    made.clients.close()


def test_a_read_is_stored_with_everything_it_brought(fleet: Fleet) -> None:
    fleet.put(
        "a",
        {"sample": ["shelf_items", 2]},
        {"sample": ["shelf_weight_grams", 120.5, {"thing": "apple"}]},
        {"block": [["shelf_length", "shelf_width"], [1.5, 2.5]]},
        {"entity": ["thing", "apple"]},
        {"link": ["apple", "pear"]},
        {"event": ["fell", "an apple fell"]},
    )
    assert fleet.run() == {"a": "ok"}
    assert fleet.ledger() == [("a", "ok", "", 4)]
    assert fleet.samples() == [
        ("a", "shelf_items", {}, 2.0),
        ("a", "shelf_length", {}, 1.5),
        ("a", "shelf_weight_grams", {"thing": "apple"}, 120.5),
        ("a", "shelf_width", {}, 2.5),
    ]
    assert rows(fleet.engine, "SELECT kind, key, poll FROM entities") == [("thing", "apple", "items")]
    assert rows(fleet.engine, "SELECT kind, a_key, b_key FROM links") == [("beside", "apple", "pear")]
    assert rows(fleet.engine, "SELECT kind, message FROM events") == [("fell", "an apple fell")]
    [(worker, due, started, finished, manual, milliseconds)] = rows(
        fleet.engine, "SELECT worker, due, started, finished, manual, milliseconds FROM poll_runs"
    )
    assert (worker, manual, round(due.timestamp() * 1000)) == ("host:1", False, fleet.due)
    assert started < finished
    assert milliseconds == pytest.approx((finished - started).total_seconds() * 1000, abs=0.01)
    latest = read_latest(fleet.red, fleet.targets[0].id)["items"]
    assert (latest["outcome"], latest["samples"]["shelf_items"]) == ("ok", 2.0)
    assert fleet.red.keys("nms:flight:*") == []
    assert not fleet.red.exists(STARTED)


ERRORS = {
    "Unreachable": "unreachable",
    "Timeout": "timeout",
    "AuthError": "auth",
    "Refused": "refused",
    "ParseError": "parse",
    "Skipped": "skipped",
    "Unchanged": "unchanged",
    "TargetError": "error",
    "ConfigError": "error",
    "NmsError": "error",
}


@pytest.mark.parametrize(("error", "outcome"), ERRORS.items())
def test_each_error_is_an_outcome(fleet: Fleet, error: str, outcome: str) -> None:
    fleet.put("a", {"fail": error})
    assert fleet.run() == {"a": outcome}
    assert fleet.ledger() == [("a", outcome, "the shelf says so", 0)]
    [(started,)] = rows(fleet.engine, "SELECT started IS NOT NULL FROM poll_runs")
    assert started is (outcome != "skipped")


@pytest.mark.parametrize(("error", "outcome"), ERRORS.items())
def test_what_was_read_before_an_error_is_kept(fleet: Fleet, error: str, outcome: str) -> None:
    fleet.put("a", {"sample": ["shelf_items", 1]}, {"fail": error}, {"sample": ["shelf_weight_grams", 1]})
    told = ("skipped", "unchanged")  # nothing more was to be had
    ended = outcome if outcome in told else "partial"
    detail = "the shelf says so" if outcome in told else f"{outcome}: the shelf says so"
    assert fleet.run() == {"a": ended}
    assert fleet.ledger() == [("a", ended, detail, 1)]
    assert fleet.samples() == [("a", "shelf_items", {}, 1.0)]


def test_a_fault_in_a_poll_is_ours_and_logged_once(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    fleet.put("a", {"sample": ["shelf_items", 1]}, {"bug": "secret of the shelf"})
    with caplog.at_level(logging.ERROR, logger="nms_workers.fleet.run"):
        assert fleet.run() == {"a": "partial"}
    assert fleet.ledger() == [("a", "partial", "error: a fault in the poll: RuntimeError", 1)]
    [record] = caplog.records
    assert record.exc_info is not None
    assert record.getMessage() == "shelf/a: a fault in the poll"


@pytest.mark.parametrize(
    ("item", "why"),
    [
        ({"sample": ["shelf items", 1]}, "is not a metric name"),
        ({"sample": ["shelf_items", "many"]}, "which is no number"),
        ({"block": [["shelf_items", "shelf_items"], [1, 2]]}, "appears twice"),
        ({"block": [["shelf_items"], [1, 2]]}, "for a layout of 1 series"),
        ({"junk": 3}, "which is no record"),
        ({"event": ["k", "a\x00b"]}, "must be text"),
    ],
)
def test_a_record_that_is_none_is_a_parse_error(fleet: Fleet, item: dict[str, Any], why: str) -> None:
    fleet.put("a", item)
    assert fleet.run() == {"a": "parse"}
    assert why in fleet.ledger()[0][2]


def test_failing_and_being_well_again_are_each_logged_once(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "nms_workers.fleet.run")
    for item in ({"fail": "Refused"}, {"fail": "Refused"}, {"fail": "AuthError"}, {"sample": ["shelf_items", 1]}):
        fleet.put("a", item)
        fleet.run()
    fleet.run()
    told = [record.getMessage() for record in caplog.records if record.name == "nms_workers.fleet.run"]
    assert told == [
        "shelf/a items: refused: the shelf says so",
        "shelf/a items: well again, it was auth",
    ]


def test_a_poll_that_overruns_its_deadline_is_ended_and_what_it_read_is_kept(fleet: Fleet) -> None:
    fleet.have("a", every={"items": "1s"})  # so it has 0.8 s
    fleet.put("a", *({"sample": ["shelf_items", n, {"thing": str(n)}], "sleep": 0.3} for n in range(50)))
    assert fleet.run() == {"a": "partial"}
    [(_, _, detail, samples)] = fleet.ledger()
    assert detail.startswith("timeout: the time limit of this run is used up")
    assert 1 <= samples <= 4
    assert rows(fleet.engine, "SELECT milliseconds < 2000 FROM poll_runs") == [(True,)]
    fleet.put("a", {"sleep": 1.0}, {"sample": ["shelf_items", 1]})
    assert fleet.run() == {"a": "partial"}, "what came too late is still what was read"


def test_samples_that_come_twice_make_it_partial(fleet: Fleet) -> None:
    fleet.put("a", {"sample": ["shelf_items", 1]}, {"sample": ["shelf_items", 2]}, {"entity": ["thing", "x"]})
    assert fleet.run() == {"a": "partial"}
    assert fleet.ledger() == [("a", "partial", "1 samples came twice in one read, the first was kept", 1)]
    assert fleet.samples() == [("a", "shelf_items", {}, 1.0)]


def test_the_budget_of_a_target_is_kept(fleet: Fleet) -> None:
    fleet.have("a", max_series=3)
    fleet.put("a", *({"sample": ["shelf_items", n, {"thing": str(n)}]} for n in range(5)))
    assert fleet.run() == {"a": "partial"}
    assert fleet.ledger() == [("a", "partial", "2 samples beyond the target's max_series of 3 were dropped", 3)]


def test_only_a_complete_read_says_that_something_is_gone(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    def there() -> list[tuple[str, bool]]:
        return rows(fleet.engine, "SELECT key, gone_at IS NULL FROM entities ORDER BY key")

    fleet.put("a", {"entity": ["thing", "apple"]}, {"entity": ["thing", "pear"]}, {"entity": ["room", "cellar"]})
    fleet.run()
    fleet.put("a", {"entity": ["thing", "pear"]}, {"fail": "Timeout"})
    fleet.run()
    assert there() == [("apple", True), ("cellar", True), ("pear", True)]
    monkeypatch.setattr(harvest, "MAX_OF_EACH", 1)
    fleet.put("a", {"entity": ["thing", "pear"]}, {"entity": ["thing", "apple"]})
    assert fleet.run() == {"a": "partial"}
    assert there() == [("apple", True), ("cellar", True), ("pear", True)]
    fleet.put("a", {"entity": ["thing", "pear"]})
    assert fleet.run() == {"a": "ok"}
    assert there() == [("apple", False), ("cellar", True), ("pear", True)], "only a kind the poll names in full"


def test_a_volatile_poll_keeps_the_stable_layouts_small(fleet: Fleet) -> None:
    for busy in (["x", "y"], ["y", "z"], ["z", "x"], ["x"]):
        fleet.put("a", *({"sample": [metric, 1, {"thing": one}]} for one in busy for metric in ("shelf_c", "shelf_s")))
        assert fleet.run("loose") == {"a": "ok"}
    assert rows(fleet.engine, "SELECT poll, array_length(series_ids, 1) FROM layouts") == [("loose", 2)] * 3
    assert len(fleet.samples()) == 14


# One flight at a time.


def test_two_at_once_poll_once_and_the_second_slot_is_skipped(fleet: Fleet) -> None:
    fleet.put("a", {"sample": ["shelf_items", 1]}, {"meet": ["here", "go"]})
    other = Runner(Flights(fleet.red, "host:2"), fleet.breakers, fleet.clients, fleet.writer, "host:2")
    first = threading.Thread(target=fleet.run)
    first.start()
    assert fleet.red.blpop(["here"], timeout=10)
    held = fleet.due
    fleet.due += 1000
    assert other.run("shelf", "items", [(fleet.targets[0], fleet.due)]) == {"a": "skipped"}
    assert other.run("shelf", "items", [(fleet.targets[0], held)]) == {"a": "skipped"}, "the same slot, come twice"
    fleet.red.rpush("go", "on")
    first.join(20)
    assert fleet.writer.flush(10)
    assert fleet.ledger() == [
        ("a", "ok", "", 1),  # and not the skip of the message that came twice
        ("a", "skipped", "the previous run still goes (host:1)", 0),
    ]
    assert fleet.reads("a") == 1
    assert fleet.samples() == [("a", "shelf_items", {}, 1.0)]


def test_a_slot_that_is_run_again_later_is_counted_once(fleet: Fleet) -> None:
    fleet.put("a", {"sample": ["shelf_items", 1]})
    fleet.run(due=DUE)
    fleet.put("a", {"sample": ["shelf_items", 2]})
    fleet.run(due=DUE)
    assert fleet.ledger() == [("a", "ok", "", 1)]
    assert fleet.samples() == [("a", "shelf_items", {}, 1.0)]


def test_without_redis_nobody_polls(
    fleet: Fleet, start_server: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    server = start_server("valkey-9")
    server.stop()
    fleet.put("a", {"sample": ["shelf_items", 1]})
    with redis.Redis.from_url(server.url, socket_timeout=1, retry=None) as gone:
        blind = Runner(Flights(gone, "host:1"), fleet.breakers, fleet.clients, fleet.writer, "host:1")
        assert fleet.run(runner=blind) == {"a": "error"}
    assert fleet.ledger() == [("a", "error", "Redis went away: ConnectionError", 0)]
    assert fleet.reads("a") == 0


# Breakers and clients.


def test_what_does_not_answer_is_left_alone_and_only_that(fleet: Fleet) -> None:
    fleet.have("a", "b")
    fleet.put("a", {"fail": "Unreachable"})
    fleet.put("b", {"fail": "Refused"})
    outcomes = [fleet.run() for _ in range(4)]
    assert [found["a"] for found in outcomes] == ["unreachable", "unreachable", "skipped", "skipped"]
    assert {found["b"] for found in outcomes} == {"refused"}
    assert (fleet.reads("a"), fleet.reads("b")) == (2, 4)
    assert "breaker of shelf/a is open" in fleet.ledger()[-2][2]
    assert fleet.run("rack")["a"] == "skipped", "one breaker a target, whatever is asked"


@pytest.mark.parametrize("item", [{"bug": "x"}, {"fail": "Skipped"}, {"fail": "ConfigError"}])
def test_a_fault_of_ours_says_nothing_about_the_target(fleet: Fleet, item: dict[str, Any]) -> None:
    fleet.put("a", {"fail": "Timeout"})
    fleet.run()
    fleet.put("a", item)
    fleet.run()
    assert fleet.breakers.state("shelf/a").failures == 1
    fleet.put("a", {"sample": ["shelf_items", 1]})
    fleet.run()
    assert fleet.breakers.state("shelf/a").failures == 0


def test_a_client_that_cannot_be_built_costs_only_its_target(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    fleet.have("a", "b")
    with fleet.engine.begin() as connection:
        connection.exec_driver_sql("""UPDATE targets SET settings = settings || '{"size": 13}' WHERE name = 'a'""")
    fleet.inventory.publish(
        [
            Target(t.id, t.service, t.name, t.settings | ({"size": 13} if t.name == "a" else {}), t.every)
            for t in fleet.targets
        ]
    )
    fleet.put("b", {"sample": ["shelf_items", 1]})
    assert fleet.run() == {"a": "error", "b": "ok"}
    assert fleet.run("rack") == {"a": "error", "b": "ok"}
    assert {row[2] for row in fleet.ledger() if row[0] == "a"} == {"a fault in the poll: ZeroDivisionError"}


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"url": "env:NO_SUCH_VARIABLE", "key": "a"}, "the environment variable NO_SUCH_VARIABLE is not set"),
        ({"url": "env:SHELF_URL", "key": "a", "colour": "x"}, "its settings do not fit the service any more"),
    ],
)
def test_settings_that_do_not_work_are_told(fleet: Fleet, settings: dict[str, str], why: str) -> None:
    fleet.inventory.publish([Target(t.id, t.service, t.name, settings, t.every) for t in fleet.targets])
    assert fleet.run() == {"a": "error"}
    assert fleet.ledger()[0][2].startswith(why)


def test_a_client_is_kept_until_its_settings_change(fleet: Fleet) -> None:
    fleet.put("a", {"sample": ["shelf_items", 1]})
    fleet.run()
    first = fleet.clients.get(fleet.targets[0])
    fleet.have("a", every={"items": "7s"}, max_series=7)
    fleet.run()
    assert fleet.clients.get(fleet.targets[0]) is first
    fleet.have("a", size=2)
    fleet.run()
    second = fleet.clients.get(fleet.targets[0])
    assert second is not first
    assert (first.closed, second.closed) == (1, 0)  # type: ignore[attr-defined]
    fleet.clients.keep_only(set())
    assert second.closed == 1  # type: ignore[attr-defined]


# Shards.


def test_in_a_shard_one_bad_target_costs_only_itself(fleet: Fleet) -> None:
    fleet.have("a", "b", "c")
    fleet.put("a", {"sample": ["shelf_items", 1]})
    fleet.put("b", {"sample": ["shelf_items", 2]}, {"fail": "AuthError"}, {"sample": ["shelf_weight_grams", 2]})
    fleet.put("c", {"sample": ["shelf_items", 3]})
    assert fleet.run("rack") == {"a": "ok", "b": "partial", "c": "ok"}
    assert fleet.ledger() == [("a", "ok", "", 1), ("b", "partial", "auth: the shelf says so", 1), ("c", "ok", "", 1)]
    assert [(target, value) for target, _, _, value in fleet.samples()] == [("a", 1), ("b", 2), ("c", 3)]


def test_in_a_shard_a_fault_ends_the_read_and_keeps_what_came_before(fleet: Fleet) -> None:
    fleet.have("a", "b", "c")
    fleet.put("a", {"sample": ["shelf_items", 1]}, {"fail": "Refused"})
    fleet.put("b", {"sample": ["shelf_items", 2]}, {"bug": "x"})
    fleet.put("c", {"sample": ["shelf_items", 3]})
    assert fleet.run("rack") == {"a": "partial", "b": "partial", "c": "error"}
    assert [row[2] for row in fleet.ledger()] == [
        "refused: the shelf says so",
        "error: a fault in the poll: RuntimeError",
        "a fault in the poll: RuntimeError",
    ]


def test_in_a_shard_a_record_that_is_none_costs_only_its_target(fleet: Fleet) -> None:
    fleet.have("a", "b")
    fleet.put("a", {"junk": 1})
    fleet.put("b", {"sample": ["shelf_items", 2]})
    assert fleet.run("rack") == {"a": "parse", "b": "ok"}


def test_in_a_shard_the_slow_one_costs_those_behind_it_and_all_are_told(fleet: Fleet) -> None:
    fleet.have("a", "b", every={"rack": "1s"})
    fleet.put("a", {"sample": ["shelf_items", 1]}, {"sleep": 1.0}, {"sample": ["shelf_weight_grams", 1]})
    fleet.put("b", {"sample": ["shelf_items", 2]})
    assert fleet.run("rack") == {"a": "partial", "b": "timeout"}


def test_in_a_shard_a_target_that_is_polled_elsewhere_is_skipped(fleet: Fleet) -> None:
    fleet.have("a", "b")
    fleet.put("a", {"sample": ["shelf_items", 1]})
    fleet.put("b", {"sample": ["shelf_items", 2]})
    a = fleet.targets[0]
    with Flights(fleet.red, "host:9").flight(a.id, "rack", DUE, 30.0):
        assert fleet.run("rack") == {"a": "skipped", "b": "ok"}
    assert (fleet.reads("a"), fleet.reads("b")) == (0, 1)
    assert fleet.run("rack") == {"a": "ok", "b": "ok"}


# One round by hand.


def test_a_round_runs_every_poll_of_every_target_once(fleet: Fleet) -> None:
    fleet.have("a", "b")
    fleet.put("a", {"sample": ["shelf_items", 1]})
    fleet.put("b", {"fail": "Refused"})
    threads: list[threading.Thread] = []

    def send(shards: Iterator[Shard]) -> None:
        for shard in shards:
            assert shard.manual
            work = threading.Thread(
                target=fleet.runner.run, args=("shelf", shard.poll, shard.slots), kwargs={"manual": True}
            )
            threads.append(work)
            work.start()

    ran = list(run_round(fleet.engine, fleet.inventory, send))
    for thread in threads:
        thread.join(10)
    ended = {(one.target, one.poll): (one.outcome, one.samples) for one in ran}
    polls = ("items", "loose", "rack")
    assert ended == {("a", poll): (Outcome.OK, 1) for poll in polls} | {("b", p): (Outcome.REFUSED, 0) for p in polls}
    assert len(ran) == 6
    assert all(one.milliseconds > 0 for one in ran)
    assert rows(fleet.engine, "SELECT bool_and(manual), count(DISTINCT due) FROM poll_runs") == [(True, 1)]


def test_what_the_schedule_was_just_doing_is_asked_again_in_a_round(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it is free; what never is stays skipped."""
    monkeypatch.setattr("nms_workers.fleet.round._BUSY_SECONDS", 0.0)
    fleet.put("a", {"sample": ["shelf_items", 1]})
    (target,) = fleet.targets
    asked: list[str] = []

    def send(shards: Iterator[Shard]) -> None:
        for shard in shards:
            asked.append(shard.poll)
            taken = shard.poll == "rack" or (shard.poll == "items" and asked.count("items") == 1)
            with ExitStack() as held:
                if taken:
                    held.enter_context(Flights(fleet.red, "host:9").flight(target.id, shard.poll, DUE, 30.0))
                fleet.runner.run("shelf", shard.poll, shard.slots, manual=True)

    ran = {one.poll: one.outcome for one in run_round(fleet.engine, fleet.inventory, send)}
    assert ran == {"items": Outcome.OK, "loose": Outcome.OK, "rack": Outcome.SKIPPED}
    assert {poll: asked.count(poll) for poll in ran} == {"items": 2, "loose": 1, "rack": 4}


def test_what_nobody_runs_in_a_round_is_expired(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nms_workers.fleet.round.GRACE_SECONDS", -24.0)  # 24 s is the longest deadline
    ran = list(run_round(fleet.engine, fleet.inventory, lambda shards: None))
    assert {one.outcome for one in ran} == {Outcome.EXPIRED}
    assert len(ran) == 3
    assert isinstance(ran[0], Ran)


def test_a_target_that_went_while_its_message_waited_is_not_polled(fleet: Fleet) -> None:
    ids = [target.id for target in fleet.targets]
    fleet.have("b")
    picked = fleet.inventory.pick(ids)
    assert fleet.runner.run("shelf", "items", [(target, DUE) for target in picked]) == {}
    assert fleet.reads("a") == 0
    wait_until(lambda: fleet.writer.backlog().rows == 0)
    assert fleet.ledger() == []
