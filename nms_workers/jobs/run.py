"""A job's run: claimed by state and turn, so no message can start it twice; it ends in one state with its result."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import msgspec
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import Connection, Engine, func, literal, select, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import OperationalError
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_random_exponential

from nms_workers.change import Change, FollowUp, kept_by
from nms_workers.errors import NmsError, Skipped, Timeout, Underway, Unreachable
from nms_workers.jobs.audit import tell
from nms_workers.jobs.desk import Desk
from nms_workers.jobs.ends import end
from nms_workers.jobs.follow_ups import write_all
from nms_workers.jobs.guards import refusal
from nms_workers.jobs.job import MAX_ATTEMPTS, Job, from_row, get
from nms_workers.jobs.turn import due, free, lock, next_up
from nms_workers.jobs.wish import Wish, action_of
from nms_workers.records import MAX_TEXT, Attributes
from nms_workers.service import Action, Client
from nms_workers.store.inventory import as_json
from nms_workers.store.schema import job_events, jobs
from nms_workers.transport.deadline import deadline

log = logging.getLogger(__name__)

LEASE_MARGIN = 15.0  # seconds a lease outlives the hard limit of a run
RETRY_SECONDS = (2.0, 10.0)  # after the first and the second attempt


def run(desk: Desk, job: Job, worker: str, client_of: Callable[[Job], Client]) -> Job:
    """Run a queued job to its end, if it is its turn. One that is running, or has ended, is left as it is.

    Args:
        client_of: gives the client of the job's target.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: PostgreSQL is away; the job runs later, when its lease ran out if it began.
    """
    declared = action_of(job.service, job.action)
    claimed = _claim(desk, job, declared, worker)
    if claimed is not None and claimed.state == "running":
        came_of_it = _attempt(desk.engine, declared, claimed, client_of)
        claimed = _finish(desk, claimed, worker, came_of_it)
    if claimed is None:
        return get(desk.engine, job.id)
    desk.send(next_up(desk.engine, claimed))
    return claimed


def _claim(desk: Desk, job: Job, declared: Action, worker: str) -> Job | None:
    """The job, running, or ended because it came too late or a guard refuses it; None when it is not its turn."""
    this = (jobs.c.id == job.id) & (jobs.c.state == "queued")
    with desk.engine.begin() as connection:
        lock(connection, job)
        if job.expires_at is not None:
            late = end(connection, this & overdue(), worker, state="expired", error=_late(job))
            if late:
                return late[0]
        row = connection.execute(
            update(jobs)
            .where(this, due(), free())
            .values(
                state="running",
                attempts=jobs.c.attempts + 1,
                claimed_at=func.clock_timestamp(),  # it may have waited for the lock
                leased_until=func.now() + timedelta(seconds=declared.deadline + LEASE_MARGIN),
                retry_at=None,
                worker=worker,
            )
            .returning(jobs)
        ).one_or_none()
        if row is None:
            # its message is spent: whatever it waits for sends another one
            connection.execute(update(jobs).where(this).values(published_at=None, resend_at=None))
            return None
        claimed = from_row(row)
        tell(connection, claimed.id, "claimed", worker, f"attempt {claimed.attempts} of {MAX_ATTEMPTS}")
        return _refused(desk, connection, claimed, declared) or claimed


def _refused(desk: Desk, connection: Connection, job: Job, declared: Action) -> Job | None:
    """Guards look again right before the run: what was allowed an hour ago may not be now."""
    try:
        why = refusal(connection, desk.settings, wish_of(job, declared), declared, declared.validate(job.arguments))
    except NmsError as exc:  # arguments that this version does not take; or what is protected is not known now
        why = str(exc)
    if why is None:
        return None
    return end(connection, jobs.c.id == job.id, "guard", state="refused", error=why)[0]


def wish_of(job: Job, declared: Action) -> Wish:
    """The wish a job was made from, confirmed if that was needed."""
    arguments = job.arguments | ({"confirm": job.target} if declared.confirm else {})
    return Wish(
        job.service,
        job.action,
        job.target,
        arguments,
        job.requested_by,
        job.reason,
        job.idempotency_key,
        job=job.id,
        undoes=job.undoes,
    )


def overdue() -> Any:
    """Not begun in time."""
    return jobs.c.expires_at <= func.now()


def _late(job: Job) -> str:
    return f"it was not begun by {job.expires_at:%Y-%m-%d %H:%M:%S} UTC"


@dataclass(frozen=True)
class _Outcome:
    """What came of an attempt: `values` for the job's row, and what the action asks for."""

    values: dict[str, Any]
    follow_ups: tuple[FollowUp, ...] = ()
    again: float | None = None  # seconds until the next run, where there is one


def _attempt(engine: Engine, declared: Action, job: Job, client_of: Callable[[Job], Client]) -> _Outcome:
    """Run the action."""
    limit = declared.deadline
    if job.expires_at is not None and job.claimed_at is not None:
        limit = min(limit, (job.expires_at - job.claimed_at).total_seconds())
    asked = set(job.asked or ())
    try:
        with deadline(limit), kept_by(partial(_keep, engine, job), asked):
            change = declared.run(client_of(job), **declared.validate(job.arguments))
        return _success(change)
    except Underway as exc:
        return _put_back(engine, declared, job, exc, asked)
    except NmsError as exc:
        return _retry_or_failure(declared, job, exc)
    except SoftTimeLimitExceeded:  # Celery's, for an action that does not look at the deadline
        return _failure(f"it did not end in its {declared.deadline:g} s")
    except Exception as exc:  # every fault ends the job in one state, with a line for people
        log.exception("job %s (%s on %s): a fault in the action", job.id, job.action, job.target)
        return _failure(f"a fault in the action: {type(exc).__name__}")


