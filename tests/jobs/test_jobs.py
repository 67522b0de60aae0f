"""Jobs on a real PostgreSQL: one row, one run, one end, whoever dies."""

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from kombu.exceptions import OperationalError as BrokerAway
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from nms_workers.errors import ConfigError, NmsError, Refused
from nms_workers.fleet.clients import Clients
from nms_workers.fleet.inventory import Inventory
from nms_workers.fleet.targets import sync
from nms_workers.jobs.job import Job, find, get, new_id, newest
from nms_workers.jobs.run import run
from nms_workers.jobs.submit import LONGEST, MAX_ATTEMPTS, SWEPT_AT_ONCE, Wish, end_lease, record, submit, sweep
from nms_workers.service import Client
from nms_workers.settings import Settings, TargetConfig
from nms_workers.store.engine import make_engine
from tests.fleet.stores import rows
from tests.servers import Server

KEY = "the:shelf"
ClientOf = Callable[[Job], Client]


class Published:
    """The messages that went out."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def __call__(self, job: Job) -> None:
        self.jobs.append(job)


@pytest.fixture
def published() -> Published:
    return Published()


@pytest.fixture
def client_of(
    engine: Engine, redis_server: Server, red: "redis.Redis", shelf: None, monkeypatch: pytest.MonkeyPatch
) -> ClientOf:
    """Two targets, `main` and `spare`, and how to reach them."""
    monkeypatch.setenv("SHELF_URL", redis_server.url)
    shelf_at = {"service": "shelf", "url": "env:SHELF_URL", "key": KEY}
    targets = [TargetConfig.model_validate(shelf_at | {"name": name}) for name in ("main", "spare")]
    inventory, clients = Inventory(red), Clients()
    sync(engine, inventory, Settings(targets=targets), datetime.now(UTC))
    by_name = {target.name: target for target in inventory.all().values()}
    return lambda job: clients.get(by_name[job.target])


def wish(action: str = "put", target: str = "main", key: str | None = None, **arguments: object) -> Wish:
    arguments = arguments or {"item": "apple"} if action == "put" else arguments
    return Wish("shelf", action, target, arguments, requested_by="ada", reason="why not", idempotency_key=key)


def test_a_wish_is_committed_published_run_and_ended(
    engine: Engine, client_of: ClientOf, published: Published, red: "redis.Redis"
) -> None:
    job = submit(engine, published, wish(item="apple"))
    assert (job.state, job.done, job.attempts, job.task) == ("queued", False, 0, "nms.shelf.put")
    assert (job.requested_by, job.reason, job.arguments) == ("ada", "why not", {"item": "apple", "times": 1})
    assert published.jobs == [job] == [find(engine, job.id)]

    ended = run(engine, job, "host:1", client_of)
    assert red.llen(KEY) == 1
    assert (ended.state, ended.done, ended.attempts, ended.worker) == ("succeeded", True, 1, "host:1")
    assert ended.result == {"changed": True, "message": "laid down apple"}
    assert (ended.before, ended.after, ended.error) == ({"n": 0}, {"n": 1}, None)
    assert ended.created_at <= ended.claimed_at <= ended.finished_at  # type: ignore[operator]
    assert get(engine, job.id) == ended
    assert run(engine, job, "host:2", client_of) == ended, "what has ended is left as it is"
    assert red.llen(KEY) == 1


def test_what_changed_nothing_ends_as_unchanged_and_odd_values_do_not_hurt(
    engine: Engine, client_of: ClientOf, published: Published
) -> None:
    ended = run(engine, submit(engine, published, wish("clear", confirm="main")), "host:1", client_of)
    assert ended.state == "unchanged"
    assert ended.before == {"odd": None, "nul": "a\N{REPLACEMENT CHARACTER}b"}
    assert ended.arguments == {}, "a confirmation is no argument"


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        (wish(item="broken"), "broken things are not taken (bring a whole one)"),
        (wish(item="bug"), "a fault in the action: RuntimeError"),
        (wish("nothing"), "a fault in the action: AttributeError"),
    ],
)
def test_every_fault_ends_the_job(
    engine: Engine, client_of: ClientOf, published: Published, asked: Wish, error: str
) -> None:
    ended = run(engine, submit(engine, published, asked), "host:1", client_of)
    assert (ended.state, ended.error, ended.attempts) == ("failed", error, 1)
    assert ended.finished_at is not None


def test_a_client_that_cannot_be_had_fails_the_job(engine: Engine, client_of: ClientOf, published: Published) -> None:
    def nobody(job: Job) -> Client:
        raise NmsError(f"{job.target} is not active any more")

    assert run(engine, submit(engine, published, wish()), "host:1", nobody).error == "main is not active any more"


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (wish(item="a", colour="red"), (Refused, "colour: Extra inputs")),
        (wish(item="a", times=0), (Refused, "times: Input should be greater than 0")),
        (wish(item="a\x00b"), (Refused, "NUL")),
        (wish(target="cellar"), (NmsError, "no active shelf target 'cellar'")),
        (wish("burn"), (NmsError, "shelf has no action 'burn' (it has: put, clear, nothing)")),
        (Wish("gopher", "dig", "a", {}, "ada"), (ConfigError, "no service 'gopher'")),
        (Wish("shelf", "put", "main", {"item": "a"}, "x" * 201), (Refused, "requested_by must be text")),
        (Wish("shelf", "put", "main", {"item": "a"}, "a", reason="\x00"), (Refused, "reason must be text")),
        (wish(key="k" * (LONGEST["idempotency_key"] + 1)), (Refused, "idempotency_key must be text")),
    ],
)
def test_a_wish_that_cannot_be_is_refused_and_leaves_no_row(
    engine: Engine, client_of: ClientOf, published: Published, asked: Wish, told: tuple[type[Exception], str]
) -> None:
    error, why = told
    with pytest.raises(error) as refused:
        submit(engine, published, asked)
    assert why in str(refused.value)
    assert (newest(engine), published.jobs) == ([], [])


def test_a_target_that_is_paused_is_not_touched(engine: Engine, client_of: ClientOf, published: Published) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE targets SET state = 'paused' WHERE name = 'main'"))
    with pytest.raises(NmsError, match="no active shelf target 'main'"):
        submit(engine, published, wish())


@pytest.mark.parametrize("confirm", [{}, {"confirm": "spare"}, {"confirm": ""}, {"confirm": True}])
def test_what_destroys_is_refused_without_its_target_s_name_and_that_is_recorded(
    engine: Engine, client_of: ClientOf, published: Published, confirm: dict[str, object]
) -> None:
    job = submit(engine, published, Wish("shelf", "clear", "main", confirm, "ada"))
    assert (job.state, job.done) == ("refused", True)
    assert job.error == "clear destroys data: it needs the argument confirm=main"
    assert job.finished_at is not None
    assert published.jobs == []
    assert newest(engine) == [job]
    assert run(engine, job, "host:1", client_of).state == "refused"
    assert sweep(engine, published) == 0


def test_the_same_key_is_the_same_job(engine: Engine, client_of: ClientOf, published: Published) -> None:
    first = submit(engine, published, wish(key="once"))
    assert submit(engine, published, wish(key="once")).id == first.id
    ended = run(engine, first, "host:1", client_of)
    sent = len(published.jobs)
    assert submit(engine, published, wish(key="once")) == ended
    assert len(published.jobs) == sent, "what has ended is not sent again"
    assert len(newest(engine)) == 1


@pytest.mark.parametrize("other", [wish(item="pear"), wish(target="spare"), wish("clear", confirm="main")])
def test_the_same_key_with_another_wish_is_refused(
    engine: Engine, client_of: ClientOf, published: Published, other: Wish
) -> None:
    first = submit(engine, published, wish(key="once"))
    again = Wish(other.service, other.action, other.target, other.arguments, "bob", idempotency_key="once")
    with pytest.raises(Refused, match=f"'once' names another job, {first.id}"):
        submit(engine, published, again)
    assert len(newest(engine)) == 1


def test_the_same_key_at_once_is_one_job(engine: Engine, client_of: ClientOf, published: Published) -> None:
    barrier, ids = threading.Barrier(4), set()

    def work() -> None:
        barrier.wait(10)
        ids.add(submit(engine, published, wish(key="once")).id)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(ids) == len(newest(engine)) == 1


def test_without_a_key_each_wish_is_a_job(engine: Engine, client_of: ClientOf, published: Published) -> None:
    assert len({submit(engine, published, wish()).id for _ in range(3)}) == 3


def test_with_the_broker_away_the_job_waits_and_the_sweep_sends_it(
    engine: Engine, client_of: ClientOf, published: Published
) -> None:
    def away(_: Job) -> None:
        raise BrokerAway("no broker")

    job = submit(engine, away, wish())
    assert job.state == "queued"
    assert sweep(engine, published) == 0, "its message may still be on its way"
    _age(engine, seconds=16)
    assert sweep(engine, published) == 1
    assert [one.id for one in published.jobs] == [job.id]
    assert sweep(engine, published) == 0


def test_a_message_is_sent_again_ever_more_seldom(engine: Engine, client_of: ClientOf, published: Published) -> None:
    """A long queue must not be made longer by impatience: in an hour a job is sent some eight times, not 240."""
    submit(engine, published, wish())
    for _ in range(720):
        _age(engine, seconds=5)
        sweep(engine, published)
    assert 5 <= len(published.jobs) <= 10


def test_one_sweep_is_bounded_and_the_next_goes_on(engine: Engine, client_of: ClientOf, published: Published) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO jobs (id, service, action, target, requested_by, state, created_at)
                SELECT gen_random_uuid(), 'shelf', 'put', 'main', 'ada', 'queued', now() - interval '1 minute'
                FROM generate_series(1, :count)"""),
            {"count": SWEPT_AT_ONCE + 7},
        )
    assert [sweep(engine, published) for _ in range(3)] == [SWEPT_AT_ONCE, 7, 0]
    assert len({job.id for job in published.jobs}) == SWEPT_AT_ONCE + 7


