"""Taking back what a job did: the action that its own declares, with its arguments and what was there before."""

from sqlalchemy import Connection

from nms_workers.errors import NmsError, Refused
from nms_workers.jobs.audit import tell
from nms_workers.jobs.job import Job, new_id
from nms_workers.jobs.row import add
from nms_workers.jobs.wish import Wish, action_of, checked


def wish_to_undo(job: Job, requested_by: str, reason: str, after: float | None = None) -> Wish:
    """The wish that takes a job back.

    Raises:
        Refused: its action declares no undo.
    """
    declared = action_of(job.service, job.action)
    if declared.undo is None:
        raise Refused(f"{job.service} {job.action} cannot be undone")
    back = action_of(job.service, declared.undo)
    takes = back.arguments.model_fields
    arguments: dict[str, object] = {name: value for name, value in job.arguments.items() if name in takes}
    if "before" in takes:
        arguments["before"] = job.before or {}
    if back.confirm:
        arguments["confirm"] = job.target  # who wants this very job undone has said which target
    return Wish(
        service=job.service,
        action=declared.undo,
        target=job.target,
        arguments=arguments,
        requested_by=requested_by,
        reason=reason,
        after=after,
        undoes=job.id,
    )


def add_undo(
    connection: Connection, job: Job, reason: str, after: float | None = None, **columns: object
) -> Job | None:
    """Insert the job that takes this one back, in the transaction that found it has to be. None: it cannot be."""
    try:
        wish = wish_to_undo(job, job.requested_by, reason, after)
        _, arguments = checked(wish, action_of(wish.service, wish.action))
    except NmsError as exc:
        tell(connection, job.id, "not undone", job.requested_by, str(exc))
        return None
    return add(connection, wish, arguments, new_id(), **columns)
