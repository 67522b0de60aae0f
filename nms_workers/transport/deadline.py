"""The time limit of the work at hand: Celery's limits do not reach threads, so every client asks here."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from nms_workers.errors import Timeout

_ends_at: ContextVar[float] = ContextVar("deadline", default=math.inf)


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Everything inside must be done in `seconds`. A deadline inside another can only be earlier."""
    token = _ends_at.set(min(_ends_at.get(), time.monotonic() + seconds))
    try:
        yield
    finally:
        _ends_at.reset(token)


def time_left() -> float:
    """Seconds until the deadline: infinite where there is none, negative once it has passed."""
    return _ends_at.get() - time.monotonic()


def remaining(limit: float) -> float:
    """Seconds the next outward call may take: `limit`, or what is left of the deadline if that is less.

    Raises:
        Timeout: nothing is left.
    """
    left = time_left()
    if left <= 0:
        raise Timeout("the time limit of this run is used up")
    return min(limit, left)