def test_of_two_workers_one_wins(engine: Engine, client_of: ClientOf, red: "redis.Redis") -> None:
    for number in range(10):
        job = record(engine, wish(item=f"apple {number}"), new_id())
        barrier, workers = threading.Barrier(3), []

        def work(name: str, job: Job = job, barrier: threading.Barrier = barrier, found: list[Any] = workers) -> None:
            barrier.wait(10)
            found.append(run(engine, job, name, client_of))

        threads = [threading.Thread(target=work, args=(f"host:{one}",)) for one in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert len(workers) == 3
        assert {one.id for one in workers} == {job.id}
        assert get(engine, job.id).attempts == 1
    assert red.llen(KEY) == 10


def _age(engine: Engine, seconds: float) -> None:
    """Let time pass for every job."""
    with engine.begin() as connection:
        moments = ("created_at", "published_at", "claimed_at", "leased_until")
        changes = ", ".join(f"{one} = {one} - make_interval(secs => :seconds)" for one in moments)
        connection.execute(text(f"UPDATE jobs SET {changes}"), {"seconds": seconds})


class _Killed(BaseException):
    """What a worker's death looks like from inside: nothing after it runs."""


def _die(_: Job) -> Client:
    raise _Killed


def test_what_a_dead_worker_left_is_run_again_and_given_up_after_three(
    engine: Engine, client_of: ClientOf, published: Published, red: "redis.Redis"
) -> None:
    job = submit(engine, published, wish())
    for attempt in range(1, MAX_ATTEMPTS + 1):
        with pytest.raises(_Killed):
            run(engine, job, f"host:{attempt}", _die)
        left = get(engine, job.id)
        assert (left.state, left.attempts) == ("running", attempt)
        _age(engine, seconds=60)
        assert sweep(engine, published) == 0, "its lease goes on: 60 s and a margin"
        _age(engine, seconds=30)
        assert sweep(engine, published) == (attempt < MAX_ATTEMPTS)
    ended = get(engine, job.id)
    assert (ended.state, ended.attempts) == ("failed", 3)
    assert ended.error is not None
    assert "3 times" in ended.error
    assert ended.finished_at is not None
    assert run(engine, job, "host:9", client_of).state == "failed"
    assert red.llen(KEY) == 0


def test_a_death_that_is_seen_ends_the_lease_at_once(engine: Engine, client_of: ClientOf, published: Published) -> None:
    job = submit(engine, published, wish())
    with pytest.raises(_Killed):
        run(engine, job, "host:1", _die)
    end_lease(engine, job.id, "host:2")
    assert sweep(engine, published) == 0, "another worker's death says nothing of this one"
    end_lease(engine, job.id, "host:1")
    assert sweep(engine, published) == 1
    assert run(engine, job, "host:2", client_of).state == "succeeded"


@pytest.mark.parametrize("second", ["host:1", "host:2"])
def test_a_finish_after_the_lease_was_lost_changes_nothing(
    engine: Engine, client_of: ClientOf, published: Published, second: str
) -> None:
    """Also when the one that took over has the same name: a process id that came again."""
    job = submit(engine, published, wish())
    ended: list[Job] = []

    def overtaken(claimed: Job) -> Client:
        _age(engine, seconds=600)
        assert sweep(engine, published) == 1
        ended.append(run(engine, claimed, second, client_of))
        raise NmsError("too late")

    late = run(engine, job, "host:1", overtaken)
    assert late == ended[0] == get(engine, job.id)
    assert (late.state, late.attempts, late.worker, late.error) == ("succeeded", 2, second, None)


def test_a_finish_while_the_job_waits_to_run_again_changes_nothing(
    engine: Engine, client_of: ClientOf, published: Published
) -> None:
    job = submit(engine, published, wish())

    def overtaken(_: Job) -> Client:
        _age(engine, seconds=600)
        sweep(engine, published)
        raise NmsError("too late")

    assert run(engine, job, "host:1", overtaken).state == "queued"
    assert get(engine, job.id).error is None


def test_a_foreign_producer_s_task_makes_a_row_under_its_own_id(engine: Engine, client_of: ClientOf) -> None:
    job_id = uuid.uuid4()
    assert find(engine, job_id) is None
    job = record(engine, Wish("shelf", "put", "main", {"item": "apple"}, "gen1@elsewhere"), job_id)
    assert (job.id, job.state, job.requested_by) == (job_id, "queued", "gen1@elsewhere")
    assert record(engine, Wish("shelf", "put", "main", {"item": "apple"}, "gen1@elsewhere"), job_id) == job
    assert run(engine, job, "host:1", client_of).state == "succeeded"


def test_a_foreign_task_with_the_id_of_another_job_is_refused(engine: Engine, client_of: ClientOf) -> None:
    job = record(engine, wish(), new_id())
    with pytest.raises(Refused, match="names another job"):
        record(engine, wish(item="pear"), job.id)


def test_postgresql_away_at_the_end_is_waited_for(
    start_server: Callable[..., Server],
    red: "redis.Redis",
    redis_server: Server,
    shelf: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The action was done: a restart of PostgreSQL at that moment must not make it be done again."""
    from tests.fleet.stores import fresh_database  # noqa: PLC0415 - only here is a server of one's own

    server = start_server("postgresql-18")
    engine = make_engine(fresh_database(server))
    monkeypatch.setenv("SHELF_URL", redis_server.url)
    target = TargetConfig.model_validate({"service": "shelf", "name": "main", "url": "env:SHELF_URL", "key": KEY})
    inventory = Inventory(red)
    sync(engine, inventory, Settings(targets=[target]), datetime.now(UTC))
    job = record(engine, wish(), new_id())
    gone = threading.Event()

    def and_then_it_goes(_: Job) -> Client:
        server.stop()
        gone.set()
        return Clients().get(next(iter(inventory.all().values())))

    with ThreadPoolExecutor(1) as worker:
        running = worker.submit(run, engine, job, "host:1", and_then_it_goes)
        assert gone.wait(20)
        server.start()
        ended = running.result(30)
    assert (ended.state, ended.attempts) == ("succeeded", 1)
    assert red.llen(KEY) == 1
    server.stop()
    with pytest.raises(OperationalError):
        run(engine, job, "host:1", and_then_it_goes)
    engine.dispose()


def test_a_job_is_shown_as_text(engine: Engine, client_of: ClientOf, published: Published) -> None:
    job = run(engine, submit(engine, published, wish()), "host:1", client_of)
    shown = job.as_json()
    assert shown["id"] == str(job.id)
    assert datetime.fromisoformat(shown["finished_at"]) == job.finished_at
    assert shown["result"] == {"changed": True, "message": "laid down apple"}


def test_the_newest_come_first_and_ids_sort_by_birth(engine: Engine, client_of: ClientOf) -> None:
    made = [record(engine, wish(item=f"n{n}"), new_id()) for n in range(5)]
    assert [job.id for job in newest(engine, 3)] == [job.id for job in reversed(made)][:3]
    assert sorted(job.id for job in made) == [job.id for job in made]


def test_a_job_that_is_not_there_is_told(engine: Engine) -> None:
    with pytest.raises(NmsError, match=r"there is no job .*jobs list"):
        get(engine, uuid.uuid4())


def test_a_target_that_is_deleted_leaves_its_jobs(engine: Engine, client_of: ClientOf, published: Published) -> None:
    job = submit(engine, published, wish())
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM targets"))
    assert rows(engine, "SELECT target, target_id FROM jobs") == [("main", None)]
    assert get(engine, job.id) == job
