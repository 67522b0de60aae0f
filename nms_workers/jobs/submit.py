"""From a wish to a committed job: the row first, then the message.

The row is its own outbox. A message is sent after the commit, so what was published exists; `published_at` and
`resend_at` say until when its message is trusted, so what was committed is published again until somebody took it
(`jobs/sweep.py`). A table beside it would hold the same two facts a second time and could disagree.
"""

import uuid
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, select

from nms_workers.errors import NmsError, Refused
from nms_workers.jobs.desk import Desk
from nms_workers.jobs.ends import end
from nms_workers.jobs.guards import refusal
from nms_workers.jobs.job import Job, from_row, new_id
from nms_workers.jobs.row import about_to_be_sent, add
from nms_workers.jobs.wish import Wish, action_of, checked
from nms_workers.settings import Settings
from nms_workers.store.schema import jobs, targets


def submit(desk: Desk, wish: Wish, **columns: Any) -> Job:
    """Commit a job and publish it. `columns` go over those that follow from the wish.

    Returns:
        the job: queued, refused by a guard, or the earlier one of the same idempotency key.

    Raises:
        Refused: the arguments do not fit the action, or the key was used for another wish.
        ConfigError, NmsError: no such service, action or target.
    """
    job = record(desk, wish, new_id(), **columns)
    if job.state == "queued" and wish.after is None:
        desk.send([job])
    return job


def record(desk: Desk, wish: Wish, job_id: uuid.UUID, **columns: Any) -> Job:
    """Commit the row of a wish, or find the one there is. Raises as `submit` does."""
    sent = {} if wish.after is not None else about_to_be_sent()
    with desk.engine.begin() as connection:
        return write(connection, desk.settings, wish, job_id, **sent, **columns)


def write(connection: Connection, settings: Settings, wish: Wish, job_id: uuid.UUID, **columns: Any) -> Job:
    """Write the row of a wish in the caller's transaction, or find the one there is. Raises as `submit` does."""
    declared = action_of(wish.service, wish.action)
    typed, arguments = checked(wish, declared)
    require_target(connection, wish.service, wish.target)
    if (job := _earlier(connection, wish, arguments, job_id)) is not None:
        return job
    why = refusal(connection, settings, wish, declared, typed)
    made = add(connection, wish, arguments, job_id, **columns)
    if made is not None:
        return made if why is None else refuse(connection, made, why)
    found = _earlier(connection, wish, arguments, job_id)
    assert found is not None  # it was in the way  # noqa: S101
    return found


def require_target(connection: Connection, service: str, name: str) -> None:
    """Raises:
    NmsError: there is no active target of this name.
    """
    active = (targets.c.service == service) & (targets.c.name == name) & (targets.c.state == "active")
    if connection.scalar(select(targets.c.id).where(active)) is None:
        raise NmsError(f"there is no active {service} target {name!r}", hint="see `nms-workers targets`")


def refuse(connection: Connection, job: Job, why: str) -> Job:
    """End a job that was just added and that a guard refuses: it is not repeated."""
    (ended,) = end(connection, jobs.c.id == job.id, "guard", state="refused", error=why, every=None)
    return ended


def _earlier(connection: Connection, wish: Wish, arguments: Mapping[str, Any], job_id: uuid.UUID) -> Job | None:
    """The job of the same id or idempotency key."""
    same = jobs.c.id == job_id
    if wish.idempotency_key is not None:
        same |= jobs.c.idempotency_key == wish.idempotency_key
    row = connection.execute(select(jobs).where(same)).one_or_none()
    if row is None:
        return None
    job = from_row(row)
    wanted = (wish.service, wish.action, wish.target, arguments)
    if (job.service, job.action, job.target, job.arguments) != wanted:
        raise Refused(
            f"the idempotency key {wish.idempotency_key!r} names another job, {job.id}", hint="use a key of its own"
        )
    return job
