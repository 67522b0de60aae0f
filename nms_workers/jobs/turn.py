"""Whose turn it is. Changes of one target run one at a time and in the order they became due.

A job with a lane only waits for those of its lane, and for those that have none: they cross every lane. What decides
is taken under a lock on the target, in PostgreSQL; a unique index keeps two of one lane from running whatever happens.
"""

from sqlalchemy import Connection, Engine, and_, func, or_, select, tuple_, update
from sqlalchemy.sql.elements import ColumnElement

from nms_workers.jobs.job import MAX_ATTEMPTS, Job, from_row
from nms_workers.jobs.row import about_to_be_sent
from nms_workers.store.schema import jobs

_AT_ONCE = 20  # jobs of other lanes that one end sets free; the sweep sends the rest

_other = jobs.alias("other")


def lock(connection: Connection, job: Job) -> None:
    """Nobody else decides about this target until the transaction ends."""
    key = func.hashtextextended(f"nms-workers jobs {job.service}/{job.target}", 0)
    connection.execute(select(func.pg_advisory_xact_lock(key)))


def due() -> ColumnElement[bool]:
    """Queued, and its time has come."""
    return and_(
        jobs.c.state == "queued",
        jobs.c.due_at <= func.now(),
        or_(jobs.c.retry_at.is_(None), jobs.c.retry_at <= func.now()),
        jobs.c.attempts < MAX_ATTEMPTS,
    )


def free() -> ColumnElement[bool]:
    """Nothing that comes before it, on its target and lane, is running or queued."""
    earlier = tuple_(_other.c.due_at, _other.c.id) < tuple_(jobs.c.due_at, jobs.c.id)
    return ~(
        select(1)
        .where(
            _other.c.service == jobs.c.service,
            _other.c.target == jobs.c.target,
            _other.c.id != jobs.c.id,
            or_(_other.c.lane.is_(None), jobs.c.lane.is_(None), _other.c.lane == jobs.c.lane),
            or_(_other.c.state == "running", and_(_other.c.state == "queued", earlier)),
        )
        .exists()
    )


def next_up(engine: Engine, job: Job) -> list[Job]:
    """The jobs that this one's end sets free and that no message tells of; the caller publishes them."""
    with engine.begin() as connection:
        lock(connection, job)
        waits = and_(jobs.c.service == job.service, jobs.c.target == job.target) | (jobs.c.caused_by == job.id)
        if job.plan is not None:
            waits |= jobs.c.plan == job.plan
        ready = select(jobs.c.id).where(waits, due(), free(), jobs.c.published_at.is_(None))
        ready = ready.order_by(jobs.c.due_at, jobs.c.id).limit(_AT_ONCE).with_for_update(skip_locked=True)
        rows = connection.execute(
            update(jobs).where(jobs.c.id.in_(ready.scalar_subquery())).values(about_to_be_sent()).returning(jobs)
        )
        return [from_row(row) for row in rows]
