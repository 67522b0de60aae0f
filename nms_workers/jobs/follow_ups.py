"""What an action asks for when it is done: jobs of their own, committed together with its end."""

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Connection, select

from nms_workers.change import FollowUp
from nms_workers.errors import NmsError
from nms_workers.jobs.audit import tell
from nms_workers.jobs.job import Job, new_id
from nms_workers.jobs.submit import write
from nms_workers.jobs.wish import Wish, action_of
from nms_workers.records import MAX_ATTRIBUTES, MAX_TEXT, Attributes
from nms_workers.settings import Settings
from nms_workers.store.inventory import as_json
from nms_workers.store.schema import jobs

MOST = 20  # follow-ups of one job
DEEPEST = 5  # jobs in a line, each a follow-up of the one before: two that ask for each other come to an end


def write_all(connection: Connection, settings: Settings, parent: Job, wanted: Sequence[FollowUp]) -> None:
    """Write the follow-ups of a job that ended well, in the transaction of its end. Each passes every guard.

    One that cannot be, or is refused, is told in the audit of `parent`; it does not hold up the others.
    """
    if wanted and _depth(connection, parent) >= DEEPEST:
        why = f"it is follow-up {DEEPEST} in a line: what it asks for is not done"
        tell(connection, parent.id, "not followed", parent.requested_by, why)
        return
    for number, one in enumerate(wanted[:MOST], start=1):
        wish = as_wish(one, parent.requested_by, f"follows from {parent.service} {parent.action}, job {parent.id}")
        try:
            wish = _of_parent(wish, parent, number)
            job = write(connection, settings, wish, new_id(), caused_by=parent.id, evidence=_bounded(one.evidence))
            if job.caused_by != parent.id:
                why = f"job {job.id} had its idempotency key, and is the same"
                tell(connection, parent.id, "followed by", parent.requested_by, why)
        except NmsError as exc:  # no such service, action or target; arguments that do not fit
            what = f"{one.service} {one.action} on {one.target}"
            tell(connection, parent.id, "not followed", parent.requested_by, f"{what}: {exc}")
    if len(wanted) > MOST:
        why = f"it asked for {len(wanted)} follow-ups: those after the first {MOST} are not done"
        tell(connection, parent.id, "not followed", parent.requested_by, why)


def as_wish(one: FollowUp, requested_by: str, reason: str) -> Wish:
    """The wish of a follow-up. It is still the wish of whoever asked for the job that it follows from."""
    return Wish(one.service, one.action, one.target, one.arguments, requested_by, reason)


def _of_parent(wish: Wish, parent: Job, number: int) -> Wish:
    """The same key whenever the parent ends; and undone by the clock if that is."""
    undone = parent.undo_after if action_of(wish.service, wish.action).undo else None
    return replace(wish, idempotency_key=f"follow-up {number} of {parent.id}", undo_after=undone)


def _bounded(evidence: Attributes) -> Attributes:
    """What is too long is no reason to leave a follow-up undone: its beginning is kept."""
    text = as_json(evidence)
    return evidence if len(text) <= MAX_ATTRIBUTES else {"cut": text[:MAX_TEXT]}


def _depth(connection: Connection, job: Job) -> int:
    """How many jobs, one after the other, led to this one."""
    depth, cause = 0, job.caused_by
    while cause is not None and depth < DEEPEST:
        depth += 1
        cause = connection.scalar(select(jobs.c.caused_by).where(jobs.c.id == cause))
    return depth
