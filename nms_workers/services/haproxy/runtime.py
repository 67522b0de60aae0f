"""HAProxy's runtime API: one connection and one command, answered with text until the connection is closed.

There is no status: whoever asks has to know what a good answer looks like.
Source: https://docs.haproxy.org/2.6/management.html#9.3.
"""

import re
import socket
from urllib.parse import urlsplit

from nms_workers.errors import AuthError, NmsError, ParseError, Refused, Timeout, Unreachable
from nms_workers.transport.deadline import deadline, remaining

MAX_ANSWER = 64 << 20  # bytes; statistics of 100 000 servers
_CHUNK = 65_536

_COMMAND = re.compile(r"([^\x00-\x1f\x7f;\\<]|\\ )+")  # a line break or `;` ends it, `<<` asks for more lines
_HINTS = {
    "Permission denied": "give the stats socket `level admin`, or take another one",
    "Unknown command": "this version of HAProxy does not have it",
    "No such server": "see get_servers",
    "No such backend": "see get_backends",
    "Can't find backend": "see get_backends",
    "No such frontend": "see get_stats",
    "static LB algorithm": "its `balance` takes no weights in between: roundrobin and leastconn do",
    "dynamic load balancing": "its `balance` takes no servers at run time: roundrobin and leastconn do",
    "still attached": "its connections are still open: drain it, and try again when they have ended",
    "has still connections": "its connections are still open: drain it, and try again when they have ended",
}
_FAULTS: dict[type[OSError], tuple[type[NmsError], str, str]] = {
    FileNotFoundError: (Unreachable, "there is no such socket", "is HAProxy running, with this `stats socket`?"),
    ConnectionRefusedError: (Unreachable, "nobody listens there", "is HAProxy running, with this `stats socket`?"),
    PermissionError: (AuthError, "we may not open it", "see user, group and mode of the `stats socket`"),
    TimeoutError: (Timeout, "no whole answer in time", "raise socket_timeout, or see what keeps HAProxy busy"),
    ConnectionResetError: (Unreachable, "it closed the connection", "are all connections of the socket in use?"),
    BrokenPipeError: (Unreachable, "it closed the connection", "are all connections of the socket in use?"),
    socket.gaierror: (Unreachable, "there is no such host", "check the host in the socket"),
}


class RuntimeSocket:
    """The runtime API of one process. Keeps nothing open, so it may be shared between threads.

    Args:
        where: a path, or `tcp://host:port`.
        timeout: seconds for one whole answer.
    """

    def __init__(self, where: str, timeout: float) -> None:
        self._where, self._timeout = where, timeout

    def ask(self, command: str, *, max_lines: int | None = None, experimental: bool = False) -> str:
        """What it answers to one command, without the empty line at the end.

        Args:
            command: one; names in it are `quoted`.
            max_lines: stop reading after so many.
            experimental: also if this version calls the command experimental.

        Raises:
            Unreachable, AuthError, Timeout: as their names say.
            ParseError: the answer is cut off or too long.
            Refused: the command is unknown there, or the socket's level does not allow it.
        """
        if not _COMMAND.fullmatch(command):
            raise Refused(f"{command!r:.80} cannot be said in one command")
        with deadline(self._timeout):
            answer = self._exchange(command, max_lines)
            if experimental and answer.startswith("This command is restricted to experimental mode"):
                answer = self._exchange(f"experimental-mode on; {command}", max_lines).lstrip("\n")
        if answer.startswith(("Permission denied", "Unknown command")):
            raise refused(command, answer)
        return answer

    def _exchange(self, command: str, max_lines: int | None) -> str:
        answer = bytearray()
        try:
            with self._connected() as connection:
                connection.sendall(command.encode() + b"\n")
                while part := self._part(connection):
                    answer += part
                    if len(answer) > MAX_ANSWER:
                        raise ParseError(f"{self._where} answered {command} with more than {MAX_ANSWER >> 20} MiB")
                    if max_lines is not None and answer.count(b"\n") >= max_lines:
                        return b"\n".join(answer.split(b"\n")[:max_lines]).decode("utf-8", "replace")
        except OSError as exc:
            raise self._explained(exc) from None
        if not answer:
            hint = "is it HAProxy's socket? is HAProxy stopping?"
            raise Unreachable(f"{self._where}: the connection was closed without an answer", hint=hint)
        if not answer.endswith(b"\n"):
            raise ParseError(f"the answer of {self._where} to {command} is cut off", hint="is it HAProxy's socket?")
        return answer.decode("utf-8", "replace").rstrip("\n")

    def _connected(self) -> socket.socket:
        if self._where.startswith("/"):
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.settimeout(remaining(self._timeout))
                connection.connect(self._where)
            except BaseException:
                connection.close()
                raise
            return connection
        place = urlsplit(self._where)
        return socket.create_connection((place.hostname, place.port), remaining(self._timeout))

    def _part(self, connection: socket.socket) -> bytes:
        connection.settimeout(remaining(self._timeout))
        return connection.recv(_CHUNK)

    def _explained(self, exc: OSError) -> NmsError:
        for kind, (error, why, hint) in _FAULTS.items():
            if isinstance(exc, kind):
                return error(f"{self._where}: {why}", hint=hint)
        return Unreachable(f"{self._where}: {exc.strerror or type(exc).__name__}")


def quoted(name: str) -> str:
    """A name that HAProxy told us, as it is written in a command.

    Raises:
        Refused: it cannot be written there.
    """
    if not can_be_said(name):
        raise Refused(f"the name {name!r:.80} cannot be written in a command")
    return name.replace(" ", "\\ ")


def can_be_said(name: str) -> bool:
    """Whether a name can be written in a command."""
    return bool(_COMMAND.fullmatch(name.replace(" ", "\\ "))) and name.isprintable()


def refused(command: str, answer: str) -> Refused:
    """That HAProxy said no, in its words."""
    words = " ".join("".join(c if c.isprintable() else " " for c in answer[:400]).split())[:200]
    hint = next((hint for part, hint in _HINTS.items() if part in answer), "")
    return Refused(f"HAProxy refused `{command}`: {words or 'without a word'}", hint=hint)
