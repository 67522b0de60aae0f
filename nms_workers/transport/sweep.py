"""Asking many addresses: so many at once, at a rate, and no longer than there is time."""

import contextvars
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

from nms_workers.transport.deadline import time_left

A = TypeVar("A")
R = TypeVar("R")

AT_ONCE = 64  # addresses that are waited for


class OutOfTime(Exception):
    """This address was not asked."""


class Pace:
    """Lets callers go on at a rate, over all threads.

    Args:
        rate: calls a second.
    """

    def __init__(self, rate: float) -> None:
        self._gap, self._next, self._lock = 1 / rate, 0.0, threading.Lock()

    def __call__(self) -> None:
        """Wait for a turn.

        Raises:
            OutOfTime: it comes after the deadline.
        """
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + self._gap
        if turn - now > max(0.0, time_left()):
            raise OutOfTime
        time.sleep(max(0.0, turn - now))


def answers(addresses: Iterable[A], ask: Callable[[A], R]) -> Iterator[R]:
    """What each address said, as it comes, `AT_ONCE` at a time, as long as there is time.

    Args:
        ask: may raise `OutOfTime`; that address is left out.
    """
    left = iter(addresses)
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="sweep") as pool:
        running: set[Future[R]] = set()
        try:
            while True:
                for address in islice(left, AT_ONCE - len(running)) if time_left() > 0 else ():
                    running.add(pool.submit(contextvars.copy_context().run, ask, address))
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for one in done:
                    try:
                        yield one.result()
                    except OutOfTime:
                        continue
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
