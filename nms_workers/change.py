"""What an action did, and what it keeps and notes while it does it, so that it can be undone and run again."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import msgspec

from nms_workers.records import Attributes


class FollowUp(msgspec.Struct, frozen=True):
    """A job that an action asks for when it is done: how one service makes another act without knowing it.

    Args:
        service, action, target: what is to be done, and where.
        arguments: of that action, as JSON.
        evidence: why, as JSON; kept in the audit of the new job.
    """

    service: str
    action: str
    target: str
    arguments: Attributes
    evidence: Attributes = {}


class Proposal(msgspec.Struct, frozen=True):
    """A target that an action found. It waits for a person, unless it is approved by a rule.

    Args:
        name: what it would be called.
        settings: of its service, as JSON; secrets as references.
        addresses: all that it was found at.
        identity: names the device wherever it is found; empty: nothing does.
        approved: it needs no person.
        about: what was found out, as JSON.
    """

    name: str
    settings: Attributes
    addresses: tuple[str, ...] = ()
    identity: str = ""
    approved: bool = False
    about: Attributes = {}


PROPOSED = "proposed_targets"
"""The key of `Change.after` with proposals of the action's own service, as JSON; they are entered as the job ends."""


class Change(msgspec.Struct, frozen=True):
    """What an action did.

    Args:
        changed: False when the target already was as wanted.
        message: one line for people.
        before, after: the state the action looked at, as JSON.
        follow_ups: jobs that are submitted in the transaction in which this one ends well.
        undo_after: seconds after which the fleet takes it back; None: not of itself.
    """

    changed: bool
    message: str
    before: Attributes = {}
    after: Attributes = {}
    follow_ups: tuple[FollowUp, ...] = ()
    undo_after: float | None = None


_keep: ContextVar[Callable[[Attributes], None] | None] = ContextVar("keep", default=None)
_asked: ContextVar[set[str] | None] = ContextVar("asked", default=None)


def about_to_change(before: Attributes) -> None:
    """Keep what is there now, before an action changes it: whoever dies in the middle of it leaves that behind.

    A later attempt finds the target changed, maybe by an earlier one. What the first attempt kept stands in the job as
    `before`, whatever a later one tells, so an undo gives back what was there. Outside of a job nothing is kept.

    Raises:
        Skipped: it cannot be kept now; nothing was changed.
    """
    keep = _keep.get()
    if keep is not None:
        keep(before)


def about_to_ask(request: str) -> bool:
    """Whether to send this request: False when the job sent it in an earlier run and was put back (`errors.Underway`).

    Such a run only looks whether what was asked for is there now. Outside of a job it is always True.
    """
    asked = _asked.get()
    if asked is None:
        return True
    new = request not in asked
    asked.add(request)
    return new


def can_be_put_back() -> bool:
    """Whether `errors.Underway` leads to another run: inside a job it does."""
    return _asked.get() is not None


@contextmanager
def kept_by(keep: Callable[[Attributes], None], asked: set[str] | None = None) -> Iterator[None]:
    """Inside, `about_to_change` calls `keep`, and `about_to_ask` notes what is asked in `asked`."""
    kept, noted = _keep.set(keep), _asked.set(asked)
    try:
        yield
    finally:
        _asked.reset(noted)
        _keep.reset(kept)
