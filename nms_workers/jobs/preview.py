"""What an action would do, without doing it and without a job."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from nms_workers.change import Change, FollowUp, kept_by
from nms_workers.errors import NmsError
from nms_workers.jobs.desk import Desk
from nms_workers.jobs.follow_ups import as_wish
from nms_workers.jobs.guards import refusal
from nms_workers.jobs.interfaces import worker_of
from nms_workers.jobs.submit import require_target
from nms_workers.jobs.wish import Wish, action_of, checked
from nms_workers.queues import host_name
from nms_workers.records import Attributes
from nms_workers.service import Action, Client
from nms_workers.store.inventory import as_json
from nms_workers.transport.deadline import deadline


@dataclass(frozen=True)
class Preview:
    """What would be.

    Args:
        arguments: as they would be used.
        refused: why a guard says no.
        would: the action's own answer, or what it found when it was stopped before its first change; None: it tells
            nothing beforehand, or only the worker beside the target could ask.
        then: what would follow, each with why it would not be.
    """

    arguments: dict[str, Any]
    refused: str | None
    would: Change | None
    then: tuple[tuple[FollowUp, str | None], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The same as plain data."""
        would = self.would
        told = ("changed", "message", "before", "after")
        change = would and {name: getattr(would, name) for name in told}
        then = [msgspec.to_builtins(one) | {"refused": why} for one, why in self.then]
        return {"arguments": self.arguments, "refused": self.refused, "would": change, "then": then}


def preview(desk: Desk, wish: Wish, client: Callable[[], Client]) -> Preview:
    """Ask the guards, and the action itself if it can tell beforehand.

    Raises:
        Refused: the arguments do not fit the action.
        ConfigError, NmsError: no such service, action or target; or the target cannot be asked.
    """
    declared = action_of(wish.service, wish.action)
    typed, arguments = checked(wish, declared)
    with desk.engine.connect() as connection:
        require_target(connection, wish.service, wish.target)
        why = refusal(connection, desk.settings, wish, declared, typed)
        near = declared.runs_at == "worker" or worker_of(connection, wish) in {None, host_name()}
    would = None
    if why is None and near:
        with deadline(declared.deadline):
            would = tried(declared, client, typed)
    wanted = would.follow_ups if would else ()
    return Preview(arguments, why, would, tuple((one, _why_not(desk, one, wish)) for one in wanted))


class _Stop(BaseException):
    """Raised where an action is about to change something: no action catches it."""

    def __init__(self, before: Attributes) -> None:
        super().__init__()
        self.before = before


def _stop(before: Attributes) -> None:
    raise _Stop(before)


def tried(declared: Action, client: Callable[[], Client], arguments: Mapping[str, Any]) -> Change | None:
    """The action's own answer, or its look at the target; None: it has neither."""
    if declared.previews:
        return declared.run(client(), **arguments, dry_run=True)
    if not declared.looks_first:
        return None
    try:
        with kept_by(_stop):
            return declared.run(client(), **arguments)
    except _Stop as stop:
        return Change(True, f"{declared.name}, where there is now {as_json(stop.before)}", before=stop.before)


def _why_not(desk: Desk, one: FollowUp, first: Wish) -> str | None:
    """Why this would not follow; None: it would."""
    wish = as_wish(one, first.requested_by, first.reason)
    try:
        declared = action_of(wish.service, wish.action)
        typed, _ = checked(wish, declared)
        with desk.engine.connect() as connection:
            require_target(connection, wish.service, wish.target)
            return refusal(connection, desk.settings, wish, declared, typed)
    except NmsError as exc:
        return str(exc)
