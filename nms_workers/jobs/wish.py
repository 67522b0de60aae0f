"""What somebody wants done, before it is a job: guards and submit look at it."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nms_workers.errors import NmsError, Refused
from nms_workers.service import Action, service

LONGEST = {"target": 200, "requested_by": 200, "reason": 2_000, "idempotency_key": 200}  # characters
SECONDS = {"after": 366 * 86_400.0, "every": 366 * 86_400.0, "expires": 366 * 86_400.0, "undo_after": 366 * 86_400.0}
SHORTEST_EVERY = 5.0  # seconds: how often the sweep looks for what is due


@dataclass(frozen=True)
class Wish:
    """What somebody wants done. The same idempotency key is the same job. Times are seconds.

    Args:
        arguments: as they came; `confirm` among them where the action asks for it.
        after: how long to wait before it is due.
        every: done again and again at this interval, until it is cancelled.
        expires: not begun so long after it was due: not at all.
        undo_after: undone by a job of its own, so long after it was done.
        job: the job that is about to run for this wish; None: it is being submitted.
        undoes: the job that this one takes back.
    """

    service: str
    action: str
    target: str
    arguments: Mapping[str, object]
    requested_by: str
    reason: str = ""
    idempotency_key: str | None = None
    after: float | None = None
    every: float | None = None
    expires: float | None = None
    undo_after: float | None = None
    job: uuid.UUID | None = None
    undoes: uuid.UUID | None = None


def action_of(kind: str, name: str) -> Action:
    """The declaration of an action.

    Raises:
        ConfigError, NmsError: there is none; the message lists those there are.
    """
    actions = service(kind).actions()
    if name not in actions:
        raise NmsError(f"{kind} has no action {name!r}", hint="it has: " + (", ".join(actions) or "none"))
    return actions[name]


def checked(wish: Wish, declared: Action) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments of a wish, as typed values and as JSON.

    Raises:
        Refused: a text is too long, a time is none, or the arguments do not fit the action.
    """
    _check_texts(wish)
    _check_times(wish, declared)
    arguments = dict(wish.arguments)
    if declared.confirm:
        arguments.pop("confirm", None)  # a guard looks at it
    typed = declared.validate(arguments)
    model = declared.arguments.model_validate(typed)
    if r"\u0000" in model.model_dump_json():
        raise Refused(f"{wish.action} cannot take these arguments: one holds the character NUL")
    return typed, model.model_dump(mode="json")


def _check_texts(wish: Wish) -> None:
    for name, longest in LONGEST.items():
        value = getattr(wish, name)
        if value is not None and (len(value) > longest or "\x00" in value):
            raise Refused(f"{name} must be text of at most {longest} characters, without NUL")


def _check_times(wish: Wish, declared: Action) -> None:
    for name, longest in SECONDS.items():
        value = getattr(wish, name)
        if value is not None and not 0 < value <= longest:
            raise Refused(f"{name} must be more than 0 and at most {longest:g} seconds, not {value:g}")
    if wish.every is not None and wish.every < SHORTEST_EVERY:
        raise Refused(f"every must be at least {SHORTEST_EVERY:g} seconds, not {wish.every:g}")
    if wish.undo_after is not None and declared.undo is None:
        raise Refused(f"{wish.service} {wish.action} cannot be undone", hint="leave out undo_after")
    if wish.every and wish.undo_after and wish.undo_after >= wish.every:
        raise Refused("undo_after must be shorter than every: it would be undone after it was done again")
