"""What requests, urllib3 and the operating system raise, told as our own errors, without anything secret in them."""

import errno
import socket
import ssl
from collections.abc import Iterator
from http.client import BadStatusLine, IncompleteRead

from urllib3.exceptions import (
    ConnectTimeoutError,
    DecodeError,
    LocationParseError,
    NameResolutionError,
    NewConnectionError,
    ProxyError,
    ReadTimeoutError,
)

from nms_workers.errors import AuthError, ConfigError, NmsError, ParseError, Timeout, Unreachable
from nms_workers.transport.tls import tls_fault

_Meaning = tuple[type[NmsError], str, str]

_NO_NAME: _Meaning = (Unreachable, "no such name", "check the name in the url, and DNS")
_STALL: _Meaning = (Timeout, "no whole answer in time", "is it overloaded? raise timeout.read, or the poll's deadline")
_CLOSED: _Meaning = (
    Unreachable,
    "it closed the connection in the middle",
    "look at the target's log, and at firewalls",
)
_NO_ROUTE: _Meaning = (Unreachable, "there is no route to it", "look at addresses, routes and firewalls")

# The nearest class in the order of inheritance counts; None: what caused it says more.
_MEANINGS: dict[type, _Meaning | None] = {
    Timeout: _STALL,
    NameResolutionError: _NO_NAME,
    socket.gaierror: _NO_NAME,
    NewConnectionError: None,
    ConnectTimeoutError: (
        Unreachable,
        "no connection in time",
        "is it running, and does a firewall drop what we send?",
    ),
    ConnectionRefusedError: (Unreachable, "nothing listens on that port", "is it running, and is the port right?"),
    ConnectionResetError: _CLOSED,
    BrokenPipeError: _CLOSED,
    ReadTimeoutError: _STALL,
    TimeoutError: _STALL,
    IncompleteRead: (ParseError, "the answer was cut off", "look at the target's log and at any proxy in between"),
    DecodeError: (ParseError, "the answer cannot be decompressed", "look at any proxy in between"),
    BadStatusLine: (ParseError, "the answer is no HTTP", "is the port right, or does it want https://?"),
    LocationParseError: (ConfigError, "that is no URL", ""),
}


def fault(error: BaseException, where: str, host: str) -> NmsError:
    """The error of ours that says what `error` means.

    Args:
        error: what requests, urllib3 or a socket raised.
        where: method and URL for the message, without query.
        host: name or address, for TLS.
    """
    causes = list(_causes(error))
    if any(isinstance(cause, ProxyError) for cause in causes):
        where += " through the proxy"
    for cause in causes:
        if isinstance(cause, ssl.SSLError):
            return tls_fault(cause, host)
        if meaning := _meaning(cause):
            kind, what, hint = meaning
            return kind(f"{where}: {what}", hint=hint)
    return Unreachable(f"{where}: no answer ({type(causes[-1]).__name__})", hint="look at the target's log")


def _meaning(cause: BaseException) -> _Meaning | None:
    if isinstance(cause, OSError):
        if cause.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
            return _NO_ROUTE
        if str(cause).startswith("Tunnel connection failed: 407"):  # http.client says it in words only
            return AuthError, "the proxy wants credentials", "check proxy_username and proxy_password"
    known = next((kind for kind in type(cause).__mro__ if kind in _MEANINGS), None)
    return _MEANINGS[known] if known else None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what led to it, outermost first. Libraries wrap by cause, by context and by argument."""
    seen: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, BaseException) and one not in seen:
            seen.append(one)
            waiting += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
            yield one
