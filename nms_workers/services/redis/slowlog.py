"""The slow log: its entries, without what the commands were given.

Source: https://redis.io/docs/latest/commands/slowlog-get/.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from nms_workers.errors import ParseError

_WORD = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}\Z")
_SHOWN_ARGUMENTS = 8
_CONTAINERS = frozenset(  # commands whose first argument is a subcommand
    {"ACL", "CLIENT", "CLUSTER", "COMMAND", "CONFIG", "DEBUG", "FUNCTION", "LATENCY", "MEMORY", "MODULE", "OBJECT"}
    | {"PUBSUB", "SCRIPT", "SENTINEL", "SLOWLOG", "XGROUP", "XINFO"}
)


class SlowCommand(msgspec.Struct, frozen=True):
    """One entry of the slow log.

    Args:
        id: counts up from 0 at the start of the server.
        at: when the command was run.
        seconds: how long it ran, without waiting for the client.
        command: its name, with `?` for each argument.
        client: address of the client.
        client_name: the name it gave itself.
    """

    id: int
    at: datetime
    seconds: float
    command: str
    client: str
    client_name: str

    @property
    def fingerprint(self) -> str:
        """Names this entry: the id begins anew when the server does, the time does not."""
        return f"slowlog:{self.id}:{int(self.at.timestamp())}"


def parsed(answer: Sequence[Any]) -> list[SlowCommand]:
    """Entries of `SLOWLOG GET`, newest first.

    Raises:
        ParseError: the answer is of another shape.
    """
    try:
        return [
            SlowCommand(
                id=entry[0],
                at=datetime.fromtimestamp(entry[1], UTC),
                seconds=entry[2] / 1e6,
                command=masked(entry[3]),
                client=entry[4],
                client_name=entry[5],
            )
            for entry in answer
        ]
    except (IndexError, KeyError, TypeError, ValueError, OverflowError) as exc:
        raise ParseError(f"SLOWLOG GET answered in a shape we do not know: {type(exc).__name__}") from None


def masked(words: Sequence[str]) -> str:
    """A command as people may see it: `CONFIG SET ? ?`. Keys and values may be personal, passwords or tokens."""
    shown = [word.upper() for word in words[:1] if _WORD.match(word)] or ["?"]
    if shown[0] in _CONTAINERS and len(words) > 1 and _WORD.match(words[1]):
        shown.append(words[1].upper())
    arguments = len(words) - len(shown)
    shown += ["?"] * min(arguments, _SHOWN_ARGUMENTS)
    if arguments > _SHOWN_ARGUMENTS:
        shown.append(f"(and {arguments - _SHOWN_ARGUMENTS} more)")
    return " ".join(shown)
