"""From counters to rates: what a counter that fell says, a wrap or a new beginning.

A counter of 32 bits wraps at 2^32, and an agent that starts anew counts from zero; both look alike. RFC 2863 section
3.1.5 and RFC 3418 give the witnesses: the uptime, which falls at a restart, and ifCounterDiscontinuityTime, which moves
when a counter lost its count. Which metrics these are is the service's to say (`service.Witnesses`).
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

WRAP = 2.0**32

Floats = NDArray[np.float64]


class Seen(NamedTuple):
    """A counter at one moment, and what its witnesses said then; NaN: nothing.

    Args:
        most: what the counter may grow by in a second at most.
    """

    ts: datetime
    value: float
    uptime: float = np.nan
    moved: float = np.nan
    most: float = np.nan


def increase(values: ArrayLike) -> Floats:
    """What a counter grew by between samples, shape (n - 1,). A counter that fell was reset, and counts from zero."""
    taken = np.asarray(values, dtype=np.float64)
    grown = np.diff(taken)
    return np.where(grown < 0, taken[1:], grown)


def rates(seen: Sequence[Seen], *, wraps: bool = False, witnessed: bool = False) -> Iterator[tuple[datetime, float]]:
    """The increase per second between each sample and the one before.

    What cannot be told is left out: two samples of one moment, samples that came in the wrong order, and an increase
    that is made up from a fall and is more than `most` allows.

    Args:
        wraps: it is a counter of 32 bits, so that a fall may be a wrap.
        witnessed: its service names witnesses.
    """
    values = np.array([one.value for one in seen])
    seconds = np.diff([one.ts.timestamp() for one in seen])
    grown, sure = increase(values), seconds > 0
    if witnessed:
        grown, certain = _witnessed(seen, values, seconds, grown, wraps=wraps)
        sure &= certain
    for (_, after), growth, took, known in zip(pairwise(seen), grown, seconds, sure, strict=True):
        if known:
            yield after.ts, float(growth / took)


def _witnessed(
    seen: Sequence[Seen], values: Floats, seconds: Floats, grown: Floats, *, wraps: bool
) -> tuple[Floats, NDArray[np.bool_]]:
    """The growth, now that the witnesses are heard, and whether it can be told at all."""
    uptime, moved, most = (np.array([getattr(one, name) for one in seen]) for name in ("uptime", "moved", "most"))
    # less than the time between: it began after the sample before, even where it now runs longer than it had then
    restarted = uptime[1:] < np.maximum(uptime[:-1], seconds)
    # it fell and yet began before the sample before: not a restart, but samples of two clocks in the wrong order
    disordered = restarted & (uptime[1:] > 2 * seconds + 60)
    unsure = restarted | (np.diff(moved) != 0) & ~np.isnan(np.diff(moved))
    fell = np.diff(values) < 0
    limit = np.where(np.isnan(most[1:]), np.inf, most[1:]) * seconds
    wrapped = np.diff(values) + WRAP
    heard = ~np.isnan(uptime[1:]) & ~np.isnan(uptime[:-1])
    is_wrap = fell & ~unsure & heard & wraps & (values[:-1] < WRAP) & (wrapped <= limit)
    counted = np.where(is_wrap, wrapped, np.where(unsure | fell, values[1:], grown))
    made_up = unsure | fell
    return counted, ~disordered & ~(made_up & (counted > limit))
