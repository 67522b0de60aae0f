"""What people do with jobs that are there: call one off, take back what it did, have one done again."""

import uuid
from dataclasses import replace
from typing import Any

from sqlalchemy import func, select, update

from nms_workers.errors import Refused
from nms_workers.jobs.audit import tell
from nms_workers.jobs.desk import Desk
from nms_workers.jobs.ends import end
from nms_workers.jobs.job import Job, caused_by, from_row, get, new_id
from nms_workers.jobs.row import about_to_be_sent
from nms_workers.jobs.run import wish_of
from nms_workers.jobs.submit import submit
from nms_workers.jobs.turn import next_up
from nms_workers.jobs.undo import TakenBack, wish_to_undo
from nms_workers.jobs.wish import action_of
from nms_workers.store.schema import jobs


def cancel(desk: Desk, job_id: uuid.UUID, requested_by: str, reason: str = "") -> Job:
    """Take a job out of the queue. Any job of a recurring one stands for all: none comes after it.

    A job that runs is not cut off, since a target half changed is worse than one that can be changed back.

    Returns:
        the job that was cancelled; for a recurring one that is the one that was to come next.

    Raises:
        NmsError: there is no such job.
        Refused: it runs, or has ended.
    """
    job = get(desk.engine, job_id)
    this = jobs.c.id == job.id
    if job.every is not None:
        first = job.repeats or job.id
        this = (jobs.c.id == first) | (jobs.c.repeats == first)
    with desk.engine.begin() as connection:
        ended = end(
            connection, this & (jobs.c.state == "queued"), requested_by, state="cancelled", error=reason or None
        )
        if not ended:
            stopped = update(jobs).where(this, jobs.c.state == "running", jobs.c.every.is_not(None)).values(every=None)
            for (running,) in connection.execute(stopped.returning(jobs.c.id)).all():
                tell(connection, running, "not repeated", requested_by, reason)
    if not ended:
        job = get(desk.engine, job_id)
        hint = "when it has ended, `nms-workers jobs undo` takes it back" if job.state == "running" else ""
        raise Refused(f"job {job.id} is {job.state}: it cannot be cancelled", hint=hint)
    for one in ended:
        desk.send(next_up(desk.engine, one))
    return ended[-1]


def undo(desk: Desk, job_id: uuid.UUID, requested_by: str, reason: str = "") -> Job:
    """Take back what a job did, now. An undoing that waits for its time is brought forward; one that is done stays.

    What followed from the job is taken back before it, the newest first.

    Returns:
        the job that does it; of several the one that comes last.

    Raises:
        NmsError: there is no such job.
        Refused: it changed nothing, is not done yet, or its action cannot be undone.
    """
    job = get(desk.engine, job_id)
    if caused_by(desk.engine, job.id):
        return _undo_all(desk, job, requested_by, reason or f"undoes {job.id} and what followed from it")
    if not job.took_effect:
        hint = "`nms-workers jobs cancel` takes it out of the queue" if job.state == "queued" else ""
        raise Refused(f"job {job.id} is {job.state}: there is nothing to undo", hint=hint)
    earlier = None if job.undone_by is None else get(desk.engine, job.undone_by)
    if earlier is not None and (earlier.good or not earlier.done):
        return _bring_forward(desk, earlier, requested_by)
    return submit(desk, wish_to_undo(job, requested_by, reason or f"undoes {job.id}"))


def _undo_all(desk: Desk, job: Job, requested_by: str, reason: str) -> Job:
    back = TakenBack()
    with desk.engine.begin() as connection:
        back.take_back(connection, job, requested_by, reason, plan=new_id())
    for undoing in (*back.added[:1], *back.hastened):
        desk.send(next_up(desk.engine, undoing))
    if not (back.added or back.hastened):
        hint = "`nms-workers jobs show` says what became of them"
        raise Refused(f"neither job {job.id} nor what followed from it can be undone", hint=hint)
    return (back.added or back.hastened)[-1]


def again(desk: Desk, job_id: uuid.UUID, requested_by: str, reason: str = "") -> Job:
    """Have a job that did not succeed done again, as a new job.

    Raises:
        NmsError: there is no such job.
        Refused: it has not ended, or it succeeded.
    """
    job = get(desk.engine, job_id)
    if not job.done or job.good:
        raise Refused(f"job {job.id} is {job.state}: there is nothing to do again")
    wish = wish_of(job, action_of(job.service, job.action))
    if job.state == "refused":  # maybe because nobody confirmed it
        wish = replace(wish, arguments=job.arguments)
    anew: dict[str, Any] = {"idempotency_key": None, "job": None, "undo_after": job.undo_after}
    cause = {} if job.caused_by is None else {"caused_by": job.caused_by, "evidence": job.evidence}
    wish = replace(wish, requested_by=requested_by, reason=reason or f"again, after {job.id}", **anew)
    made = submit(desk, wish, **cause)
    with desk.engine.begin() as connection:
        tell(connection, job.id, "done again", requested_by, f"as job {made.id}")
    return made


def _bring_forward(desk: Desk, undoing: Job, requested_by: str) -> Job:
    with desk.engine.begin() as connection:
        waits = (jobs.c.id == undoing.id) & (jobs.c.state == "queued") & (jobs.c.due_at > func.now())
        row = connection.execute(
            update(jobs).where(waits).values(due_at=func.now(), **about_to_be_sent()).returning(jobs)
        ).one_or_none()
        if row is None:
            return from_row(connection.execute(select(jobs).where(jobs.c.id == undoing.id)).one())
        tell(connection, undoing.id, "brought forward", requested_by)
    desk.send([from_row(row)])
    return from_row(row)
