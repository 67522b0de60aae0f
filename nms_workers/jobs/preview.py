"""What an action would do, without doing it and without a job."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nms_workers.jobs.desk import Desk
from nms_workers.jobs.guards import refusal
from nms_workers.jobs.submit import require_target
from nms_workers.jobs.wish import Wish, action_of, checked
from nms_workers.service import Change, Client
from nms_workers.transport.deadline import deadline


@dataclass(frozen=True)
class Preview:
    """`arguments`: as they would be used; `refused`: why a guard says no; `would`: the action's own answer, if any."""

    arguments: dict[str, Any]
    refused: str | None
    would: Change | None

    def as_json(self) -> dict[str, Any]:
        """The same as plain data."""
        would = self.would
        change = would and {"changed": would.changed, "message": would.message, "after": would.after}
        return {"arguments": self.arguments, "refused": self.refused, "would": change}


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
    return Preview(arguments, why, would)
