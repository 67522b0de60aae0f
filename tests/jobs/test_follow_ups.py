"""What an action asks for when it is done: jobs of their own, written with its end, guarded, told, and taken back."""

import uuid
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from nms_workers.change import FollowUp
from nms_workers.jobs.audit import history
from nms_workers.jobs.desk import Desk
from nms_workers.jobs.follow_ups import DEEPEST, MOST, write_all
from nms_workers.jobs.job import Job, caused_by, get, newest
from nms_workers.jobs.people import again, undo
from nms_workers.jobs.plan import Plan, submit_plan
from nms_workers.jobs.preview import preview
from nms_workers.jobs.run import run
from nms_workers.jobs.submit import submit
from nms_workers.jobs.sweep import sweep
from nms_workers.jobs.wish import Wish
from nms_workers.service import Client
from nms_workers.settings import Settings
from tests.conftest import StartServer
from tests.jobs.conftest import ClientOf, Published, age
from tests.servers import Server

FREE, OTHER = "198.51.100.7", "203.0.113.9"


@pytest.fixture(autouse=True)
def _fence(monkeypatch: pytest.MonkeyPatch, database_url: str, redis_server: Server, fence: None) -> None:
    monkeypatch.setenv("NMS_DATABASE_URL", database_url)
    monkeypatch.setenv("NMS_REDIS_URL", redis_server.url)


@pytest.fixture
def client_of(fence_client_of: ClientOf) -> ClientOf:
    return fence_client_of


def ban(address: str, **more: Any) -> dict[str, Any]:
    return {"arguments": {"address": address}, **more}


def report(*then: dict[str, Any], **more: Any) -> Wish:
    return Wish("fence", "report", "gate", {"then": list(then)}, requested_by="ada", reason="an alert", **more)


def work(desk: Desk, published: Published, client_of: ClientOf) -> None:
    """Run whatever was published, as a worker does, until nothing more comes."""
    done = 0
    while done < len(published.jobs):
        run(desk, published.jobs[done], "host:1", client_of)
        done += 1


def told(engine: Engine, job: Job) -> list[tuple[str, str]]:
    return [(event.event, event.why) for event in history(engine, job.id)]


def test_what_is_asked_for_is_a_job_of_its_own(
    engine: Engine, desk: Desk, client_of: ClientOf, published: Published, book: Path
) -> None:
    evidence = {"signature": "GPL ATTACK"}
    parent = submit(desk, report(ban(FREE, evidence=evidence), ban(OTHER)))
    work(desk, published, client_of)
    first, second = caused_by(engine, parent.id)
    assert book.read_text().splitlines() == ["reported", f"banned {FREE}/32", f"banned {OTHER}/32"]
    assert (first.state, first.requested_by, first.caused_by) == ("succeeded", "ada", parent.id)
    assert first.evidence == evidence
    assert first.reason == f"follows from fence report, job {parent.id}"
    assert first.as_json()["evidence"]["signature"] == "GPL ATTACK"
    assert told(engine, parent)[3:] == [
        ("followed by", f"job {first.id}: fence ban on gate"),
        ("followed by", f"job {second.id}: fence ban on gate"),
        ("follow-up succeeded", f"job {first.id}: banned {FREE}/32"),
        ("follow-up succeeded", f"job {second.id}: banned {OTHER}/32"),
    ]
    (line,) = [why for event, why in told(engine, first) if event == "evidence"]
    assert '"signature":"GPL ATTACK"' in line
    assert "evidence" not in [event for event, _ in told(engine, second)]


def test_they_are_written_with_the_end_or_not_at_all(
    engine: Engine, desk: Desk, client_of: ClientOf, published: Published, book: Path
) -> None:
    """The worker that lost its job to another one asks for nothing; the one that ends it does, once."""
    job = submit(desk, report(ban(FREE)))

    def overtaken(claimed: Job) -> Client:
        age(engine, seconds=600)
        assert sweep(desk) == 1
        run(desk, claimed, "host:2", client_of)
        return client_of(claimed)

    run(desk, job, "host:1", overtaken)
    assert book.read_text().splitlines() == ["reported", "reported"], "both did it: it is as if done once"
    assert len(caused_by(engine, job.id)) == 1
    assert len(newest(engine)) == 2


