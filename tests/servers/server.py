"""What every server of the tests is: a process of its own on the loopback interface, with a folder."""

import os
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

import psutil

from nms_workers.child import end_with_parent
from nms_workers.embedded import free_port

Conf = Mapping[str, str | Sequence[str]]

PASSWORD = "correct horse"  # the space shows whoever forgets to quote it
_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
_COMMAND_SECONDS = 60.0


class ServerMissing(Exception):
    """A server program is not on this machine."""

    def __init__(self, name: str, why: str, install: str) -> None:
        super().__init__(f"{name}: {why}; to have it: {install}")
        self.name = name
        self.why = why
        self.install = install


class ServerFailed(Exception):
    """A server did not start; the message ends with its last words."""


class Server(ABC):
    """One server process and its folder. Usable as a context manager: started inside, stopped at the end.

    Args:
        name: its name in `SERVERS`.
        folder: its data, configuration and log; made when missing.
        program: its executable.
        conf: settings of the server's own configuration file, over ours.
    """

    host = "127.0.0.1"
    user: str
    password: str
    dbname: str
    url: str
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, name: str, folder: Path, program: Path, conf: Conf) -> None:
        self.name = name
        self.folder = folder
        self.program = program
        self.conf = dict(conf)
        self.port = free_port()
        self.log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.prepare()

    @abstractmethod
    def prepare(self) -> None:
        """Make the data folder and the configuration."""

    @abstractmethod
    def argv(self) -> list[str]:
        """The command line."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether it answers as a client expects."""

    def env(self) -> dict[str, str]:
        """The whole environment of the server: nothing of ours leaks into it."""
        return {"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC", "HOME": str(self.folder)}

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    def start(self) -> None:
        """Start it, and return when it is ready.

        Raises:
            ServerFailed: it ended, or was not ready in a minute.
        """
        if self.running:
            return
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.argv(),
                cwd=self.folder,
                env=self.env(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=end_with_parent(),  # noqa: PLW1509 - two system calls, so that none outlives a killed run
            )
        try:
            self._await_ready()
        except ServerFailed:
            self.kill()
            raise

    def stop(self) -> None:
        """Stop it as its vendor says, and return when all of its processes are gone."""
        self._end(self.stop_signal)

    def kill(self) -> None:
        """SIGKILL: it gets no chance to tidy up."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop and start, on the same port, with the same data."""
        self.stop()
        self.start()

    def output(self) -> str:
        """Everything it has written since the first start."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _await_ready(self) -> None:
        assert self._process is not None
        end = time.monotonic() + _START_SECONDS
        while not self.ready():
            if (code := self._process.poll()) is not None:
                raise ServerFailed(f"{self.name} ended with {code} while starting:\n{self.output()[-3000:]}")
            if time.monotonic() > end:
                raise ServerFailed(f"{self.name} was not ready in {_START_SECONDS:g} s:\n{self.output()[-3000:]}")
            time.sleep(0.03)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        children = psutil.Process(self._process.pid).children(recursive=True)
        self._process.send_signal(how)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise ServerFailed(f"{self.name} did not stop:\n{self.output()[-3000:]}") from None
        finally:
            _, alive = psutil.wait_procs(children, timeout=5)
            for process in alive:
                process.kill()


def run(argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], stdin: str, limit: float = _COMMAND_SECONDS) -> str:
    done = subprocess.run(
        argv, cwd=cwd, env=env, input=stdin, capture_output=True, text=True, timeout=limit, check=False
    )
    if done.returncode:
        raise ServerFailed(f"{' '.join(argv)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def which(command: str, name: str) -> str:
    if found := shutil.which(command):
        return found
    raise ServerMissing(name, f"there is no {command}", "make test, as root")


def as_list(value: str | Sequence[str]) -> Sequence[str]:
    return [value] if isinstance(value, str) else value
