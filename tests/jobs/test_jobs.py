"""Jobs on a real PostgreSQL: one row, one run, one end, whoever dies."""

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
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
from nms_workers.jobs.desk import Desk
from nms_workers.jobs.job import MAX_ATTEMPTS, Job, find, get, new_id, newest
from nms_workers.jobs.run import run
from nms_workers.jobs.submit import record, submit
from nms_workers.jobs.sweep import SWEPT_AT_ONCE, end_lease, sweep
from nms_workers.jobs.wish import LONGEST, Wish
from nms_workers.service import Client
from nms_workers.settings import Settings, TargetConfig
from nms_workers.store.engine import make_engine
from tests.fleet.stores import rows
from tests.jobs.conftest import KEY, ClientOf, Published
from tests.jobs.conftest import age as _age
from tests.servers import Server


def wish(action: str = "put", target: str = "main", key: str | None = None, **arguments: object) -> Wish:
    arguments = arguments or {"item": "apple"} if action == "put" else arguments
    return Wish("shelf", action, target, arguments, requested_by="ada", reason="why not", idempotency_key=key)


def test_a_wish_is_committed_published_run_and_ended(
    engine: Engine, desk: Desk, client_of: ClientOf, published: Published, red: "redis.Redis"
) -> None:
    job = submit(desk, wish(item="apple"))
    assert (job.state, job.done, job.attempts, job.task) == ("queued", False, 0, "nms.shelf.put")
    assert (job.requested_by, job.reason, job.arguments) == ("ada", "why not", {"item": "apple", "times": 1})
    assert published.jobs == [job] == [find(engine, job.id)]

    ended = run(desk, job, "host:1", client_of)
    assert red.llen(KEY) == 1
    assert (ended.state, ended.done, ended.attempts, ended.worker) == ("succeeded", True, 1, "host:1")
    assert ended.result == {"changed": True, "message": "laid down apple"}
    assert (ended.before, ended.after, ended.error) == ({"n": 0}, {"n": 1}, None)
    assert ended.created_at <= ended.claimed_at <= ended.finished_at  # type: ignore[operator]
    assert get(engine, job.id) == ended
    assert run(desk, job, "host:2", client_of) == ended, "what has ended is left as it is"
    assert red.llen(KEY) == 1


def test_what_changed_nothing_ends_as_unchanged_and_odd_values_do_not_hurt(desk: Desk, client_of: ClientOf) -> None:
    ended = run(desk, submit(desk, wish("clear", confirm="main")), "host:1", client_of)
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
def test_every_fault_ends_the_job(desk: Desk, client_of: ClientOf, asked: Wish, error: str) -> None:
    ended = run(desk, submit(desk, asked), "host:1", client_of)
    assert (ended.state, ended.error, ended.attempts) == ("failed", error, 1)
    assert ended.finished_at is not None


def test_a_client_that_cannot_be_had_fails_the_job(desk: Desk, client_of: ClientOf) -> None:
    def nobody(job: Job) -> Client:
        raise NmsError(f"{job.target} is not active any more")

    assert run(desk, submit(desk, wish()), "host:1", nobody).error == "main is not active any more"


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (wish(item="a", colour="red"), (Refused, "colour: Extra inputs")),
        (wish(item="a", times=0), (Refused, "times: Input should be greater than 0")),
        (wish(item="a\x00b"), (Refused, "NUL")),
        (wish(target="cellar"), (NmsError, "no active shelf target 'cellar'")),
        (
            wish("burn"),
            (NmsError, "shelf has no action 'burn' (it has: put, take, fill, knock, roll, beside, clear, nothing)"),
        ),
        (Wish("gopher", "dig", "a", {}, "ada"), (ConfigError, "no service 'gopher'")),
        (Wish("shelf", "put", "main", {"item": "a"}, "x" * 201), (Refused, "requested_by must be text")),
        (Wish("shelf", "put", "main", {"item": "a"}, "a", reason="\x00"), (Refused, "reason must be text")),
        (wish(key="k" * (LONGEST["idempotency_key"] + 1)), (Refused, "idempotency_key must be text")),
    ],
)
def test_a_wish_that_cannot_be_is_refused_and_leaves_no_row(  # noqa: PLR0917 - fixtures and parameters
    engine: Engine,
    desk: Desk,
    client_of: ClientOf,
    published: Published,
    asked: Wish,
    told: tuple[type[Exception], str],
) -> None:
    error, why = told
    with pytest.raises(error) as refused:
        submit(desk, asked)
    assert why in str(refused.value)
    assert (newest(engine), published.jobs) == ([], [])


def test_a_target_that_is_paused_is_not_touched(engine: Engine, desk: Desk, client_of: ClientOf) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE targets SET state = 'paused' WHERE name = 'main'"))
    with pytest.raises(NmsError, match="no active shelf target 'main'"):
        submit(desk, wish())


