"""Taking back: by hand, by the clock, and when a later step of a plan fails. And the audit, which only grows."""

from itertools import pairwise
from pathlib import Path

import pytest
import redis
from sqlalchemy import Engine, text
from sqlalchemy.exc import ProgrammingError

from nms_workers.errors import ConfigError, NmsError, Refused
from nms_workers.jobs.audit import history
from nms_workers.jobs.desk import Desk
from nms_workers.jobs.job import Job, get, newest, of_plan
from nms_workers.jobs.people import cancel, undo
from nms_workers.jobs.plan import Plan, submit_plan
from nms_workers.jobs.preview import preview
from nms_workers.jobs.run import run
from nms_workers.jobs.submit import submit
from nms_workers.jobs.sweep import sweep
from nms_workers.jobs.wish import Wish
from tests.jobs.conftest import KEY, ClientOf, Published, age


def put(item: str = "apple", **times: float) -> Wish:
    return Wish("shelf", "put", "main", {"item": item}, requested_by="ada", **times)


def step(action: str, target: str = "main", **arguments: object) -> dict[str, object]:
    return {"service": "shelf", "action": action, "target": target, "arguments": arguments}


def plan(*steps: dict[str, object], **more: object) -> Plan:
    return Plan.model_validate({"name": "lunch", "steps": steps, **more})


def work(desk: Desk, published: Published, client_of: ClientOf) -> None:
    """Run whatever was published, as a worker does, until nothing more comes."""
    done = 0
    while done < len(published.jobs):
        run(desk, published.jobs[done], "host:1", client_of)
        done += 1


def told(engine: Engine, job: Job) -> list[str]:
    return [event.event for event in history(engine, job.id)]


def test_what_a_job_did_is_taken_back_with_its_arguments_and_what_was_before(
    engine: Engine, desk: Desk, client_of: ClientOf, red: "redis.Redis"
) -> None:
    done = run(desk, submit(desk, put("pear")), "host:1", client_of)
    back = undo(desk, done.id, "bob", "a mistake")
    assert (back.action, back.undoes, back.requested_by, back.reason) == ("take", done.id, "bob", "a mistake")
    assert back.arguments == {"item": "pear", "before": {"n": 0}}, "`times` is no argument of `take`"
    assert get(engine, done.id).undone_by == back.id
    assert undo(desk, done.id, "bob").id == back.id, "once is enough"
    assert run(desk, back, "host:1", client_of).state == "succeeded"
    assert red.llen(KEY) == 0
    assert told(engine, done) == ["submitted", "claimed", "succeeded", "to be undone", "undone"]

    forth = undo(desk, back.id, "bob")
    assert (forth.action, forth.arguments) == ("put", {"item": "pear", "times": 1})


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (put("broken"), "is failed: there is nothing to undo"),
        (Wish("shelf", "clear", "main", {"confirm": "main"}, "ada"), "is unchanged: there is nothing to undo"),
        (Wish("shelf", "fill", "main", {"item": "a"}, "ada"), "shelf fill cannot be undone"),
    ],
)
def test_what_cannot_be_taken_back_is_told(desk: Desk, client_of: ClientOf, asked: Wish, why: str) -> None:
    done = run(desk, submit(desk, asked), "host:1", client_of)
    with pytest.raises(Refused, match=why):
        undo(desk, done.id, "bob")


def test_an_undoing_that_failed_can_be_asked_for_again(engine: Engine, desk: Desk, client_of: ClientOf) -> None:
    done = run(desk, submit(desk, put()), "host:1", client_of)
    first = undo(desk, done.id, "bob")
    cancel(desk, first.id, "bob")
    second = undo(desk, done.id, "bob")
    assert second.id != first.id
    assert get(engine, done.id).undone_by == second.id
    assert told(engine, done)[-2:] == ["undo failed", "to be undone"]


