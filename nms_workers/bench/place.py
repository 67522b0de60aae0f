"""What a measurement of actions needs of the place where they take effect."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from nms_workers.errors import NmsError
from nms_workers.jobs.wish import Wish
from nms_workers.supervisor import Process

TARGETS = 8  # changes of one target, or of one lane of it, run one at a time


class BenchError(NmsError):
    """The measurement cannot be made here."""


class Place(Protocol):
    """A server that is started for the run, and counts by itself what was done to it."""

    process: Process

    def targets(self) -> str:
        """The targets of the fleet, as TOML."""

    def wish(self, number: int) -> Wish:
        """The action of this number; its effect happens once, and is told apart from those of others."""

    def watched(self) -> AbstractContextManager[None]:
        """Inside, what is done is seen; on entering the server is made ready for it."""

    def effects(self) -> Mapping[int, Sequence[float]]:
        """When the server saw each effect, in seconds since the epoch, by the number of its action."""

    def agrees(self, numbers: range) -> bool:
        """Whether the state of the server now is that of these effects, each once, and of nothing else."""

    def close(self) -> None:
        """Let go of what was taken, once the server is stopped."""