@pytest.mark.parametrize("confirm", [{}, {"confirm": "spare"}, {"confirm": ""}, {"confirm": True}])
def test_what_destroys_is_refused_without_its_target_s_name_and_that_is_recorded(
    engine: Engine, desk: Desk, client_of: ClientOf, published: Published, confirm: dict[str, object]
) -> None:
    job = submit(desk, Wish("shelf", "clear", "main", confirm, "ada"))
    assert (job.state, job.done) == ("refused", True)
    assert job.error == "shelf.clear is refused: it destroys data: it needs the argument confirm=main"
    assert job.finished_at is not None
    assert published.jobs == []
    assert newest(engine) == [job]
    assert run(desk, job, "host:1", client_of).state == "refused"
    assert sweep(desk) == 0


def test_the_same_key_is_the_same_job(engine: Engine, desk: Desk, client_of: ClientOf, published: Published) -> None:
    first = submit(desk, wish(key="once"))
    assert submit(desk, wish(key="once")).id == first.id
    ended = run(desk, first, "host:1", client_of)
    sent = len(published.jobs)
    assert submit(desk, wish(key="once")) == ended
    assert len(published.jobs) == sent, "what has ended is not sent again"
    assert len(newest(engine)) == 1


@pytest.mark.parametrize("other", [wish(item="pear"), wish(target="spare"), wish("clear", confirm="main")])
def test_the_same_key_with_another_wish_is_refused(
    engine: Engine, desk: Desk, client_of: ClientOf, other: Wish
) -> None:
    first = submit(desk, wish(key="once"))
    again = Wish(other.service, other.action, other.target, other.arguments, "bob", idempotency_key="once")
    with pytest.raises(Refused, match=f"'once' names another job, {first.id}"):
        submit(desk, again)
    assert len(newest(engine)) == 1


def test_the_same_key_at_once_is_one_job(engine: Engine, desk: Desk, client_of: ClientOf) -> None:
    barrier, ids = threading.Barrier(4), set()

    def work() -> None:
        barrier.wait(10)
        ids.add(submit(desk, wish(key="once")).id)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(ids) == len(newest(engine)) == 1


def test_without_a_key_each_wish_is_a_job(desk: Desk, client_of: ClientOf) -> None:
    assert len({submit(desk, wish()).id for _ in range(3)}) == 3


def test_with_the_broker_away_the_job_waits_and_the_sweep_sends_it(
    engine: Engine, desk: Desk, client_of: ClientOf, published: Published
) -> None:
    def away(_: Job) -> None:
        raise BrokerAway("no broker")

    job = submit(replace(desk, publish=away), wish())
    assert job.state == "queued"
    assert sweep(desk) == 0, "its message may still be on its way"
    _age(engine, seconds=16)
    assert sweep(desk) == 1
    assert [one.id for one in published.jobs] == [job.id]
    assert sweep(desk) == 0


def test_a_message_is_sent_again_ever_more_seldom(
    engine: Engine, desk: Desk, client_of: ClientOf, published: Published
) -> None:
    """A long queue must not be made longer by impatience: in an hour a job is sent some eight times, not 240."""
    submit(desk, wish())
    for _ in range(720):
        _age(engine, seconds=5)
        sweep(desk)
    assert 5 <= len(published.jobs) <= 10


def test_one_sweep_is_bounded_and_the_next_goes_on(
    engine: Engine, desk: Desk, client_of: ClientOf, published: Published
) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO jobs (id, service, action, target, requested_by, state, due_at)
                SELECT gen_random_uuid(), 'shelf', 'put', 'shelf ' || n, 'ada', 'queued', now() - interval '1 minute'
                FROM generate_series(1, :count) AS n"""),
            {"count": SWEPT_AT_ONCE + 7},
        )
    assert [sweep(desk) for _ in range(3)] == [SWEPT_AT_ONCE, 7, 0]
    assert len({job.id for job in published.jobs}) == SWEPT_AT_ONCE + 7


def test_of_two_workers_one_wins(engine: Engine, desk: Desk, client_of: ClientOf, red: "redis.Redis") -> None:
    for number in range(10):
        job = record(desk, wish(item=f"apple {number}"), new_id())
        barrier, workers = threading.Barrier(3), []

        def work(name: str, job: Job = job, barrier: threading.Barrier = barrier, found: list[Any] = workers) -> None:
            barrier.wait(10)
            found.append(run(desk, job, name, client_of))

        threads = [threading.Thread(target=work, args=(f"host:{one}",)) for one in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert len(workers) == 3
        assert {one.id for one in workers} == {job.id}
        assert get(engine, job.id).attempts == 1
    assert red.llen(KEY) == 10


class _Killed(BaseException):
    """What a worker's death looks like from inside: nothing after it runs."""


def _die(_: Job) -> Client:
    raise _Killed


def test_what_a_dead_worker_left_is_run_again_and_given_up_after_three(
    engine: Engine, desk: Desk, client_of: ClientOf, red: "redis.Redis"
) -> None:
    job = submit(desk, wish())
    for attempt in range(1, MAX_ATTEMPTS + 1):
        with pytest.raises(_Killed):
            run(desk, job, f"host:{attempt}", _die)
        left = get(engine, job.id)
        assert (left.state, left.attempts) == ("running", attempt)
        _age(engine, seconds=60)
        assert sweep(desk) == 0, "its lease goes on: 60 s and a margin"
        _age(engine, seconds=30)
        assert sweep(desk) == (attempt < MAX_ATTEMPTS)
    ended = get(engine, job.id)
    assert (ended.state, ended.attempts) == ("failed", 3)
    assert ended.error is not None
    assert "3 times" in ended.error
    assert ended.finished_at is not None
    assert run(desk, job, "host:9", client_of).state == "failed"
    assert red.llen(KEY) == 0