def _put_back(engine: Engine, declared: Action, job: Job, exc: Underway, asked: set[str]) -> _Outcome:
    """Another run, which is no new attempt. All runs together have the deadline of one, from the first claim on."""
    first = select(func.min(job_events.c.ts)).where(job_events.c.job_id == job.id, job_events.c.event == "claimed")
    since = func.extract("epoch", func.clock_timestamp() - first.scalar_subquery())
    with engine.connect() as connection:
        waited = connection.scalar(select(since)) or 0
    if waited >= declared.deadline:
        return _failure(f"{exc}, {waited:.0f} s after it was first asked for")
    values = {"state": "queued", "error": str(exc), "attempts": job.attempts - 1, "asked": sorted(asked)}
    return _Outcome(values, again=exc.again)


def _retry_or_failure(declared: Action, job: Job, exc: NmsError) -> _Outcome:
    if job.attempts < MAX_ATTEMPTS and _safe_to_retry(exc, declared):
        values = {"state": "queued", "error": str(exc), "asked": None}  # nobody knows whether it was heard
        return _Outcome(values, again=RETRY_SECONDS[job.attempts - 1])
    return _failure(str(exc))


def _safe_to_retry(exc: NmsError, declared: Action) -> bool:
    """Nothing was asked; or nobody knows how far it came, and twice is as once."""
    return isinstance(exc, Skipped) or (declared.idempotent and isinstance(exc, Unreachable | Timeout))


def _keep(engine: Engine, job: Job, before: Attributes) -> None:
    """What the first attempt found stays: what a later one finds may be the work of the first."""
    first = func.coalesce(jobs.c.before, literal(_plain(before), JSONB))
    mine = _mine(job) & (jobs.c.worker == job.worker)
    try:
        with engine.begin() as connection:
            kept = connection.execute(update(jobs).where(mine).values(before=first).returning(jobs.c.id)).one_or_none()
    except OperationalError as exc:
        raise Skipped("nothing was changed: PostgreSQL is away, so what is there now cannot be kept") from exc
    if kept is None:
        raise NmsError("nothing was changed: another worker has taken this job over")


def _success(change: Change) -> _Outcome:
    values: dict[str, Any] = {
        "state": "succeeded" if change.changed else "unchanged",
        "result": _plain({"changed": change.changed, "message": change.message}),
        "before": _plain(change.before),
        "after": _plain(change.after),
        "error": None,
    }
    if change.undo_after is not None:
        values["undo_after"] = func.least(jobs.c.undo_after, change.undo_after)  # of nothing and a number, the number
    return _Outcome(values, change.follow_ups)


def _mine(job: Job) -> Any:
    return (jobs.c.id == job.id) & (jobs.c.state == "running") & (jobs.c.attempts == job.attempts)


def _plain(attributes: Attributes) -> Attributes:
    """As `jsonb` takes it: a job that was done must not be done again because of what it says."""
    plain: Attributes = msgspec.json.decode(as_json(attributes))
    return plain


def _failure(error: str) -> _Outcome:
    return _Outcome({"state": "failed", "error": error[:MAX_TEXT].replace("\x00", "\N{REPLACEMENT CHARACTER}")})


@retry(
    retry=retry_if_exception_type(OperationalError),
    wait=wait_random_exponential(multiplier=0.2, max=5),
    stop=stop_after_delay(LEASE_MARGIN - 5),
    reraise=True,
)
def _finish(desk: Desk, job: Job, worker: str, outcome: _Outcome) -> Job:
    """Write what came of the attempt, unless somebody else took the job over when the lease had run out."""
    mine, values = _mine(job) & (jobs.c.worker == worker), outcome.values
    with desk.engine.begin() as connection:
        if values["state"] == "queued":
            pause = outcome.again or 0.0
            again = {"retry_at": func.now() + timedelta(seconds=pause), "leased_until": None, "published_at": None}
            found = connection.execute(update(jobs).where(mine).values(**again, **values).returning(jobs.c.id))
            if found.one_or_none() is not None:
                what = "put back" if values["asked"] else "retry"
                tell(connection, job.id, what, worker, f"in {pause:g} s: {values['error']}")
        else:
            kept = connection.scalar(select(jobs.c.before).where(mine))
            for ended in end(connection, mine, worker, **_as_a_whole(job, values, kept)):
                write_all(connection, desk.settings, ended, outcome.follow_ups)
        return from_row(connection.execute(select(jobs).where(jobs.c.id == job.id)).one())


def _as_a_whole(job: Job, values: dict[str, Any], kept: Attributes | None) -> dict[str, Any]:
    """What came of all attempts: when an earlier one was about to change the target, what is done now is its work."""
    if kept is None:
        return values
    done_before = values["state"] == "unchanged" and (job.attempts > 1 or job.asked)
    return values | {"before": kept} | ({"state": "succeeded"} if done_before else {})