def test_a_parent_that_ends_twice_has_them_once(
    engine: Engine, desk: Desk, client_of: ClientOf, published: Published
) -> None:
    """The key follows from the parent and the number, whatever leads to a second end."""
    parent = run(desk, submit(desk, report(ban(FREE))), "host:1", client_of)
    with engine.begin() as connection:
        write_all(connection, desk.settings, parent, [FollowUp("fence", "ban", "gate", {"address": FREE})])
    (only,) = caused_by(engine, parent.id)
    assert only.idempotency_key == f"follow-up 1 of {parent.id}"


def test_odd_characters_do_not_hurt_the_end_of_the_parent(engine: Engine, desk: Desk, client_of: ClientOf) -> None:
    parent = run(desk, submit(desk, report()), "host:1", client_of)
    odd = FollowUp("fence", "ban", "gate", {"address": FREE}, {"payload": "a\x00b", "number": float("nan")})
    with engine.begin() as connection:
        write_all(connection, desk.settings, parent, [odd, FollowUp("fence", "b\x00n", "ga\x00te", {})])
    (only,) = caused_by(engine, parent.id)
    assert only.evidence == {"payload": "a\N{REPLACEMENT CHARACTER}b", "number": None}
    assert told(engine, parent)[-1][0] == "not followed"


def test_long_evidence_is_cut_and_a_key_that_is_taken_is_told(engine: Engine, desk: Desk, client_of: ClientOf) -> None:
    parent = run(desk, submit(desk, report()), "host:1", client_of)
    keys = [f"follow-up {number} of {parent.id}" for number in (2, 3)]
    same, other = (
        submit(desk, Wish("fence", "ban", "gate", {"address": address}, "mallory", idempotency_key=key))
        for address, key in zip((OTHER, FREE), keys, strict=True)
    )
    long = FollowUp("fence", "ban", "gate", {"address": FREE}, {"payload": "x" * 300_000})
    taken = FollowUp("fence", "ban", "gate", {"address": OTHER})
    with engine.begin() as connection:
        write_all(connection, desk.settings, parent, [long, taken, taken])
    (only,) = caused_by(engine, parent.id)
    assert only.evidence is not None
    assert only.evidence["cut"].startswith('{"payload":"xxx')
    assert len(only.evidence["cut"]) < 20_000
    lines = told(engine, parent)
    assert ("followed by", f"job {same.id} had its idempotency key, and is the same") in lines
    assert f"names another job, {other.id}" in lines[-1][1]


def test_what_fails_asks_for_nothing(engine: Engine, desk: Desk, published: Published, client_of: ClientOf) -> None:
    def gone(_: Job) -> Client:
        raise PermissionError

    failed = run(desk, submit(desk, report(ban(FREE))), "host:1", gone)
    assert (failed.state, len(newest(engine))) == ("failed", 1)


def test_guards_look_at_them_as_at_any_other(
    engine: Engine, desk: Desk, client_of: ClientOf, published: Published, book: Path
) -> None:
    parent = submit(desk, report(ban("::ffff:127.0.0.1"), ban(FREE)))
    work(desk, published, client_of)
    refused, done = caused_by(engine, parent.id)
    assert (refused.state, done.state) == ("refused", "succeeded")
    assert "would cut off 127.0.0.0/8, loopback" in str(refused.error)
    assert [event for event, _ in told(engine, refused)] == ["submitted", "refused"]
    assert ("follow-up refused", f"job {refused.id}: {refused.error}") in told(engine, parent)
    assert book.read_text().splitlines() == ["reported", f"banned {FREE}/32"]
    assert get(engine, parent.id).state == "succeeded", "what it did itself is done"


def test_one_that_is_refused_right_before_its_run_is_told_to_both(
    engine: Engine, desk: Desk, client_of: ClientOf, published: Published
) -> None:
    parent = run(desk, submit(desk, report(ban(FREE))), "host:1", client_of)
    strict = Desk(engine, Settings.model_validate({"guards": {"deny": ["fence.ban"]}}), published)
    (follow_up,) = caused_by(engine, parent.id)
    assert run(strict, follow_up, "host:1", client_of).state == "refused"
    assert [event for event, _ in told(engine, parent)][-1] == "follow-up refused"


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"service": "gopher", "arguments": {}}, "gopher ban on gate: there is no service 'gopher'"),
        ({"action": "burn", "arguments": {}}, "fence has no action 'burn'"),
        (ban(FREE, target="cellar"), "there is no active fence target 'cellar'"),
        ({"arguments": {"addres": FREE}}, "address: Field required"),
        (ban("not-an-ip"), "not an address or network"),
        ({"action": "raze", "arguments": {}}, ""),
    ],
)
def test_one_that_cannot_be_is_told_and_the_others_are_done(  # noqa: PLR0917 - fixtures and parameters
    engine: Engine, desk: Desk, client_of: ClientOf, published: Published, wrong: dict[str, Any], why: str
) -> None:
    parent = submit(desk, report(wrong, ban(FREE)))
    work(desk, published, client_of)
    events = dict(told(engine, parent))
    assert why in events.get("not followed", "") or (not why and "confirm=gate" in events["follow-up refused"])
    assert [job.state for job in caused_by(engine, parent.id)][-1] == "succeeded"
    assert get(engine, parent.id).state == "succeeded"