def test_a_timed_undo_is_a_row_and_survives_everything_else(
    engine: Engine, desk: Desk, client_of: ClientOf, published: Published, red: "redis.Redis"
) -> None:
    done = run(desk, submit(desk, put(undo_after=600)), "host:1", client_of)
    back = newest(engine, 1)[0]
    assert (back.action, back.undoes, back.state) == ("take", done.id, "queued")
    age(engine, 590)
    assert sweep(desk) == 0
    age(engine, 11)
    assert sweep(desk) == 1
    assert run(desk, published.jobs[-1], "host:9", client_of).state == "succeeded"
    assert red.llen(KEY) == 0


def test_a_timed_undo_can_be_brought_forward(engine: Engine, desk: Desk, client_of: ClientOf) -> None:
    done = run(desk, submit(desk, put(undo_after=600)), "host:1", client_of)
    back = undo(desk, done.id, "bob")
    assert run(desk, back, "host:1", client_of).state == "succeeded"
    assert told(engine, back) == ["submitted", "brought forward", "claimed", "succeeded"]
    assert len(newest(engine)) == 2


def test_what_did_nothing_is_not_undone_later(engine: Engine, desk: Desk, client_of: ClientOf) -> None:
    run(desk, submit(desk, put("broken", undo_after=600)), "host:1", client_of)
    assert len(newest(engine)) == 1
    with pytest.raises(Refused, match="shelf fill cannot be undone"):
        submit(desk, Wish("shelf", "fill", "main", {"item": "a"}, "ada", undo_after=60))


def test_a_plan_runs_its_steps_in_order_across_targets(
    engine: Engine, desk: Desk, client_of: ClientOf, published: Published
) -> None:
    jobs = submit_plan(desk, plan(step("put", item="a"), step("put", "spare", item="b"), step("put", item="c")), "ada")
    assert [job.reason for job in jobs] == ["lunch, step 1", "lunch, step 2", "lunch, step 3"]
    assert [run(desk, job, "host:1", client_of).state for job in jobs[1:]] == ["queued", "queued"]
    work(desk, published, client_of)
    ended = of_plan(engine, jobs[0].plan)  # type: ignore[arg-type]
    assert [(job.step, job.state) for job in ended] == [(1, "succeeded"), (2, "succeeded"), (3, "succeeded")]
    assert all(a.finished_at <= b.claimed_at for a, b in pairwise(ended))  # type: ignore[operator]


def test_a_plan_that_fails_undoes_what_it_did_the_last_first(
    engine: Engine, desk: Desk, client_of: ClientOf, published: Published, red: "redis.Redis"
) -> None:
    steps = [step("put", item="a"), step("put", "spare", item="b"), step("fill", item="stays")]
    jobs = submit_plan(desk, plan(*steps, step("put", item="broken"), step("put", item="never")), "ada")
    work(desk, published, client_of)
    ended = of_plan(engine, jobs[0].plan)  # type: ignore[arg-type]
    states = [(job.step, job.action, job.state) for job in ended]
    assert states == [
        (1, "put", "succeeded"),
        (2, "put", "succeeded"),
        (3, "fill", "succeeded"),
        (4, "put", "failed"),
        (5, "put", "cancelled"),
        (2, "take", "succeeded"),
        (1, "take", "succeeded"),
    ]
    assert ended[4].error == "step 4 of its plan is failed"
    assert "not undone" in told(engine, ended[2]), "it declares no undo, and that is said"
    assert ended[5].finished_at <= ended[6].claimed_at  # type: ignore[operator]
    assert red.lrange(KEY, 0, -1) == [b'{"sample": ["stays", 1]}']


def test_cancelling_a_step_undoes_those_before(
    engine: Engine, desk: Desk, client_of: ClientOf, published: Published, red: "redis.Redis"
) -> None:
    jobs = submit_plan(desk, plan(step("put", item="a"), step("put", item="b")), "ada")
    run(desk, jobs[0], "host:1", client_of)
    cancel(desk, jobs[1].id, "bob")
    work(desk, published, client_of)
    assert [job.state for job in of_plan(engine, jobs[0].plan)] == ["succeeded", "cancelled", "succeeded"]  # type: ignore[arg-type]
    assert red.llen(KEY) == 0


