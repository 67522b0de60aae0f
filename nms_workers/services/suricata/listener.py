"""Where Suricata writes its event log to a socket, we listen: what comes is kept in a file until it was read.

The file makes a stream as good as a log: it outlives the process that listens, and any worker of the host may read it.
One process listens; when it ends, the next that reads takes its place, and Suricata connects anew.
Source: https://docs.suricata.io/en/latest/output/eve/eve-json-output.html#output-types (`unix_stream`).
"""

import fcntl
import socket
import socketserver
import threading
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from nms_workers.errors import Refused
from nms_workers.services.suricata.logfile import MAX_LINE

_MAX_FILE = 64 << 20  # bytes until the file is rotated
_ROTATED = 2  # files kept beside it


class Listener:
    """Listens at a socket while it is open.

    Args:
        path: of the socket.
        kept: the file that what comes is appended to.
    """

    def __init__(self, path: Path, kept: Path) -> None:
        self._path, self._kept = path, kept
        self._starting = threading.Lock()
        self._lock: BinaryIO | None = None
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def ensure(self) -> None:
        """Listen, unless this or another process does.

        Raises:
            Refused: we cannot listen there.
        """
        with self._starting:
            if self._server is not None:
                return
            try:
                lock = self._path.with_name(self._path.name + ".lock").open("wb")
            except OSError as exc:
                raise self._refused(exc) from None
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                return
            try:
                self._path.unlink(missing_ok=True)  # left by a process that was killed: we hold the lock
                self._server = _Server(str(self._path), self._kept)
            except OSError as exc:
                lock.close()
                raise self._refused(exc) from None
            self._lock = lock
            self._thread = threading.Thread(target=self._server.serve_forever, args=(0.2,), daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop listening; what came is kept."""
        with self._starting:
            if self._server is None or self._thread is None or self._lock is None:
                return
            self._server.shutdown()
            self._thread.join()
            self._server.end()
            self._path.unlink(missing_ok=True)
            self._lock.close()
            self._server = self._thread = self._lock = None

    def _refused(self, exc: OSError) -> Refused:
        hint = "set eve_socket to a path where the worker may write"
        return Refused(f"we cannot listen at {self._path}: {exc.strerror or exc}", hint=hint)


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def __init__(self, path: str, kept: Path) -> None:
        self.kept = kept
        self._writing = threading.Lock()
        self._out = kept.open("ab")
        self.connections: set[socket.socket] = set()
        super().__init__(path, _Lines)

    def append(self, line: bytes) -> None:
        """Keep one line."""
        with self._writing:
            if self._out.closed:
                return
            if self._out.tell() + len(line) > _MAX_FILE:
                self._rotate()
            self._out.write(line)
            self._out.flush()

    def end(self) -> None:
        """Close everything; Suricata sees its connection closed, and tries again."""
        self.server_close()
        for one in list(self.connections):
            with suppress(OSError):  # it has just been closed
                one.shutdown(socket.SHUT_RDWR)
        with self._writing:
            self._out.close()

    def _rotate(self) -> None:
        self._out.close()
        names = [self.kept, *(self.kept.with_name(f"{self.kept.name}.{n}") for n in range(1, _ROTATED + 1))]
        for old, new in reversed(list(pairwise(names))):
            if old.exists():
                old.replace(new)
        self._out = self.kept.open("ab")


class _Lines(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        self.server.connections.add(self.connection)
        try:
            while line := self.rfile.readline(MAX_LINE):
                if line.endswith(b"\n") or len(line) == MAX_LINE:  # else the connection ended inside a line
                    self.server.append(line)
        finally:
            self.server.connections.discard(self.connection)
