"""What psycopg raises, told as our endings. Messages are the server's own text: it never holds the password.

A failed connection carries no SQLSTATE in libpq, only text, so those are told apart by their English wording; a server
that speaks another language to its clients before they are let in ends as `Unreachable`, with its text.
SQLSTATEs: https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

import re
from typing import NamedTuple

import psycopg

from nms_workers.errors import AuthError, ParseError, Refused, TargetError, Timeout, Unreachable


class _Meaning(NamedTuple):
    ending: type[TargetError]
    hint: str


_CONNECTING: tuple[tuple[str, _Meaning], ...] = (
    (r"timeout expired", _Meaning(Timeout, "is there a firewall between, or is it no PostgreSQL?")),
    (r"password authentication failed", _Meaning(AuthError, "check user and password")),
    (r"no password supplied", _Meaning(AuthError, "the server asks for a password: set one")),
    (r"no pg_hba\.conf entry|pg_hba\.conf rejects", _Meaning(AuthError, "allow this host and user in pg_hba.conf")),
    (
        r"authentication failed|role .* (does not exist|is not permitted)",
        _Meaning(AuthError, "check user and pg_hba.conf"),
    ),
    (r"database .* does not exist", _Meaning(Refused, "check dbname")),
    (r"permission denied for database", _Meaning(Refused, "GRANT CONNECT on the database to this role")),
    (r"too many (clients|connections)|connection slots are reserved", _Meaning(Refused, "raise max_connections")),
    (r"not currently accepting connections", _Meaning(Refused, "check dbname")),
    (r"invalid response to SSL negotiation|expected authentication request", _Meaning(ParseError, "is it PostgreSQL?")),
    (r"certificate|SSL", _Meaning(Unreachable, "check sslmode, ca, cert and key")),
    (r"resolve host", _Meaning(Unreachable, "check host")),
    (r"starting up|shutting down|recovery mode", _Meaning(Unreachable, "wait until the server has started")),
)
_RUNNING: dict[str, _Meaning] = {
    "57014": _Meaning(Timeout, "raise statement_timeout, or ask for less"),
    "25P03": _Meaning(Timeout, "raise idle_in_transaction_session_timeout"),
    "42501": _Meaning(Refused, "grant the role pg_monitor"),
    "25006": _Meaning(Refused, "only statements that change nothing are run"),
    "28": _Meaning(AuthError, "check user and pg_hba.conf"),
    "08P01": _Meaning(Refused, "are there values missing, written $1? They are explained from PostgreSQL 16 on"),
    "08": _Meaning(Unreachable, "the connection was lost"),
    "57P": _Meaning(Unreachable, "the server ended the connection: is it restarting?"),
}
_WITH_SECRET = re.compile(r"(password|passfile)\s*=\s*('[^']*'|\S+)|://[^\s@/]*@", re.IGNORECASE)


def connecting(exc: psycopg.Error, address: str) -> TargetError:
    """The ending that a failure to connect to `address` stands for."""
    text = _text(exc)
    for pattern, meaning in _CONNECTING:
        if re.search(pattern, text):
            return meaning.ending(f"cannot connect to {address}: {text}", hint=meaning.hint)
    return Unreachable(f"cannot connect to {address}: {text}", hint="is the server running, and is the port right?")


def running(exc: psycopg.Error) -> TargetError:
    """The ending that a failed statement stands for: by SQLSTATE, its longest known prefix first."""
    state = exc.sqlstate or ""
    for length in (5, 3, 2):
        if meaning := _RUNNING.get(state[:length]):
            return meaning.ending(f"the server says: {_text(exc)}", hint=meaning.hint)
    if state:
        return Refused(f"the server says: {_text(exc)}", hint=(exc.diag.message_hint or "")[:500])
    if isinstance(exc, psycopg.OperationalError | psycopg.InterfaceError):
        return Unreachable(f"the connection was lost: {_text(exc)}", hint="is the server restarting?")
    return ParseError(f"the answer cannot be read: {_text(exc)}")


def _text(exc: psycopg.Error) -> str:
    text = exc.diag.message_primary or str(exc) or type(exc).__name__
    return _WITH_SECRET.sub("(hidden)", " ".join(text.split()))[:500]
