"""One conversation with a fail2ban server over its socket.

Every conversation connects anew, by path: a server that was restarted, or a folder that was made anew under a
container, is found without a thought, and there is no connection that could have died unseen.

Source: request and answer are pickles that end with a mark; fail2ban's protocol.py and asyncserver.py, 0.11 to 1.1.
"""

import errno
import pickle
import socket
import struct
import time
from typing import Any, Self

from nms_workers.errors import AuthError, NmsError, ParseError, Refused, Timeout, Unreachable
from nms_workers.services.fail2ban import wire
from nms_workers.services.fail2ban.target import Fail2banTarget
from nms_workers.transport.deadline import remaining

_END = b"<F2B_END_COMMAND>"
_PROTO = b"\x80"  # every pickle since protocol 2 begins with it
_CHUNK = 65_536
_LEAST_WAIT = 0.001  # seconds; the kernel takes 0 for ever

_PERMISSION_HINT = "the socket is root's: run the worker beside it as root, or let its group into the folder and socket"
_GONE_HINT = "is fail2ban running? in a container mount the folder of the socket, not the socket"
_ERRORS: dict[int, tuple[type[NmsError], str, str]] = {
    errno.ENOENT: (Unreachable, "is not there", _GONE_HINT),
    errno.ENOTDIR: (Unreachable, "is not there", _GONE_HINT),
    errno.ECONNREFUSED: (Unreachable, "has nobody listening", _GONE_HINT),
    errno.ECONNRESET: (Unreachable, "closed the connection", "look at fail2ban's log"),
    errno.EPIPE: (Unreachable, "closed the connection", "look at fail2ban's log"),
    errno.EACCES: (AuthError, "does not let us in", _PERMISSION_HINT),
    errno.EPERM: (AuthError, "does not let us in", _PERMISSION_HINT),
    errno.EPROTOTYPE: (ParseError, "is no stream socket", "does a fail2ban server listen there?"),
    errno.EAGAIN: (Timeout, "takes no connection", "is the server stopped, or busy with an action?"),
    errno.ETIMEDOUT: (Timeout, "gave no answer in time", "is the server stopped, or busy with an action?"),
}


class NoSuchJail(Refused):
    """No jail of this name runs."""


class ShuttingDown(Unreachable):
    """The server still answers, and only to say that it is ending."""


class Conversation:
    """A connection, open from the beginning of a `with` to its end. Not to be shared between threads.

    Raises:
        Unreachable, AuthError, Timeout, ParseError: no connection.
    """

    def __init__(self, target: Fail2banTarget) -> None:
        self._target = target
        self._socket = self._connected()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, *command: Any, limit: float | None = None) -> Any:
        """The answer to a command: plain values.

        Args:
            command: words, and for `reload` lists of them; nothing in it is quoted or parsed on the way.
            limit: seconds for the whole answer; default: the target's `timeout`.

        Raises:
            NoSuchJail, Refused: the server says no.
            Unreachable, Timeout, ParseError: as their names say.
        """
        name = " ".join([word for word in command if isinstance(word, str)][:3])
        ends_at = time.monotonic() + remaining(limit or self._target.timeout)
        try:
            self._socket.settimeout(max(ends_at - time.monotonic(), _LEAST_WAIT))
            self._socket.sendall(pickle.dumps(list(command), protocol=2) + _END)
            answer = self._received(ends_at, name)
        except TimeoutError:
            raise self._error(OSError(errno.ETIMEDOUT, ""), f" to {name!r}") from None
        except OSError as exc:
            raise self._error(exc) from None
        return self._value(wire.loads(answer), name)

    def _connected(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        limit = max(remaining(self._target.timeout), _LEAST_WAIT)
        # The server's queue holds one connection. The kernel waits for a place in it only with a limit of its own:
        # with Python's the socket would be non-blocking, and connect() fail at once.
        seconds, rest = divmod(limit, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", int(seconds), int(rest * 1e6)))
        try:
            sock.connect(str(self._target.socket))
        except OSError as exc:
            sock.close()
            raise self._error(exc) from None
        return sock

    def _received(self, ends_at: float, name: str) -> bytes:
        """The bytes of one answer, without the mark."""
        answer = bytearray()
        while not answer.endswith(_END):
            left = ends_at - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            chunk = self._socket.recv(_CHUNK)
            if not chunk:
                raise self._cut_off(bytes(answer), name)
            answer += chunk
            if not answer.startswith(_PROTO):
                raise ParseError(f"{self._target.socket} does not answer as fail2ban does", hint="check the socket")
            if len(answer) > wire.MAX_ANSWER:
                raise ParseError(f"the answer to {name!r} is longer than {wire.MAX_ANSWER >> 20} MiB")
        return bytes(answer[: -len(_END)])

    def _cut_off(self, answer: bytes, name: str) -> NmsError:
        if answer:
            return ParseError(f"the answer of {self._target.socket} to {name!r} was cut off", hint="see fail2ban's log")
        return self._error(OSError(errno.ECONNRESET, ""))

    def _value(self, answer: Any, name: str) -> Any:
        match answer:
            case (0, value):
                return value
            case (1, wire.ErrorText(kind, text)):
                raise _refusal(kind, _line(text), name)
            case ["SHUTDOWN"]:
                raise ShuttingDown(f"the fail2ban server at {self._target.socket} is shutting down")
            case str():  # it could not read our request, or fell over it
                raise Refused(f"fail2ban could not take {name!r}: {_line(answer)}")
            case _:
                raise ParseError(f"{self._target.socket} answers {name!r} in a shape we do not know")

    def _error(self, exc: OSError, what: str = "") -> NmsError:
        kind, why, hint = _ERRORS.get(exc.errno or 0, (Unreachable, f"cannot be used ({exc.strerror or exc})", ""))
        return kind(f"the socket {self._target.socket} {why}{what}", hint=hint)


def _refusal(kind: str, text: str, name: str) -> Refused:
    if kind == "UnknownJailException":
        return NoSuchJail(f"no jail {text!r} runs", hint="was it stopped meanwhile?")
    return Refused(f"fail2ban refused {name!r}: {text or kind}")


def _line(text: str) -> str:
    """One line of a text from outside, fit to be shown."""
    return "".join(char if char.isprintable() else " " for char in text[:200]).strip()
