"""Runs the programs of one machine as children: starts, watches, restarts and stops them.

    with Supervisor(log_folder, on_event=print) as supervisor:
        supervisor.start(postgres, redis)      # together; returns when both are ready
        supervisor.start(worker, beat)
        supervisor.wait()

All of it happens in the calling thread, which must be the main one: signals arrive there, and on Linux the kernel ends
a child with the thread that started it, so that nothing runs on when the supervisor is killed.
"""

import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Self

from nms_workers.child import Child, Event, GaveUp, Process

__all__ = ["Event", "GaveUp", "Process", "Supervisor"]

_HURRY_SECONDS = 2.0
_TICK_SECONDS = 0.1


class Supervisor:
    """Keeps children running. A context manager: at its end all are stopped, the last started first.

    Ctrl-C, SIGTERM and a closed terminal raise KeyboardInterrupt inside it. While it stops, asking again
    makes it hurry: all are asked at once, and killed after two seconds.

    Args:
        log_folder: what a child prints goes to NAME.log there.
        on_event: called for each event, in the supervisor's thread.
    """

    def __init__(self, log_folder: Path, on_event: Callable[[Event], None]) -> None:
        self._logs = log_folder
        self._on_event = on_event
        self._groups: list[list[Child]] = []
        self._asked = 0  # how often we were asked to stop
        self._deferred = False  # do not raise now: a child is just being born
        self._handlers: dict[signal.Signals, Any] = {}
        self._old_wakeup = -1
        self._wake = (-1, -1)

    def __enter__(self) -> Self:
        self._logs.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._wake = os.pipe()
        for end in self._wake:
            os.set_blocking(end, False)
        self._old_wakeup = signal.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._handlers[number] = signal.signal(number, self._asked_to_stop)
        self._handlers[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)  # only to be woken by it
        return self

    def __exit__(self, *_: object) -> None:
        self._deferred = True
        try:
            self._stop_all()
        finally:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(self._old_wakeup)
            for end in self._wake:
                os.close(end)

    def start(self, *processes: Process) -> None:
        """Start these together and return when all are ready.

        Raises:
            GaveUp: one ended, or was not ready in its time.
            KeyboardInterrupt: asked to stop meanwhile.
        """
        group = [Child(process, self._logs / f"{process.name}.log", self._on_event) for process in processes]
        self._groups.append(group)
        with self._interrupts_deferred():
            for child in group:
                child.start()
            while not self._asked and not all(child.ready for child in group):
                self._tick()

    def wait(self, timeout: float | None = None) -> None:
        """Keep the children running: for `timeout` seconds, or until none is left to run.

        Raises:
            GaveUp: a child died again and again.
            KeyboardInterrupt: asked to stop.
        """
        end = float("inf") if timeout is None else time.monotonic() + timeout
        with self._interrupts_deferred():
            while not self._asked and self.running() and time.monotonic() < end:
                self._tick()

    def running(self) -> list[str]:
        """Names of the children that run, or are about to be started again."""
        return [child.process.name for child in self._children() if not child.over]

    def pids(self) -> dict[str, int]:
        """Process ids, by name, of the children that run now."""
        return {child.process.name: child.running.pid for child in self._children() if child.running}

    def _children(self) -> Iterator[Child]:
        return (child for group in self._groups for child in group)

    def _tick(self) -> None:
        self._pause()
        for child in self._children():
            child.look()

    def _pause(self) -> None:
        """Until a signal arrives (a child ended, or somebody wants us to stop), or a moment has passed."""
        if select.select([self._wake[0]], [], [], _TICK_SECONDS)[0]:
            os.read(self._wake[0], 4096)

    @contextmanager
    def _interrupts_deferred(self) -> Iterator[None]:
        """An interrupt in the middle of starting a child would lose it: it is raised at the end."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        if self._asked:
            raise KeyboardInterrupt

    def _asked_to_stop(self, number: int, frame: FrameType | None) -> None:
        self._asked += 1
        if not self._deferred:
            raise KeyboardInterrupt

    def _stop_all(self) -> None:
        hurried = False
        while self._groups:
            for child in self._groups[-1]:
                child.stop()
            while sum(not child.stopped() for child in self._groups[-1]):  # sum, not any: each must be looked at
                self._pause()
                if self._asked > 1 and not hurried:
                    hurried = True
                    for child in self._children():
                        child.stop(_HURRY_SECONDS)
            self._groups.pop()
