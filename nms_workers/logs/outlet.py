"""What the shipper needs of where lines go."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from nms_workers.logs.batch import Line


class Outlet(Protocol):
    """Where lines go. Used by one thread."""

    name: str

    def prepare(self) -> None:
        """Before the first delivery, until it succeeds.

        Raises:
            NmsError: not now.
        """

    def deliver(self, due: datetime, lines: Sequence[Line], *, again: bool) -> Sequence[Line]:
        """Deliver lines; safe to repeat with the same.

        Args:
            due: names what is delivered at once.
            again: some of them may be there already.

        Returns:
            Those that are to be tried again.

        Raises:
            NmsError: nobody knows what became of any of them.
        """

    def close(self) -> None:
        """Let go of connections."""
