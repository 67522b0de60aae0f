"""The folder of an embedded server: one program at a time, and what has to outlive it."""

import fcntl
import os
import secrets
import socket
import time
from datetime import UTC, datetime
from pathlib import Path

import psutil

from nms_workers.errors import ConfigError

HOST = "127.0.0.1"
_SOCKET_PATH_LIMIT = 107  # bytes: sun_path of unix(7), without the closing zero
_GONE_SECONDS = 15.0


class Folder:
    """A server's folder: `data`, `password`, `url`, `port` and `lock`. Mode 700, and 600 for each file.

    Args:
        path: made by `hold` when missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()  # as the system names the working folder of a server
        self.data = self.path / "data"
        self.password_file = self.path / "password"
        self.url_file = self.path / "url"
        self._lock: int | None = None

    def hold(self) -> None:
        """Take the folder for this process. The kernel gives it back when the process ends, however it ends.

        Raises:
            ConfigError: another process has it, or a server still runs in it.
        """
        if self._lock is not None:
            return
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(lock, self.path)
            self._await_nobody()
        except BaseException:
            os.close(lock)
            raise
        self._lock = lock

    def release(self) -> None:
        """Give the folder back."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def password(self, *, may_create: bool = True) -> str:
        """The password of the server, generated at the first call.

        Raises:
            ConfigError: the file is gone and may not be made anew.
        """
        if not self.password_file.exists():
            if not may_create:
                hint = "put the file back from a backup, or start with an empty folder"
                raise ConfigError(f"the password of the server, {self.password_file}, is gone", hint=hint)
            write_private(self.password_file, secrets.token_urlsafe(24))
        return self.password_file.read_text(encoding="utf-8")

    def port(self) -> int:
        """The port of the last time; a free one when there was none, or when somebody else has it by now."""
        memory = self.path / "port"
        if memory.exists() and (text := memory.read_text(encoding="utf-8").strip()).isdecimal() and _is_free(int(text)):
            return int(text)
        port = free_port()
        write_private(memory, str(port))
        return port

    def takes_socket(self, name: str) -> bool:
        """Whether the path of a unix socket of this name in the folder is short enough for the system."""
        return len(os.fsencode(self.path / name)) <= _SOCKET_PATH_LIMIT

    def _await_nobody(self) -> None:
        """Servers work inside their data folder: wait for those that a killed program left behind to end.

        Whatever pid file is there afterwards is stale, also when another process has got its number by now.
        """
        end = time.monotonic() + _GONE_SECONDS
        while pids := [p.pid for p in psutil.process_iter(["cwd"]) if p.info["cwd"] == str(self.data)]:
            if time.monotonic() > end:
                numbers = " ".join(map(str, pids))
                hint = f"stop it: kill -INT {numbers}"
                raise ConfigError(f"a server that nobody looks after still runs in {self.data}", hint=hint)
            time.sleep(0.05)


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on right now."""
    with socket.create_server((HOST, 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def write_private(file: Path, text: str) -> None:
    """Replace a file in one step; others can never read it, not even for a moment."""
    new = file.with_name(file.name + ".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        out.write(text)
    new.replace(file)


def _lock(lock: int, path: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(lock, 200).decode(errors="replace").strip() or "another process"
        hint = "stop that one first, or choose another folder for the data"
        raise ConfigError(f"{path} is in use by {holder}", hint=hint) from None
    started = datetime.now(UTC).isoformat(timespec="seconds")
    os.ftruncate(lock, 0)
    os.write(lock, f"process {os.getpid()} on {socket.gethostname()} since {started}\n".encode())


def _is_free(port: int) -> bool:
    try:
        socket.create_server((HOST, port)).close()
    except (OSError, OverflowError):
        return False
    return True
