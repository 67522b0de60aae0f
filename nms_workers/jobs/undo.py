"""Taking back what a job did: the action that its own declares, with its arguments and what was there before."""

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, func, select, update

from nms_workers.errors import NmsError, Refused
from nms_workers.jobs.audit import tell
from nms_workers.jobs.job import Job, from_row, new_id
from nms_workers.jobs.row import add
from nms_workers.jobs.wish import Wish, action_of, checked
from nms_workers.store.schema import jobs

AT_ONCE = 0.001  # seconds


def wish_to_undo(job: Job, requested_by: str, reason: str, after: float | None = None) -> Wish:
    """The wish that takes a job back.

    Raises:
        Refused: its action declares no undo; or it would destroy, or put back, what may not be this job's doing.
    """
    declared = action_of(job.service, job.action)
    if declared.undo is None:
        raise Refused(f"{job.service} {job.action} cannot be undone")
    back = action_of(job.service, declared.undo)
    takes = back.arguments.model_fields
    if job.state == "unchanged" and (back.confirm or {"before", "after"} & takes.keys()):
        why = f"job {job.id} found nothing to do when it ran again: whether it was its own doing is not known"
        raise Refused(why, hint="look at the target, and put back by hand what is to be put back")
    arguments: dict[str, object] = {name: value for name, value in job.arguments.items() if name in takes}
    arguments |= {name: getattr(job, name) or {} for name in ("before", "after") if name in takes}
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
    connection: Connection,
    job: Job,
    reason: str,
    *,
    requested_by: str = "",
    after: float | None = None,
    **columns: Any,
) -> Job | None:
    """Insert the job that takes this one back, in the transaction that found it has to be. None: it cannot be.

    Args:
        requested_by: default: whoever asked for the job itself.
    """
    who = requested_by or job.requested_by
    try:
        wish = wish_to_undo(job, who, reason, after)
        _, arguments = checked(wish, action_of(wish.service, wish.action))
    except NmsError as exc:
        tell(connection, job.id, "not undone", who, str(exc))
        return None
    return add(connection, wish, arguments, new_id(), **columns)


@dataclass(frozen=True)
class TakenBack:
    """The undoings of several jobs: those that were added, in the order they begin, and those brought forward."""

    added: list[Job] = field(default_factory=list)
    hastened: list[Job] = field(default_factory=list)

    def take_back(self, connection: Connection, job: Job, who: str, reason: str, **columns: Any) -> None:
        """Have a job undone, and before it what followed from it, the newest first; each waits for the one before.

        What has not begun is cancelled; what runs is undone as soon as it has ended.

        Args:
            columns: of each undoing; one is `plan`, which makes them wait for one another.
        """
        followed = select(jobs).where(jobs.c.caused_by == job.id).order_by(jobs.c.id.desc()).with_for_update()
        for row in connection.execute(followed).all():
            follow_up = from_row(row)
            self.take_back(connection, follow_up, who, reason, **columns)
            _call_off(connection, follow_up, who, reason)
        if not job.took_effect or self._is_undone(connection, job):
            return
        waits: dict[str, Any] = {"follows": self.added[-1].id, "due_at": None} if self.added else {}
        undoing = add_undo(connection, job, reason, requested_by=who, **waits, **columns)
        self.added.extend([] if undoing is None else [undoing])

    def _is_undone(self, connection: Connection, job: Job) -> bool:
        """Whether an undoing is done or to come. One that has a time of its own: its time is now."""
        row = connection.execute(select(jobs).where(jobs.c.id == job.undone_by)).one_or_none()
        if row is None:
            return False
        undoing = from_row(row)
        waits = (jobs.c.id == undoing.id) & (jobs.c.state == "queued") & (jobs.c.due_at > func.now())
        connection.execute(update(jobs).where(waits).values(due_at=func.now(), published_at=None))
        self.hastened.extend([] if undoing.done else [undoing])
        return undoing.good or not undoing.done


def _call_off(connection: Connection, follow_up: Job, who: str, reason: str) -> None:
    """A follow-up that has not ended, locked by the caller."""
    this = jobs.c.id == follow_up.id
    if follow_up.state == "queued":
        connection.execute(update(jobs).where(this).values(state="cancelled", finished_at=func.now(), error=reason))
        for job_id, event in ((follow_up.id, "cancelled"), (follow_up.caused_by, "follow-up cancelled")):
            tell(connection, job_id or follow_up.id, event, who, f"job {follow_up.id}: {reason}")
    elif follow_up.state == "running":
        connection.execute(update(jobs).where(this).values(undo_after=AT_ONCE))
        tell(connection, follow_up.id, "to be undone", who, f"when it has ended: {reason}")
