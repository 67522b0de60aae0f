"""Sequence numbers: what an exporter sent and we did not get."""

from dataclasses import dataclass

_WRAP = 1 << 32
_WINDOW = 1 << 20  # units: a longer jump ahead is an exporter that began anew
_OVERTAKEN = 1 << 10  # units: and so is a longer one back
_IN_ORDER = 8  # and so many datagrams behind, each the next of the one before


@dataclass(slots=True)
class Sequence:
    """The numbers of one stream, and what they said since `take` was called last.

    The number of a datagram is how many units came before it. There are exporters (softflowd, in IPFIX) that count the
    units of the datagram in; which of the two it is shows as soon as datagrams differ in size.
    """

    number: int | None = None  # of the latest datagram; None: the next one is taken as it is
    units: int = 0  # of the latest datagram
    inclusive: bool = False
    behind: int = 0  # what follows the latest one that came late
    in_order: int = 0
    received: int = 0
    lost: int = 0
    late: int = 0
    restarts: int = 0

    def saw(self, number: int, units: int) -> None:
        """A datagram came that says `number`, and holds `units` of what the format counts."""
        self.received += units
        gap = 0 if self.number is None else self._gap(self.number, number, units)
        if gap < _WINDOW:
            self.lost += gap
        elif self._overtaken(number, _WRAP - gap, units):
            self.late += units
            return
        else:
            self.restarts += 1
        self.number, self.units = number, units
        self.in_order = 0

    def _gap(self, last: int, number: int, units: int) -> int:
        step = (number - last) % _WRAP
        expected, otherwise = (units, self.units) if self.inclusive else (self.units, units)
        if step not in {expected, otherwise}:
            return (step - expected) % _WRAP
        self.inclusive ^= step != expected
        return 0

    def _overtaken(self, number: int, back: int, units: int) -> bool:
        """Whether this is older than what we had, rather than the start of a new count."""
        self.in_order = self.in_order + 1 if number == self.behind else 1
        self.behind = (number + units) % _WRAP
        return number != 0 and back <= _OVERTAKEN and self.in_order < _IN_ORDER

    def unsure(self, units: int) -> None:
        """A datagram came of which we cannot tell how much it held: the next one is taken as it is."""
        self.received += units
        self.number = None

    def take(self) -> tuple[int, int, int, int]:
        """(received, lost, late, restarts) since the last time."""
        told = self.received, self.lost, self.late, self.restarts
        self.received = self.lost = self.late = self.restarts = 0
        return told
