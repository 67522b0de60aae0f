"""Messages of version 3, checked in a thread of their own: each takes milliseconds, so there is a limit of them."""

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable

from nms_workers.errors import NmsError
from nms_workers.transport.datagrams import Datagram
from nms_workers.traps.usm import Checked, Usm

log = logging.getLogger(__name__)


class Checking:
    """Takes messages in one thread and gives them back, checked, to the same.

    Args:
        per_second: how many may be taken between two calls of `next_second`.
        wake: called, in the other thread, when something was checked.
    """

    def __init__(self, usm: Usm, per_second: int, wake: Callable[[], None]) -> None:
        self._usm, self._per_second, self._wake = usm, per_second, wake
        self._left = per_second
        self._waiting: queue.Queue[Datagram | None] = queue.Queue(2 * per_second)
        self._done: deque[tuple[Datagram, Checked]] = deque()
        self._thread = threading.Thread(target=self._run, name="traps-usm", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def put(self, datagram: Datagram) -> bool:
        """Have a message checked. False when there were too many."""
        if self._left <= 0:
            return False
        try:
            self._waiting.put_nowait(datagram)
        except queue.Full:
            return False
        self._left -= 1
        return True

    def next_second(self) -> None:
        """A second has passed."""
        self._left = self._per_second

    def done(self) -> list[tuple[Datagram, Checked]]:
        """What was checked since the last call."""
        return [self._done.popleft() for _ in range(len(self._done))]

    def close(self, timeout: float) -> None:
        """Check what waits, and stop."""
        try:
            self._waiting.put(None, timeout=timeout)
        except queue.Full:
            log.warning("messages of version 3 were left unchecked")
        self._thread.join(timeout)

    def _run(self) -> None:
        while (datagram := self._waiting.get()) is not None:
            self._done.append((datagram, self._check(datagram)))
            self._wake()

    def _check(self, datagram: Datagram) -> Checked:
        try:
            return self._usm.check(datagram.data)
        except NmsError as exc:
            return Checked(why=str(exc))
        except Exception as exc:
            log.exception("a fault in the check of a message of version 3")
            return Checked(why=f"a fault in its check: {type(exc).__name__}")
