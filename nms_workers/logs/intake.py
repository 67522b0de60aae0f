"""Between those who read and the one who delivers: bounded in bytes, so that who reads too fast waits."""

import threading
from collections import deque

from nms_workers.logs import metrics
from nms_workers.logs.batch import Line


class StoppedError(Exception):
    """The shipper ends: nothing is taken any more."""


class Intake:
    """Lines on their way. Thread-safe.

    Args:
        size: bytes; a reader waits while there are more.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._lines: deque[Line] = deque()
        self._used = 0
        self._changed = threading.Condition()
        self._stopped = False

    @property
    def room(self) -> bool:
        """Whether anything may be read."""
        return self._used < self._size

    def put(self, line: Line) -> None:
        """Hand over a line, whether there is room or not: for who asked `room` before.

        Raises:
            StoppedError: nobody will take it.
        """
        with self._changed:
            if self._stopped:
                raise StoppedError
            self._lines.append(line)
            self._used += line.size
            metrics.WAITING.set(self._used)
            self._changed.notify_all()

    def put_when_room(self, line: Line) -> None:
        """Hand over a line once there is room.

        Raises:
            StoppedError: nobody will take it.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._used < self._size)
        self.put(line)

    def take(self, lines: int, size: int, wait: float, linger: float) -> list[Line]:
        """What is delivered next, in its order; at least one line, however big, unless there is none in `wait` seconds.

        Args:
            lines, size: at most so many, and so many bytes.
            linger: seconds to wait for company.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._stopped or bool(self._lines), wait):
                return []
            self._changed.wait_for(lambda: self._stopped or len(self._lines) >= lines or self._used >= size, linger)
            taken: list[Line] = []
            used = 0
            while self._lines and len(taken) < lines and (not taken or used + self._lines[0].size <= size):
                taken.append(self._lines.popleft())
                used += taken[-1].size
            self._used -= used
            metrics.WAITING.set(self._used)
            self._changed.notify_all()
            return taken

    def stop(self) -> None:
        """Take nothing any more, and let everybody go who waits. What was handed over and not taken is read again."""
        with self._changed:
            self._stopped = True
            self._lines.clear()
            self._used = 0
            self._changed.notify_all()
