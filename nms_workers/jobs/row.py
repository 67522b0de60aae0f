"""From a wish to the row of its job, inside the caller's transaction."""

import uuid
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection, func, select, update
from sqlalchemy.dialects.postgresql import insert

from nms_workers.jobs.audit import tell
from nms_workers.jobs.job import Job, from_row
from nms_workers.jobs.wish import Wish, action_of
from nms_workers.records import MAX_TEXT
from nms_workers.store.inventory import as_json
from nms_workers.store.schema import jobs, targets

UNHEARD = timedelta(seconds=15)  # a message that nobody took for so long is sent again: it does not matter if twice


def add(
    connection: Connection, wish: Wish, arguments: Mapping[str, Any], job_id: uuid.UUID, **columns: Any
) -> Job | None:
    """Insert the job of a wish and its first line of audit; None when its id or idempotency key is taken.

    Args:
        arguments: checked, as JSON.
        columns: over those that follow from the wish.
    """
    declared = action_of(wish.service, wish.action)
    target = connection.execute(
        select(targets.c.id, targets.c.worker).where(targets.c.service == wish.service, targets.c.name == wish.target)
    ).one_or_none()
    due_at = func.now() + timedelta(seconds=wish.after or 0)
    values: dict[str, Any] = {
        "id": job_id,
        "service": wish.service,
        "action": wish.action,
        "target_id": target.id if target else None,
        "target": wish.target,
        "arguments": dict(arguments),
        "requested_by": wish.requested_by,
        "reason": wish.reason,
        "idempotency_key": wish.idempotency_key,
        "state": "queued",
        "due_at": due_at,
        "expires_at": None if wish.expires is None else due_at + timedelta(seconds=wish.expires),
        "lane": _lane(declared.serialize_by, arguments),
        "edge": target.worker if target and declared.runs_at == "edge" else None,
        "every": wish.every,
        "undo_after": wish.undo_after,
        "undoes": wish.undoes,
        **columns,
    }
    if values.get("evidence") is not None:
        values["evidence"] = msgspec.json.decode(as_json(values["evidence"]))
    row = connection.execute(insert(jobs).values(values).on_conflict_do_nothing().returning(jobs)).one_or_none()
    if row is None:
        return None
    job = from_row(row)
    tell(connection, job.id, "submitted", job.requested_by, job.reason)
    if job.caused_by is not None:
        what = f"{job.service} {job.action} on {job.target}"
        tell(connection, job.caused_by, "followed by", job.requested_by, f"job {job.id}: {what}")
        if job.evidence:
            tell(connection, job.id, "evidence", job.requested_by, as_json(job.evidence)[:MAX_TEXT])
    if job.undoes is not None:
        connection.execute(update(jobs).where(jobs.c.id == job.undoes).values(undone_by=job.id))
        tell(connection, job.undoes, "to be undone", job.requested_by, f"by job {job.id}: {job.reason}")
    return job


def about_to_be_sent() -> dict[str, Any]:
    """The columns of a job whose message the caller sends as soon as it has committed."""
    return {"published_at": func.now(), "resend_at": func.now() + UNHEARD}


def _lane(argument: str | None, arguments: Mapping[str, Any]) -> str | None:
    if argument is None or arguments.get(argument) is None or _is_id(arguments[argument]):
        return None
    return f"{argument}={msgspec.json.encode(arguments[argument], order='sorted').decode()}"


def _is_id(value: object) -> bool:
    try:
        return bool(uuid.UUID(str(value)))
    except ValueError:
        return False
