"""How a poll can end, and the exceptions that tell the endings apart.

Every exception carries a message for people: what failed and why, and a hint what to do. The target is added by
whoever runs the poll or the action. A message never holds a secret.
"""

from enum import StrEnum
from typing import ClassVar


class Outcome(StrEnum):
    """How one slot (one due time of one poll of one target) ended. Closed: every slot ends in exactly one of these."""

    OK = "ok"
    PARTIAL = "partial"  # something was read and kept, then an error ended it
    UNCHANGED = "unchanged"  # the target says nothing changed since the last read
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    AUTH = "auth"
    REFUSED = "refused"  # the target answered, and said no
    PARSE = "parse"  # the answer was not what the protocol promises
    SKIPPED = "skipped"  # the previous run still goes, or the breaker is open: nothing was asked
    EXPIRED = "expired"  # no worker took it in time
    LOST = "lost"  # a worker took it and died
    ERROR = "error"  # a fault of ours

    @property
    def good(self) -> bool:
        """Whether the target was read as promised."""
        return self in (Outcome.OK, Outcome.UNCHANGED)


class NmsError(Exception):
    """Base of all our exceptions.

    Args:
        message: what failed and why, without secrets.
        hint: what a person can do about it.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class TargetError(NmsError):
    """A target could not be read or changed; `outcome` says in which way."""

    outcome: ClassVar[Outcome] = Outcome.ERROR


class Unreachable(TargetError):
    """No connection: refused, reset, no route, no such name, TLS failed."""

    outcome = Outcome.UNREACHABLE


class Timeout(TargetError):
    """Connected or sent, and no answer inside the time limit."""

    outcome = Outcome.TIMEOUT


class AuthError(TargetError):
    """The target does not accept our credentials. Never retried."""

    outcome = Outcome.AUTH


class Refused(TargetError):
    """The target understood and said no: no permission, no such object, rate limited, invalid argument."""

    outcome = Outcome.REFUSED


class ParseError(TargetError):
    """The answer is not what the protocol promises: the wrong product, HTML for JSON, a cut-off message."""

    outcome = Outcome.PARSE


class Skipped(TargetError):
    """Nothing was asked: the previous run still goes, or the breaker of the target is open."""

    outcome = Outcome.SKIPPED


class Unchanged(TargetError):
    """The target says that nothing changed since the last read. An ending, not a failure."""

    outcome = Outcome.UNCHANGED


class Underway(NmsError):
    """A change was asked for and is not there yet. The job gives its slot back, and looks again later.

    Args:
        again: seconds until then.
    """

    def __init__(self, message: str, *, again: float) -> None:
        super().__init__(message)
        self.again = again


class ConfigError(NmsError):
    """The settings cannot be used; the message says where and why."""