def test_a_death_that_is_seen_ends_the_lease_at_once(desk: Desk, client_of: ClientOf) -> None:
    job = submit(desk, wish())
    with pytest.raises(_Killed):
        run(desk, job, "host:1", _die)
    end_lease(desk, job.id, "host:2")
    assert sweep(desk) == 0, "another worker's death says nothing of this one"
    end_lease(desk, job.id, "host:1")
    assert sweep(desk) == 1
    assert run(desk, job, "host:2", client_of).state == "succeeded"


@pytest.mark.parametrize("second", ["host:1", "host:2"])
def test_a_finish_after_the_lease_was_lost_changes_nothing(
    engine: Engine, desk: Desk, client_of: ClientOf, second: str
) -> None:
    """Also when the one that took over has the same name: a process id that came again."""
    job = submit(desk, wish())
    ended: list[Job] = []

    def overtaken(claimed: Job) -> Client:
        _age(engine, seconds=600)
        assert sweep(desk) == 1
        ended.append(run(desk, claimed, second, client_of))
        raise NmsError("too late")

    late = run(desk, job, "host:1", overtaken)
    assert late == ended[0] == get(engine, job.id)
    assert (late.state, late.attempts, late.worker, late.error) == ("succeeded", 2, second, None)


def test_a_finish_while_the_job_waits_to_run_again_changes_nothing(
    engine: Engine, desk: Desk, client_of: ClientOf
) -> None:
    job = submit(desk, wish())

    def overtaken(_: Job) -> Client:
        _age(engine, seconds=600)
        sweep(desk)
        raise NmsError("too late")

    assert run(desk, job, "host:1", overtaken).state == "queued"
    assert get(engine, job.id).error is None


def test_a_foreign_producer_s_task_makes_a_row_under_its_own_id(
    engine: Engine, desk: Desk, client_of: ClientOf
) -> None:
    job_id = uuid.uuid4()
    assert find(engine, job_id) is None
    job = record(desk, Wish("shelf", "put", "main", {"item": "apple"}, "gen1@elsewhere"), job_id)
    assert (job.id, job.state, job.requested_by) == (job_id, "queued", "gen1@elsewhere")
    assert record(desk, Wish("shelf", "put", "main", {"item": "apple"}, "gen1@elsewhere"), job_id) == job
    assert run(desk, job, "host:1", client_of).state == "succeeded"


def test_a_foreign_task_with_the_id_of_another_job_is_refused(desk: Desk, client_of: ClientOf) -> None:
    job = record(desk, wish(), new_id())
    with pytest.raises(Refused, match="names another job"):
        record(desk, wish(item="pear"), job.id)


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
    inventory, desk = Inventory(red), Desk(engine, Settings(), Published())
    sync(engine, inventory, Settings(targets=[target]), datetime.now(UTC))
    job = record(desk, wish(), new_id())
    gone = threading.Event()

    def and_then_it_goes(_: Job) -> Client:
        server.stop()
        gone.set()
        return Clients().get(next(iter(inventory.all().values())))

    with ThreadPoolExecutor(1) as worker:
        running = worker.submit(run, desk, job, "host:1", and_then_it_goes)
        assert gone.wait(20)
        server.start()
        ended = running.result(30)
    assert (ended.state, ended.attempts) == ("succeeded", 1)
    assert red.llen(KEY) == 1
    server.stop()
    with pytest.raises(OperationalError):
        run(desk, job, "host:1", and_then_it_goes)
    engine.dispose()


def test_a_job_is_shown_as_text(desk: Desk, client_of: ClientOf) -> None:
    job = run(desk, submit(desk, wish()), "host:1", client_of)
    shown = job.as_json()
    assert shown["id"] == str(job.id)
    assert datetime.fromisoformat(shown["finished_at"]) == job.finished_at
    assert shown["result"] == {"changed": True, "message": "laid down apple"}


def test_the_newest_come_first_and_ids_sort_by_birth(engine: Engine, desk: Desk, client_of: ClientOf) -> None:
    made = [record(desk, wish(item=f"n{n}"), new_id()) for n in range(5)]
    assert [job.id for job in newest(engine, 3)] == [job.id for job in reversed(made)][:3]
    assert sorted(job.id for job in made) == [job.id for job in made]


def test_a_job_that_is_not_there_is_told(engine: Engine) -> None:
    with pytest.raises(NmsError, match=r"there is no job .*jobs list"):
        get(engine, uuid.uuid4())


def test_a_target_that_is_deleted_leaves_its_jobs(engine: Engine, desk: Desk, client_of: ClientOf) -> None:
    job = submit(desk, wish())
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM targets"))
    assert rows(engine, "SELECT target, target_id FROM jobs") == [("main", None)]
    assert get(engine, job.id) == job
