"""Sequence numbers: what an exporter sent and we did not get."""

from dataclasses import dataclass

_WRAP = 1 << 32
_WINDOW = 1 << 20  # units: a longer jump ahead is an exporter that began anew
_OVERTAKEN = 1 << 10  # units: and so is a longer one back
_IN_ORDER = 8  # and so many datagrams behind, each the next of the one before


@dataclass(slots=True)
class Sequence:
    """The numbers of one stream, and what they said since `take` was called last."""

    expected: int | None = None
    received: int = 0
    lost: int = 0
    late: int = 0
    restarts: int = 0
    behind: int = 0  # what follows the last one that came late
    in_order: int = 0

    def saw(self, number: int, units: int) -> None:
        """A datagram came that says `number`, and holds `units` of what the format counts."""
        self.received += units
        gap = (number - self.expected) % _WRAP if self.expected is not None else 0
        if gap < _WINDOW:
            self.lost += gap
        elif self._overtaken(number, _WRAP - gap, units):
            self.late += units
            return
        else:
            self.restarts += 1
        self.expected = (number + units) % _WRAP
        self.in_order = 0

    def _overtaken(self, number: int, back: int, units: int) -> bool:
        """Whether this is older than what we had, rather than the start of a new count."""
        self.in_order = self.in_order + 1 if number == self.behind else 1
        self.behind = (number + units) % _WRAP
        return number != 0 and back <= _OVERTAKEN and self.in_order < _IN_ORDER

    def unsure(self, units: int) -> None:
        """A datagram came of which we cannot tell how much it held: the next one is taken as it is."""
        self.received += units
        self.expected = None

    def take(self) -> tuple[int, int, int, int]:
        """(received, lost, late, restarts) since the last time."""
        told = self.received, self.lost, self.late, self.restarts
        self.received = self.lost = self.late = self.restarts = 0
        return told
