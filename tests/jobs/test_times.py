"""Jobs and the clock: expiry, later, again and again, retries, and what waits for a worker that is not there."""

from datetime import timedelta

import pytest
import redis
from sqlalchemy import Engine

from nms_workers.errors import NmsError, Refused
from nms_workers.jobs.audit import history
from nms_workers.jobs.desk import Desk
from nms_workers.jobs.job import MAX_ATTEMPTS, get, newest
from nms_workers.jobs.people import again, cancel
from nms_workers.jobs.run import run
from nms_workers.jobs.submit import submit
from nms_workers.jobs.sweep import sweep
from nms_workers.jobs.wish import Wish
from nms_workers.settings import Settings
from tests.jobs.conftest import KEY, ClientOf, Published, age


def put(item: str = "apple", **times: float) -> Wish:
    return Wish("shelf", "put", "main", {"item": item}, requested_by="ada", **times)


def knock(error: str, until: int) -> Wish:
    return Wish("shelf", "knock", "main", {"error": error, "until": until}, requested_by="ada")


def events(engine: Engine, job: object) -> list[str]:
    return [event.event for event in history(engine, job.id)]  # type: ignore[attr-defined]


def test_what_is_not_begun_in_time_is_not_begun(
    engine: Engine, desk: Desk, client_of: ClientOf, red: "redis.Redis"
) -> None:
    by_worker, by_sweep = submit(desk, put(expires=60)), submit(desk, put(expires=60))
    age(engine, 61)
    assert run(desk, by_worker, "host:1", client_of).state == "expired"
    sweep(desk)
    ended = get(engine, by_sweep.id)
    assert (ended.state, ended.error, ended.attempts) == ("expired", "it was not begun in time", 0)
    assert events(engine, ended) == ["submitted", "expired"]
    assert red.llen(KEY) == 0


def test_a_run_has_no_more_time_than_the_job(engine: Engine, desk: Desk, client_of: ClientOf) -> None:
    from nms_workers.transport.deadline import remaining  # noqa: PLC0415 - only here

    job, left = submit(desk, put(expires=60)), []
    age(engine, 50)
    run(desk, job, "host:1", lambda claimed: left.append(remaining(100)) or client_of(claimed))  # type: ignore[func-returns-value]
    assert 8 < left[0] <= 10


def test_what_is_for_later_is_published_when_it_is_due(
    engine: Engine, desk: Desk, client_of: ClientOf, published: Published
) -> None:
    job = submit(desk, put(after=600))
    assert (published.jobs, sweep(desk)) == ([], 0)
    age(engine, 601)
    assert sweep(desk) == 1
    assert run(desk, published.jobs[0], "host:1", client_of).id == job.id


def test_what_recurs_comes_again_and_what_was_missed_is_not_made_up_for(
    engine: Engine, desk: Desk, client_of: ClientOf, published: Published, red: "redis.Redis"
) -> None:
    first = run(desk, submit(desk, put(every=60, expires=30)), "host:1", client_of)
    second = newest(engine, 1)[0]
    assert (second.repeats, second.state, second.every) == (first.id, "queued", 60)
    assert first.due_at is not None
    assert second.due_at == first.due_at + timedelta(seconds=60)
    assert second.expires_at == second.due_at + timedelta(seconds=30)
    age(engine, 300)
    sweep(desk)
    assert get(engine, second.id).state == "expired"
    third = newest(engine, 1)[0]
    assert third.repeats == first.id
    assert third.due_at == get(engine, second.id).due_at + timedelta(seconds=300)  # type: ignore[operator]
    assert len(newest(engine)) == 3
    age(engine, 60)
    assert sweep(desk) == 1
    assert run(desk, published.jobs[-1], "host:1", client_of).id == third.id
    assert red.llen(KEY) == 2


def test_any_of_a_recurring_job_cancels_what_was_to_come(engine: Engine, desk: Desk, client_of: ClientOf) -> None:
    first = run(desk, submit(desk, put(every=60)), "host:1", client_of)
    gone = cancel(desk, first.id, "bob", "enough")
    assert (gone.repeats, gone.state, gone.error) == (first.id, "cancelled", "enough")
    assert [event.who for event in history(engine, gone.id)] == ["ada", "bob"]
    assert {job.state for job in newest(engine)} == {"succeeded", "cancelled"}
    with pytest.raises(Refused, match="is succeeded: it cannot be cancelled"):
        cancel(desk, first.id, "bob")


def test_one_that_recurs_and_runs_does_not_come_again_when_cancelled(
    engine: Engine, desk: Desk, client_of: ClientOf
) -> None:
    job = submit(desk, put(every=60))
    why: list[str] = []

    def client(claimed: object) -> object:
        with pytest.raises(Refused) as refused:
            cancel(desk, job.id, "bob")
        why.append(str(refused.value))
        return client_of(job)

    assert run(desk, job, "host:1", client).state == "succeeded"  # type: ignore[arg-type]
    assert "is running" in why[0]
    assert "jobs undo" in why[0]
    assert len(newest(engine)) == 1
    assert events(engine, job) == ["submitted", "claimed", "not repeated", "succeeded"]


def test_a_cancelled_job_lets_the_next_one_go(
    engine: Engine, desk: Desk, client_of: ClientOf, published: Published
) -> None:
    first, second = submit(desk, put("a")), submit(desk, put("b"))
    run(desk, second, "host:1", client_of)
    cancel(desk, first.id, "bob")
    assert published.jobs[-1].id == second.id
    assert run(desk, first, "host:1", client_of).state == "cancelled"
    assert run(desk, second, "host:1", client_of).state == "succeeded"


