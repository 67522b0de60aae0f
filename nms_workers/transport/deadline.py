"""The time limit of the work at hand: Celery's limits do not reach threads, so every client asks here."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from nms_workers.errors import Timeout

_ends_at: ContextVar[float | None] = ContextVar("deadline", default=None)


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Everything inside must be done in `seconds`. A deadline inside another can only be earlier."""
    ends_at = time.monotonic() + seconds
    outer = _ends_at.get()
    token = _ends_at.set(ends_at if outer is None else min(ends_at, outer))
    try:
        yield
    finally:
        _ends_at.reset(token)


def remaining(limit: float) -> float:
    """Seconds the next outward call may take: `limit`, or what is left of the deadline if that is less.

    Raises:
        Timeout: nothing is left.
    """
    ends_at = _ends_at.get()
    if ends_at is None:
        return limit
    left = ends_at - time.monotonic()
    if left <= 0:
        raise Timeout("the time limit of this run is used up")
    return min(limit, left)
