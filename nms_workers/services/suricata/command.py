"""Suricata's command socket: one connection, a handshake, then one JSON object for each command and each answer.

Source: https://docs.suricata.io/en/latest/unix-socket.html.
"""

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from nms_workers.errors import AuthError, NmsError, ParseError, Refused, Timeout, Unreachable
from nms_workers.transport.deadline import deadline, remaining

_VERSION = "0.2"  # of the protocol: since then an answer ends with a newline
_MAX_ANSWER = 64 << 20  # bytes; the counters of 64 threads fill one million
_CHUNK = 65_536
_LONGEST = 600.0  # seconds; the deadline of a command is nearer

_HINTS = {
    "stats not yet synchronized": "it has just started; ask again in a few seconds",
    "Unknown command": "this version of Suricata does not have it",
}
_UNREACHABLE: dict[type[OSError], tuple[type[NmsError], str, str]] = {
    FileNotFoundError: (Unreachable, "there is no such socket", "is Suricata running, with unix-command enabled?"),
    ConnectionRefusedError: (Unreachable, "nobody listens there", "is Suricata running?"),
    PermissionError: (AuthError, "we may not open it", "let the worker's user into the group of the socket"),
    TimeoutError: (Timeout, "no answer in time", "raise timeout, or see what keeps Suricata busy"),
    ConnectionResetError: (Unreachable, "it closed the connection", "see Suricata's log"),
    BrokenPipeError: (Unreachable, "it closed the connection", "see Suricata's log"),
}


class CommandSocket:
    """The command socket of one engine. Connects when first used and anew when the engine was restarted; thread-safe.

    Args:
        path: of the socket.
        timeout: seconds for one whole answer.
    """

    def __init__(self, path: Path, timeout: float) -> None:
        self._path, self._timeout = path, timeout
        self._lock = threading.Lock()
        self._connection: socket.socket | None = None

    def close(self) -> None:
        """Let go of the connection. The next command opens a new one."""
        with self._lock:
            self._drop()

    def ask(self, command: str, arguments: Mapping[str, object] | None = None, *, timeout: float | None = None) -> Any:
        """What the engine answers to one command.

        Args:
            command: as in its `command-list`.
            arguments: of the command.
            timeout: seconds for this answer, where it takes longer than others.

        Raises:
            Unreachable, AuthError, Timeout, ParseError: as their names say.
            Refused: the engine said no; the message has its words.
        """
        request: dict[str, object] = {"command": command} | ({"arguments": arguments} if arguments else {})
        with deadline(timeout or self._timeout), self._locked(command):
            answer = self._exchange(request)
        said = answer.get("message")
        if answer.get("return") == "OK":
            return said
        hint = next((hint for words, hint in _HINTS.items() if words in str(said)), "")
        raise Refused(f"Suricata refused {command}: {str(said)[:300]}", hint=hint)

    @contextmanager
    def _locked(self, command: str) -> Iterator[None]:
        if not self._lock.acquire(timeout=remaining(self._timeout)):
            raise Timeout(f"{self._path}: {command} waited for another command", hint="are the rules being loaded?")
        try:
            yield
        finally:
            self._lock.release()

    def _exchange(self, request: dict[str, object]) -> dict[str, Any]:
        """One answer. The engine may have closed a connection that was kept: then it did not see the command."""
        kept = self._connection is not None
        try:
            return self._send(request)
        except (ConnectionError, _Closed) as exc:
            if not kept:
                raise self._explained(exc, request) from None
        except (OSError, NmsError) as exc:
            raise self._explained(exc, request) from None
        try:
            return self._send(request)
        except (OSError, NmsError) as exc:
            raise self._explained(exc, request) from None

    def _send(self, request: dict[str, object]) -> dict[str, Any]:
        try:
            connection = self._connection or self._opened()
            return self._talk(connection, request)
        except BaseException:  # what follows on this connection might be the answer to this command
            self._drop()
            raise

    def _opened(self) -> socket.socket:
        connection = self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(remaining(self._timeout))
        connection.connect(str(self._path))
        if self._talk(connection, {"version": _VERSION}).get("return") != "OK":
            raise ParseError(
                f"{self._path} does not speak version {_VERSION} of the protocol", hint="is it Suricata 6+?"
            )
        return connection

    def _talk(self, connection: socket.socket, request: dict[str, object]) -> dict[str, Any]:
        connection.settimeout(remaining(_LONGEST))
        connection.sendall(msgspec.json.encode(request) + b"\n")
        answer = bytearray()
        while True:
            connection.settimeout(remaining(_LONGEST))
            part = connection.recv(_CHUNK)
            if not part:
                raise _Closed
            answer += part
            if answer.isspace():  # the newline of the answer before, come by itself
                answer.clear()
                continue
            if len(answer) > _MAX_ANSWER:
                raise ParseError(f"an answer of {self._path} is longer than {_MAX_ANSWER >> 20} MiB")
            if part.endswith((b"\n", b"}")):  # the handshake's answer may come without a newline
                whole = _decoded(answer)
                if whole is not None:
                    return whole
                if part.endswith(b"\n"):
                    raise ParseError(f"{self._path} does not answer as Suricata does", hint="is it the command socket?")

    def _explained(self, exc: Exception, request: dict[str, object]) -> NmsError:
        if isinstance(exc, _Closed):
            hint = "does this version know the command and its arguments? see Suricata's log"
            what = request.get("command", "the handshake")
            return Unreachable(f"{self._path}: Suricata closed the connection on {what}", hint=hint)
        if isinstance(exc, NmsError):
            return exc
        for kind, (error, why, hint) in _UNREACHABLE.items():
            if isinstance(exc, kind):
                return error(f"{self._path}: {why}", hint=hint)
        return Unreachable(f"{self._path}: {getattr(exc, 'strerror', None) or type(exc).__name__}")

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Closed(NmsError):
    """The engine closed the connection in place of an answer: that is how it refuses missing arguments."""

    def __init__(self) -> None:
        super().__init__("the connection was closed")


def _decoded(answer: bytearray) -> dict[str, Any] | None:
    try:
        whole = msgspec.json.decode(bytes(answer))
    except msgspec.DecodeError:
        return None
    return whole if isinstance(whole, dict) else None