def test_a_step_that_comes_too_late_fails_the_plan(engine: Engine, desk: Desk, client_of: ClientOf) -> None:
    jobs = submit_plan(desk, plan(step("put", item="a"), step("put", item="b"), expires="60s"), "ada")
    age(engine, 61)
    sweep(desk)
    assert {get(engine, job.id).state for job in jobs} <= {"expired", "cancelled"}


def test_a_plan_with_a_step_that_a_guard_refuses_does_nothing(
    engine: Engine, desk: Desk, client_of: ClientOf, published: Published
) -> None:
    jobs = submit_plan(desk, plan(step("put", item="a"), step("clear")), "ada")
    assert [job.state for job in jobs] == ["cancelled", "refused"]
    assert published.jobs == []


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("name = 'x'", "steps: Field required"),
        ("name = 'x'\nsteps = []", "at least 1"),
        ("name = ", "not TOML"),
        ("name = 'x'\n[[steps]]\nservice = 'shelf'\naction = 'put'\ntarget = 'main'\nwhen = 1", "when: Extra"),
    ],
)
def test_a_file_that_is_no_plan_is_told(tmp_path: Path, body: str, why: str) -> None:
    file = tmp_path / "plan.toml"
    file.write_text(body)
    with pytest.raises(ConfigError, match=why):
        Plan.load(file)
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        Plan.load(tmp_path / "none.toml")


def test_a_plan_with_a_step_that_cannot_be_leaves_no_row(engine: Engine, desk: Desk, client_of: ClientOf) -> None:
    for wrong in (step("put", item="a", colour="red"), step("burn"), step("put", "cellar", item="a")):
        with pytest.raises(NmsError):
            submit_plan(desk, plan(step("put", item="a"), wrong), "ada")
    assert newest(engine) == []


def test_a_dry_run_says_what_would_be_and_changes_nothing(
    engine: Engine, desk: Desk, client_of: ClientOf, published: Published, red: "redis.Redis"
) -> None:
    example = run(desk, submit(desk, put()), "host:1", client_of)
    seen = preview(desk, put("pear"), lambda: client_of(example))
    assert seen.refused is None
    assert seen.would is not None
    assert seen.would.message == "would lay down pear beside 1 others"
    assert seen.arguments == {"item": "pear", "times": 1}

    plain = preview(desk, Wish("shelf", "fill", "main", {"item": "a"}, "ada"), lambda: client_of(example))
    assert (plain.would, plain.arguments) == (None, {"item": "a", "box": None})
    refused = preview(desk, Wish("shelf", "clear", "main", {}, "ada"), lambda: client_of(example))
    assert refused.refused is not None
    assert "confirm=main" in refused.refused
    assert red.llen(KEY) == 1
    assert len(newest(engine)) == 1


@pytest.mark.parametrize(
    "statement", ["UPDATE job_events SET who = 'nobody'", "DELETE FROM job_events", "TRUNCATE job_events"]
)
def test_the_audit_can_only_grow(engine: Engine, desk: Desk, client_of: ClientOf, statement: str) -> None:
    job = submit(desk, put())
    with pytest.raises(ProgrammingError, match="job_events is an audit"), engine.begin() as connection:
        connection.execute(text(statement))
    assert told(engine, job) == ["submitted"]


def test_the_audit_says_who_when_and_why(engine: Engine, desk: Desk, client_of: ClientOf) -> None:
    job = submit(desk, Wish("shelf", "put", "main", {"item": "apple"}, "ada", reason="hungry"))
    run(desk, job, "host:1", client_of)
    lines = history(engine, job.id)
    assert [(line.event, line.who, line.why) for line in lines] == [
        ("submitted", "ada", "hungry"),
        ("claimed", "host:1", "attempt 1 of 3"),
        ("succeeded", "host:1", "laid down apple"),
    ]
    assert [line.ts for line in lines] == sorted(line.ts for line in lines)
    refused = submit(desk, Wish("shelf", "clear", "main", {}, "bob"))
    assert [(line.event, line.who) for line in history(engine, refused.id)] == [
        ("submitted", "bob"),
        ("refused", "guard"),
    ]
