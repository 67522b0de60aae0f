"""One program run as a child: started, looked at, restarted, stopped, and ended with us whatever happens to us."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nms_workers.errors import NmsError

BACKOFF = (0.5, 1.0, 2.0, 5.0)  # seconds before the first, second, ... restart after quick deaths; then it gives up
QUICK = 30.0  # seconds: who lived longer died for a new reason, and is counted anew
LOG_BYTES = 10_000_000  # of one log file; the one before is kept as NAME.log.1
_PR_SET_PDEATHSIG = 1  # prctl(2)
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class GaveUp(NmsError):
    """A child cannot be kept running. The message holds its last words."""


@dataclass(frozen=True)
class Process:
    """A program to run.

    Args:
        name: also the name of its log file.
        argv: command line.
        env: the whole environment; None: ours.
        ready: whether it can be used yet; asked again and again while it starts, so it must answer in seconds.
        stop_signal: asks it to end.
        stop_timeout: seconds it has for that; then it is killed.
        start_timeout: seconds until `ready` must be true.
        restart: whether it is started again when it ends by itself.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] | None = None
    ready: Callable[[], bool] | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout: float = 20.0
    start_timeout: float = 60.0
    restart: bool = True


@dataclass(frozen=True)
class Event:
    """What happened to a child: `started ready died ended stopping killed stopped`, and a line for people."""

    name: str
    what: str
    detail: str = ""


class Child:
    """A process from its first start to its end, over its restarts.

    `running` is what runs now, `ready` whether that can be used, `over` whether it will not be started again.
    """

    def __init__(self, process: Process, log: Path, on_event: Callable[[Event], None]) -> None:
        self.process = process
        self.running: subprocess.Popen[bytes] | None = None
        self.ready = False
        self.over = False
        self._log = log
        self._on_event = on_event
        self._was_ready = False
        self._deaths = 0
        self._started_at = 0.0
        self._restart_at = 0.0
        self._kill_at = float("inf")

    def start(self) -> None:
        """Start it.

        Raises:
            GaveUp: the system cannot run it.
        """
        _bound(self._log)
        self._started_at = time.monotonic()
        with self._log.open("ab") as log:
            try:
                self.running = subprocess.Popen(
                    self.process.argv,
                    env=self.process.env,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C in the terminal is for us: we stop the children in order
                    preexec_fn=end_with_parent(),  # noqa: PLW1509 - two system calls
                )
            except OSError as exc:
                self.over = True
                raise GaveUp(f"{self.process.name} cannot be started: {exc}") from None
        self._tell("started", f"process {self.running.pid}")

    def look(self) -> None:
        """See what became of it, and do what follows.

        Raises:
            GaveUp: it cannot be kept running.
        """
        if self.over:
            return
        if self.running is None:
            if time.monotonic() >= self._restart_at:
                self.start()
        elif (status := _reap(self.running)) is not None:
            self.running, self.ready = None, False
            self._died(status)
        elif not self.ready:
            self._look_ready()
        else:
            _bound(self._log)

    def stop(self, limit: float | None = None) -> None:
        """Ask it to end, in `limit` seconds where that is less than its own limit."""
        seconds = self.process.stop_timeout if limit is None else min(limit, self.process.stop_timeout)
        self._kill_at = min(self._kill_at, time.monotonic() + seconds)
        if self.running is not None and not self.over:
            self._tell("stopping")
            self.running.send_signal(self.process.stop_signal)
        self.over = True

    def stopped(self) -> bool:
        """Whether it is gone; when its time is up it is killed."""
        if self.running is None:
            return True
        if (status := _reap(self.running)) is not None:
            self.running = None
            self._tell("stopped", f"exit status {status}")
            return True
        if time.monotonic() >= self._kill_at:
            self._kill_at = float("inf")
            self._tell("killed", "it did not end in time")
            os.killpg(self.running.pid, signal.SIGKILL)
        return False

    def _look_ready(self) -> None:
        lived = time.monotonic() - self._started_at
        if self.process.ready is None or self.process.ready():
            self.ready = self._was_ready = True
            self._tell("ready", f"after {lived:.1f} s")
        elif lived > self.process.start_timeout:
            raise self._gave_up(f"was not ready in {self.process.start_timeout:g} s")

    def _died(self, status: int) -> None:
        lived = time.monotonic() - self._started_at
        if not self.process.restart:
            self.over = self.ready = True
            self._tell("ended", f"exit status {status}")
            return
        if not self._was_ready:
            raise self._gave_up(f"ended with exit status {status} while it started")
        self._deaths = 1 if lived > QUICK else self._deaths + 1
        if self._deaths > len(BACKOFF):
            raise self._gave_up(f"died {self._deaths} times in a row, the last time with exit status {status}")
        pause = BACKOFF[self._deaths - 1]
        self._restart_at = time.monotonic() + pause
        self._tell("died", f"exit status {status} after {lived:.1f} s; started again in {pause:g} s")

    def _gave_up(self, how: str) -> GaveUp:
        with self._log.open("rb") as log:
            log.seek(max(0, self._log.stat().st_size - 2000))
            words = log.read().decode(errors="replace").splitlines()[-8:]
        last = "".join(f"\n    {line}" for line in words) or " none"
        return GaveUp(f"{self.process.name} {how}. Its last words:{last}\n", hint=f"all of them: {self._log}")

    def _tell(self, what: str, detail: str = "") -> None:
        self._on_event(Event(self.process.name, what, detail))


def _reap(process: "subprocess.Popen[bytes]") -> int | None:
    """Its exit status once it has ended. What it leaves in its process group ends with it.

    The group is killed before the dead leader is reaped: until then nobody else can be given its number.
    """
    if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        return None
    with suppress(ProcessLookupError, PermissionError):  # nobody is left but the dead: Linux and macOS say it so
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def _bound(log: Path) -> None:
    """Begin a full log anew. The child goes on writing into the same file, which is why it is copied, not renamed."""
    if log.exists() and log.stat().st_size > LOG_BYTES:
        shutil.copyfile(log, log.with_name(log.name + ".1"))
        os.truncate(log, 0)


def end_with_parent() -> Callable[[], None] | None:
    """To be run in the child before its program: the kernel shall kill it when the thread that started it ends.

    That happens when somebody kills the supervisor. A politer signal is not enough: a worker whose broker ends with it
    may take a minute to say goodbye, beside the worker of the next start.
    """
    if _libc is None:
        return None
    prctl, parent = _libc.prctl, os.getpid()  # looked up here: after fork() as little as possible may happen

    def arm() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:  # it ended before we asked
            os._exit(1)

    return arm
