"""What keeps jobs from being forgotten: due ones are published, unheard ones again, and those of dead workers end.

Called every few seconds by beat. Everything it looks at is in PostgreSQL, so it survives whatever else is lost.
"""

import uuid
from datetime import timedelta

from sqlalchemy import Connection, func, or_, select, text, update

from nms_workers.errors import NmsError
from nms_workers.jobs.audit import tell
from nms_workers.jobs.desk import Desk
from nms_workers.jobs.ends import end
from nms_workers.jobs.job import MAX_ATTEMPTS, Job, from_row
from nms_workers.jobs.row import UNHEARD
from nms_workers.jobs.run import overdue
from nms_workers.jobs.turn import due, free
from nms_workers.jobs.wish import action_of
from nms_workers.store.schema import jobs

SWEPT_AT_ONCE = 500
LONGEST_SILENCE = timedelta(minutes=30)
WHO = "sweep"


def end_lease(desk: Desk, job_id: uuid.UUID, worker: str) -> None:
    """The process that ran this job died: the next sweep need not wait until its lease runs out."""
    with desk.engine.begin() as connection:
        connection.execute(
            update(jobs)
            .where(jobs.c.id == job_id, jobs.c.state == "running", jobs.c.worker == worker)
            .values(leased_until=func.now() - timedelta(seconds=1))
        )


def sweep(desk: Desk) -> int:
    """End what came too late or died too often, and publish what is due and has no message that can be trusted.

    Returns:
        how many jobs were published, `SWEPT_AT_ONCE` at most; the next sweep goes on.

    Raises:
        kombu.exceptions.OperationalError: the broker is away; a later sweep publishes the rest.
    """
    with desk.engine.begin() as connection:
        late = (jobs.c.state == "queued") & overdue()
        end(connection, late, WHO, skip_locked=True, state="expired", error="it was not begun in time")
        _take_back(connection)
        ready = _ready(connection)
    for job in ready:
        desk.publish(job)
    return len(ready)


def _take_back(connection: Connection) -> None:
    """A running job whose lease ran out has lost its worker."""
    left = (jobs.c.state == "running") & (jobs.c.leased_until < func.now())
    rows = connection.execute(select(jobs).where(left).limit(SWEPT_AT_ONCE).with_for_update(skip_locked=True)).all()
    for job in map(from_row, rows):
        this = jobs.c.id == job.id
        if why := _given_up(job):
            end(connection, this, WHO, state="failed", error=why)
            continue
        queued = {"state": "queued", "leased_until": None, "published_at": None, "resend_at": None}
        connection.execute(update(jobs).where(this).values(queued))
        tell(connection, job.id, "left", WHO, f"{job.worker} died or took too long; it runs again")


def _given_up(job: Job) -> str:
    try:
        idempotent = action_of(job.service, job.action).idempotent
    except NmsError as exc:
        return str(exc)
    if job.attempts >= MAX_ATTEMPTS:
        return f"its worker died or took too long, {job.attempts} times"
    if not idempotent:
        return "its worker died or took too long; whether it was done is not known, and it cannot safely be done twice"
    return ""


def _ready(connection: Connection) -> list[Job]:
    """The jobs to publish. Each time nobody took one, its message is given twice the time: a queue may just be long."""
    unheard = or_(jobs.c.published_at.is_(None), jobs.c.resend_at.is_(None), jobs.c.resend_at < func.now())
    found = select(jobs.c.id, jobs.c.published_at).where(due(), free(), unheard)
    found = found.order_by(jobs.c.due_at, jobs.c.id).limit(SWEPT_AT_ONCE).with_for_update(skip_locked=True)
    before = {row.id: row.published_at for row in connection.execute(found)}
    gap = func.coalesce(jobs.c.resend_at - jobs.c.published_at, text("interval '0'"))
    rows = connection.execute(
        update(jobs)
        .where(jobs.c.id.in_(before))
        .values(
            published_at=func.now(),
            resend_at=func.now() + func.least(func.greatest(gap + gap, UNHEARD), LONGEST_SILENCE),
        )
        .returning(jobs)
    )
    ready = sorted(map(from_row, rows), key=lambda job: (job.due_at, job.id))
    for job in ready:
        if before[job.id] is not None:
            why = f"no worker took it from the queue {job.queue} since {before[job.id]:%H:%M:%S} UTC; is one running?"
            tell(connection, job.id, "waiting", WHO, why)
    return ready
