"""Waiting for something to become true."""

import time
from collections.abc import Callable


def until(true: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    """Wait until `true()`; fail, naming `what`, when it does not come true in time."""
    ends_at = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends_at, f"waited {seconds} s for: {what}"
        time.sleep(0.02)