def test_there_is_an_end_to_those_that_ask_for_themselves_and_to_their_number(
    engine: Engine, desk: Desk, client_of: ClientOf, published: Published, book: Path
) -> None:
    submit(desk, Wish("fence", "echo", "gate", {}, "ada"))
    work(desk, published, client_of)
    assert book.read_text().splitlines() == ["echo"] * (DEEPEST + 1)
    last = newest(engine, 1)[0]
    assert told(engine, last)[-1][0] == "not followed"

    many = submit(desk, report(*(ban(f"198.51.100.{n}") for n in range(MOST + 3))))
    run(desk, many, "host:1", client_of)
    assert len(caused_by(engine, many.id)) == MOST
    assert f"it asked for {MOST + 3} follow-ups" in told(engine, many)[-1][1]


def test_they_are_published_by_the_sweep_when_the_broker_is_away(
    engine: Engine, desk: Desk, client_of: ClientOf, published: Published
) -> None:
    parent = submit(desk, report(ban(FREE)))
    run(desk, parent, "host:1", client_of)
    (follow_up,) = caused_by(engine, parent.id)
    assert [job.id for job in published.jobs] == [parent.id, follow_up.id]
    with engine.begin() as connection:  # as if it had ended before the message went out
        connection.execute(text("UPDATE jobs SET published_at = NULL, resend_at = NULL"))
    assert sweep(desk) == 1
    assert published.jobs[-1].id == follow_up.id


def test_undoing_takes_back_what_followed_first_the_newest_first(
    engine: Engine, desk: Desk, client_of: ClientOf, published: Published, book: Path
) -> None:
    parent = submit(desk, report(ban(FREE), ban(OTHER)))
    work(desk, published, client_of)
    book.unlink()
    last = undo(desk, parent.id, "bob")
    assert (last.undoes, last.requested_by) == (parent.id, "bob")
    work(desk, published, client_of)
    assert book.read_text().splitlines() == [f"let {OTHER}/32 in", f"let {FREE}/32 in", "withdrawn"]
    assert get(engine, last.id).state == "succeeded"
    assert all(get(engine, job.undone_by).good for job in caused_by(engine, parent.id) if job.undone_by)


def test_undoing_calls_off_what_has_not_begun_and_undoes_what_runs_when_it_ends(
    engine: Engine, desk: Desk, client_of: ClientOf, published: Published, book: Path
) -> None:
    parent = run(desk, submit(desk, report(ban(FREE), ban(OTHER))), "host:1", client_of)
    running, waiting = caused_by(engine, parent.id)

    def meanwhile(job: Job) -> Client:
        undo(desk, parent.id, "bob")
        return client_of(job)

    run(desk, running, "host:1", meanwhile)
    age(engine, 1)
    sweep(desk)
    work(desk, published, client_of)
    assert get(engine, waiting.id).state == "cancelled"
    assert f"banned {OTHER}/32" not in book.read_text()
    assert get(engine, get(engine, running.id).undone_by or uuid.uuid4()).state == "succeeded"
    assert sorted(book.read_text().splitlines()[-2:]) == [f"let {FREE}/32 in", "withdrawn"]


def test_a_timed_undo_is_one_of_the_follow_ups_too(
    engine: Engine, desk: Desk, client_of: ClientOf, published: Published, book: Path
) -> None:
    submit(desk, report(ban(FREE), undo_after=600))
    work(desk, published, client_of)
    book.unlink()
    age(engine, 601)
    sweep(desk)
    work(desk, published, client_of)
    assert sorted(book.read_text().splitlines()) == [f"let {FREE}/32 in", "withdrawn"]