@pytest.mark.parametrize("error", ["Unreachable", "Timeout", "Skipped"])
def test_what_could_not_be_reached_is_tried_again(engine: Engine, desk: Desk, client_of: ClientOf, error: str) -> None:
    job = run(desk, submit(desk, knock(error, 2)), "host:1", client_of)
    assert (job.state, job.attempts, job.error) == ("queued", 1, "nobody at home, 1")
    assert sweep(desk) == 0, "not at once"
    age(engine, 3)
    assert sweep(desk) == 1
    ended = run(desk, job, "host:1", client_of)
    assert (ended.state, ended.attempts, ended.error) == ("succeeded", 2, None)
    assert events(engine, job) == ["submitted", "claimed", "retry", "claimed", "succeeded"]


def test_it_is_tried_three_times_and_no_more(engine: Engine, desk: Desk, client_of: ClientOf) -> None:
    job = submit(desk, knock("Unreachable", 9))
    for _ in range(5):
        run(desk, job, "host:1", client_of)
        age(engine, 60)
    ended = get(engine, job.id)
    assert (ended.state, ended.attempts, ended.error) == ("failed", MAX_ATTEMPTS, "nobody at home, 3")


@pytest.mark.parametrize("error", ["Refused", "AuthError", "ParseError"])
def test_a_no_is_not_asked_again(desk: Desk, client_of: ClientOf, error: str) -> None:
    assert run(desk, submit(desk, knock(error, 2)), "host:1", client_of).state == "failed"


def test_what_is_not_the_same_when_done_twice_is_done_once(
    engine: Engine, desk: Desk, client_of: ClientOf, red: "redis.Redis"
) -> None:
    roll = Wish("shelf", "roll", "main", {}, "ada")
    assert run(desk, submit(desk, roll), "host:1", client_of).state == "failed"
    assert red.get(f"{KEY}:rolls") == b"1"

    killed = submit(desk, roll)

    class Killed(BaseException):
        pass

    def die(_: object) -> object:
        raise Killed

    with pytest.raises(Killed):
        run(desk, killed, "host:1", die)  # type: ignore[arg-type]
    age(engine, 600)
    sweep(desk)
    ended = get(engine, killed.id)
    assert (ended.state, ended.attempts) == ("failed", 1)
    assert ended.error is not None
    assert "cannot safely be done twice" in ended.error


def test_a_failed_one_is_done_again_as_a_new_job(engine: Engine, desk: Desk, client_of: ClientOf) -> None:
    failed = run(desk, submit(desk, put("broken")), "host:1", client_of)
    made = again(desk, failed.id, "bob")
    assert (made.arguments, made.requested_by, made.reason) == (failed.arguments, "bob", f"again, after {failed.id}")
    assert [event.why for event in history(engine, failed.id)][-1] == f"as job {made.id}"
    with pytest.raises(Refused, match="is queued: there is nothing to do again"):
        again(desk, made.id, "bob")


def test_doing_again_what_nobody_confirmed_needs_a_confirmation(desk: Desk, client_of: ClientOf) -> None:
    refused = submit(desk, Wish("shelf", "clear", "main", {}, "ada"))
    assert again(desk, refused.id, "bob").state == "refused"


def test_a_guard_looks_again_right_before_the_run(
    engine: Engine, desk: Desk, client_of: ClientOf, red: "redis.Redis"
) -> None:
    job = submit(desk, put())
    strict = Desk(engine, Settings.model_validate({"guards": {"deny": ["shelf.put"]}}), desk.publish)
    ended = run(strict, job, "host:1", client_of)
    assert (ended.state, ended.attempts) == ("refused", 1)
    assert events(engine, job) == ["submitted", "claimed", "refused"]
    assert history(engine, job.id)[-1].who == "guard"
    assert red.llen(KEY) == 0


def test_a_job_for_the_edge_waits_for_its_worker_and_says_so(
    engine: Engine, desk: Desk, client_of: ClientOf, published: Published
) -> None:
    here = submit(desk, Wish("shelf", "beside", "main", {"item": "a"}, "ada"))
    assert (here.edge, here.queue) == (None, "act.shelf"), "no worker is named: any will do"
    job = submit(desk, Wish("shelf", "beside", "edge", {"item": "a"}, "ada", expires=120))
    assert (job.edge, job.queue) == ("fw1", "edge.fw1")
    cancel(desk, here.id, "ada")
    for _ in range(13):
        age(engine, 10)
        sweep(desk)
    waiting = [event.why for event in history(engine, job.id) if event.event == "waiting"]
    assert len(waiting) == 3, "after 15, 45 and 105 seconds"
    assert "no worker took it from the queue edge.fw1 since" in waiting[0]
    assert get(engine, job.id).state == "expired"


def test_times_that_cannot_be_are_refused(desk: Desk, client_of: ClientOf) -> None:
    for times, why in (
        ({"after": 0.0}, "after must be more than 0"),
        ({"every": 1.0}, "every must be at least 5 seconds"),
        ({"expires": float("nan")}, "expires must be more than 0"),
        ({"every": 60.0, "undo_after": 60.0}, "undo_after must be shorter than every"),
    ):
        with pytest.raises(NmsError, match=why):
            submit(desk, put(**times))
