"""The end of a job and what follows from it, in one transaction: its undoing, its next time, the rest of its plan."""

import math
from datetime import timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection, func, select, update
from sqlalchemy.sql.elements import ColumnElement

from nms_workers.change import PROPOSED, Proposal
from nms_workers.fleet.proposals import propose
from nms_workers.jobs.audit import tell
from nms_workers.jobs.job import Job, from_row, new_id
from nms_workers.jobs.row import add
from nms_workers.jobs.undo import TakenBack, add_undo
from nms_workers.jobs.wish import Wish
from nms_workers.store.schema import jobs


def end(
    connection: Connection, which: ColumnElement[bool], who: str, *, skip_locked: bool = False, **values: Any
) -> list[Job]:
    """Bring jobs to their end.

    Args:
        which: of the jobs; those that have ended already must not be among them.
        who: for the audit.
        skip_locked: leave those that somebody else is about to change.
        values: `state`, and what else is known: `error`, `result`, `before`, `after`.
    """
    locked = select(jobs.c.id).where(which).order_by(jobs.c.id).with_for_update(skip_locked=skip_locked)
    rows = connection.execute(
        update(jobs)
        .where(jobs.c.id.in_(locked.scalar_subquery()))
        .values(finished_at=func.now(), leased_until=None, retry_at=None, **values)
        .returning(jobs)
    ).all()
    ended = [from_row(row) for row in rows]
    for job in ended:
        tell(connection, job.id, job.state, who, _said(job))
        _go_further(connection, job, who)
    return ended


def _go_further(connection: Connection, job: Job, who: str) -> None:
    if job.caused_by is not None:
        tell(connection, job.caused_by, f"follow-up {job.state}", who, f"job {job.id}: {_said(job)}")
    if job.good and (found := (job.after or {}).get(PROPOSED)):
        entered = propose(connection, job.service, "discovery", msgspec.convert(found, list[Proposal]))
        tell(connection, job.id, "proposed", who, str(entered))
    if job.undoes is not None:
        tell(connection, job.undoes, "undone" if job.good else "undo failed", who, f"job {job.id}: {job.state}")
    if job.undo_after is not None and job.took_effect:
        add_undo(connection, job, f"{job.undo_after:g} s are over", after=job.undo_after)
    if job.every is not None and job.state != "cancelled":
        _repeat(connection, job, job.every)
    if job.plan is not None:
        _go_on(connection, job, who)


def _said(job: Job) -> str:
    return job.error or (job.result or {}).get("message", "")


def _repeat(connection: Connection, job: Job, every: float) -> None:
    """The next time is a job of its own. What was missed, because nothing ran, is not made up for."""
    assert job.due_at is not None  # only a step of a plan has none, and no step repeats  # noqa: S101
    assert job.finished_at is not None  # noqa: S101
    passed = (job.finished_at - job.due_at).total_seconds()
    due_at = job.due_at + timedelta(seconds=every * (max(0, math.floor(passed / every)) + 1))
    expires = None if job.expires_at is None else (job.expires_at - job.due_at).total_seconds()
    wish = Wish(
        job.service,
        job.action,
        job.target,
        job.arguments,
        job.requested_by,
        job.reason,
        every=every,
        undo_after=job.undo_after,
    )
    add(
        connection,
        wish,
        job.arguments,
        new_id(),
        due_at=due_at,
        expires_at=None if expires is None else due_at + timedelta(seconds=expires),
        repeats=job.repeats or job.id,
    )


def _go_on(connection: Connection, job: Job, who: str) -> None:
    if job.good or job.undoes is not None:
        connection.execute(
            update(jobs)
            .where(jobs.c.follows == job.id, jobs.c.state == "queued", jobs.c.due_at.is_(None))
            .values(due_at=func.now())
        )
        return
    why = f"step {job.step} of its plan is {job.state}"
    rows = connection.execute(
        update(jobs)
        .where(jobs.c.plan == job.plan, jobs.c.state == "queued", jobs.c.undoes.is_(None))
        .values(state="cancelled", finished_at=func.now(), error=why)
        .returning(jobs.c.id)
    )
    for (job_id,) in rows.all():
        tell(connection, job_id, "cancelled", who, why)
    _roll_back(connection, job, why)


def _roll_back(connection: Connection, failed: Job, why: str) -> None:
    """Undo the steps that were done, the last one first, one after the other."""
    steps = select(jobs).where(jobs.c.plan == failed.plan, jobs.c.undoes.is_(None)).order_by(jobs.c.step.desc())
    back = TakenBack()
    for row in connection.execute(steps).all():
        step = from_row(row)
        back.take_back(connection, step, step.requested_by, why, plan=step.plan, step=step.step)
