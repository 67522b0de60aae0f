"""What an action would do, without doing it and without a job."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from nms_workers.errors import NmsError
from nms_workers.jobs.desk import Desk
from nms_workers.jobs.follow_ups import as_wish
from nms_workers.jobs.guards import refusal
from nms_workers.jobs.submit import require_target
from nms_workers.jobs.wish import Wish, action_of, checked
from nms_workers.service import Change, Client, FollowUp
from nms_workers.transport.deadline import deadline


@dataclass(frozen=True)
class Preview:
    """What would be.

    Args:
        arguments: as they would be used.
        refused: why a guard says no.
        would: the action's own answer, if any.
        then: what would follow, each with why it would not be.
    """

    arguments: dict[str, Any]
    refused: str | None
    would: Change | None
    then: tuple[tuple[FollowUp, str | None], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The same as plain data."""
        would = self.would
        change = would and {"changed": would.changed, "message": would.message, "after": would.after}
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
    would = None
    if why is None and declared.previews:
        with deadline(declared.deadline):
            would = declared.run(client(), **typed, dry_run=True)
    wanted = would.follow_ups if would else ()
    return Preview(arguments, why, would, tuple((one, _why_not(desk, one, wish)) for one in wanted))


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