def test_a_plan_that_fails_undoes_what_followed_from_its_steps(
    engine: Engine, desk: Desk, client_of: ClientOf, published: Published, book: Path
) -> None:
    steps = [
        {"service": "fence", "action": "report", "target": "gate", "arguments": {"then": [ban(FREE)]}},
        {"service": "fence", "action": "lower", "target": "door", "arguments": {"by": 1, "fail": True}},
    ]
    submit_plan(desk, Plan.model_validate({"name": "isolate", "steps": steps}), "ada")
    for _ in range(3):  # the second step is tried three times
        work(desk, published, client_of)
        age(engine, 60)
        sweep(desk)
    work(desk, published, client_of)
    assert book.read_text().splitlines()[-2:] == [f"let {FREE}/32 in", "withdrawn"]


def test_a_follow_up_that_is_done_again_still_follows(
    engine: Engine, desk: Desk, client_of: ClientOf, published: Published
) -> None:
    parent = run(desk, submit(desk, report(ban(FREE))), "host:1", client_of)
    (follow_up,) = caused_by(engine, parent.id)

    def gone(_: Job) -> Client:
        raise PermissionError

    assert run(desk, follow_up, "host:1", gone).state == "failed"
    made = again(desk, follow_up.id, "bob")
    assert (made.caused_by, made.requested_by) == (parent.id, "bob")


def test_a_dry_run_says_what_would_follow(desk: Desk, engine: Engine, client_of: ClientOf) -> None:
    example = run(desk, submit(desk, report()), "host:1", client_of)
    wish = report(ban(FREE), ban("127.0.0.1"), ban(FREE, target="cellar"))
    seen = preview(desk, wish, lambda: client_of(example))
    fine, protected, nowhere = seen.as_json()["then"]
    assert (fine["action"], fine["arguments"], fine["refused"]) == ("ban", {"address": FREE}, None)
    assert "loopback" in protected["refused"]
    assert "no active fence target 'cellar'" in nowhere["refused"]
    assert newest(engine) == [example]


def test_what_was_before_the_first_attempt_is_what_an_undo_gives_back(
    engine: Engine, desk: Desk, client_of: ClientOf, published: Published, book: Path
) -> None:
    """A worker that died after its change: the one after it finds the change, and must not take it for the start."""
    job = submit(desk, Wish("fence", "lower", "gate", {"by": 3, "fail": True}, "ada"))
    run(desk, job, "host:1", client_of)
    assert (get(engine, job.id).state, get(engine, job.id).before) == ("queued", {"level": 10})
    with engine.begin() as connection:
        connection.execute(text("""UPDATE jobs SET arguments = '{"by": 0}'"""))  # nothing is left to lower
    age(engine, 60)
    ended = run(desk, job, "host:2", client_of)
    assert (ended.state, ended.before, ended.after) == ("succeeded", {"level": 10}, {"level": 7})
    undo(desk, job.id, "ada")
    work(desk, published, client_of)
    assert book.read_text().splitlines()[-1] == "level 10"


def test_what_is_there_cannot_be_kept_while_another_worker_has_the_job(
    engine: Engine, desk: Desk, client_of: ClientOf, book: Path
) -> None:
    job = submit(desk, Wish("fence", "lower", "gate", {"by": 3}, "ada"))

    def overtaken(claimed: Job) -> Client:
        age(engine, seconds=600)
        sweep(desk)
        return client_of(claimed)

    run(desk, job, "host:1", overtaken)
    assert get(engine, job.id).state == "queued"
    assert not book.exists(), "nothing was changed"


def test_nothing_is_changed_while_what_is_there_cannot_be_kept(  # noqa: PLR0917 - fixtures
    engine: Engine, desk: Desk, client_of: ClientOf, book: Path, session_server: StartServer, database_url: str
) -> None:
    """PostgreSQL goes away after the claim and before the change: the job is done when it is back, and only then."""
    job = submit(desk, Wish("fence", "lower", "gate", {"by": 3}, "ada"))
    name = database_url.rpartition("/")[2]
    with psycopg.connect(session_server("postgresql-18").url, autocommit=True) as admin:

        def away(claimed: Job) -> Client:
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            return client_of(claimed)

        with pytest.raises(OperationalError):
            run(desk, job, "host:1", away)
        assert not book.exists(), "nothing was changed"
        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    age(engine, 600)
    sweep(desk)
    assert run(desk, job, "host:2", client_of).state == "succeeded"
    assert book.read_text() == "level 7\n"
