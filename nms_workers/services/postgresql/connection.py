"""One connection to one database, opened when it is needed, kept, shared by threads, with a time limit on both sides.

Every read is a read-only transaction of its own, with its limits set by `SET LOCAL` (through
`set_config`), and nothing is prepared: that is all PgBouncer needs in transaction pooling.
"""

import threading
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import psycopg
from pydantic import Field, PositiveInt

from nms_workers.errors import TargetError, Timeout, Unreachable
from nms_workers.service import TargetSettings
from nms_workers.services.postgresql import failures
from nms_workers.transport.deadline import remaining
from nms_workers.transport.secret import Secret

Row: TypeAlias = tuple[Any, ...]
Seconds: TypeAlias = Annotated[float, Field(gt=0, le=3600)]
T = TypeVar("T")

# The server is told to give up a little before we do, so that the connection survives a slow statement.
_SERVER_SHARE = 0.9
# Waiting for a lock ends sooner: somebody else's ALTER TABLE must cost us one statement, not the poll.
_LOCK_SHARE = 0.25
# Only the system's own objects are found by bare names: nobody can slip a function of theirs under our statements
# (https://wiki.postgresql.org/wiki/A_Guide_to_CVE-2018-1058). The extension's schema is the one exception.
_LIMITS = """
SELECT pg_catalog.set_config('statement_timeout', %(limit)s, true),
       pg_catalog.set_config('lock_timeout', %(lock_limit)s, true),
       CASE WHEN %(own_names)s THEN pg_catalog.set_config('search_path', pg_catalog.concat_ws(', ', 'pg_catalog', (
           SELECT pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_extension e
           JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'pg_stat_statements')), true) END
"""


class Target(TargetSettings):
    """One PostgreSQL server. Durations are seconds; names of databases may hold `*` and `?`.

    Args:
        host: name, address, or the folder of a Unix socket.
        dbname: the database to connect to; its tables and indexes are read.
        sslmode, ca, cert, key: as in https://www.postgresql.org/docs/current/libpq-ssl.html.
        databases, databases_exclude: whose figures are read.
        tables_in: databases besides `dbname` whose tables and indexes are read, over one more connection at a time.
        max_databases, max_tables, max_indexes: at most this many, the largest tables and indexes of each database.
        top_queries: how many statements of pg_stat_statements.
        blocked_after, long_transaction: from when on a waiting session or an open transaction is worth an event.
        wraparound_ratio: the share of transaction ids used from which on a database is worth an event.
    """

    host: str = Field(default="127.0.0.1", min_length=1, max_length=1024)
    port: int = Field(default=5432, ge=1, le=65_535)
    dbname: str = Field(default="postgres", min_length=1, max_length=63)
    user: str = Field(default="postgres", min_length=1, max_length=63)
    password: Secret | None = None
    sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] = "prefer"
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    connect_timeout: Seconds = 5.0
    statement_timeout: Seconds = 10.0
    databases: tuple[str, ...] = ("*",)
    databases_exclude: tuple[str, ...] = ()
    tables_in: tuple[str, ...] = ()
    max_databases: PositiveInt = Field(default=100, le=1000)
    max_tables: PositiveInt = Field(default=50, le=1000)
    max_indexes: PositiveInt = Field(default=250, le=5000)
    top_queries: PositiveInt = Field(default=20, le=500)
    blocked_after: Seconds = 60.0
    long_transaction: float = Field(default=3600.0, gt=0)
    wraparound_ratio: float = Field(default=0.5, gt=0, lt=1)


class _TimedConnection(psycopg.Connection[Row]):
    """A connection whose waiting ends: `statement_timeout` does not help when the server itself does not answer."""

    ends_at = float("inf")

    def wait(self, gen: Generator[Any, Any, T], interval: float = 0.1, timeout: float | None = None) -> T:
        left = max(0.0, self.ends_at - time.monotonic())
        return super().wait(gen, interval, left if timeout is None else min(left, timeout))


class Database:
    """The kept connection to one database of a target.

    Raises (every method that reads):
        AuthError, Unreachable, Timeout, Refused, ParseError: as `failures` tells them apart.
    """

    def __init__(self, target: Target, dbname: str) -> None:
        self.target, self.name = target, dbname
        self._lock = threading.RLock()
        self._connection: _TimedConnection | None = None

    def close(self) -> None:
        """Close the connection; the next read opens a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    @property
    def version(self) -> int:
        """The server's `server_version_num`, as it said when we connected: 150018 is 15.18."""
        with self._held():
            return self._connected().info.server_version

    def rows(self, sql: str, parameters: Mapping[str, object] | None = None) -> list[Row]:
        """What one statement yields. Named parameters are written `%(name)s`, and a percent sign is written `%%`."""
        with self._transaction(own_names=True) as connection:
            return connection.execute(sql.encode(), parameters or {}).fetchall()

    def one_statement(self, sql: str, unknown: int = 0) -> list[Row]:
        """What a statement written by somebody else yields, with the names of the role's own search path.

        It goes by the extended protocol, where the server itself refuses more than one statement.

        Args:
            unknown: how many of `$1`, `$2`, ... stand in it.
        """
        with self._transaction(own_names=False) as connection:
            cursor = psycopg.RawCursor(connection)
            rows = cursor.execute(sql.encode(), [None] * unknown, binary=True).fetchall()
            # It is known to be one statement now: ask again without the NULLs, which the planner takes for values.
            if unknown:
                rows = cursor.execute(sql.encode()).fetchall()
            connection.rollback()
            return rows

    @contextmanager
    def _transaction(self, *, own_names: bool) -> Iterator[_TimedConnection]:
        with self._held():
            connection = self._begun(own_names=own_names)
            try:
                yield connection
                connection.commit()  # not a rollback: people watch how many of those there are
            except psycopg.Error as exc:
                raise self._ended(connection, exc) from None

    def _begun(self, *, own_names: bool) -> _TimedConnection:
        """A connection inside a transaction that has its limits.

        A connection that ended since the last read (a restart, `idle_session_timeout`, a proxy) is opened anew, once.
        """
        while True:
            kept, connection = self._connection is not None, self._connected()
            limit = remaining(self.target.statement_timeout)
            connection.ends_at = time.monotonic() + limit
            limits = {"limit": _milliseconds(limit * _SERVER_SHARE), "lock_limit": _milliseconds(limit * _LOCK_SHARE)}
            try:
                connection.execute(_LIMITS, limits | {"own_names": own_names})
            except psycopg.Error as exc:
                ended = self._ended(connection, exc)
                if kept and isinstance(ended, Unreachable):
                    self.close()
                    continue
                raise ended from None
            return connection

    def _ended(self, connection: _TimedConnection, exc: psycopg.Error) -> TargetError:
        late = exc.sqlstate is None and time.monotonic() >= connection.ends_at
        if late or connection.broken or not self._rolled_back(connection):
            self.close()
        if late:
            return Timeout(
                f"no answer from {self.address} in time", hint="raise statement_timeout, or look at the server"
            )
        return failures.running(exc)

    @staticmethod
    def _rolled_back(connection: _TimedConnection) -> bool:
        connection.ends_at = time.monotonic() + 1.0
        try:
            connection.rollback()
        except psycopg.Error:
            return False
        return True

    @contextmanager
    def _held(self) -> Iterator[None]:
        if not self._lock.acquire(timeout=remaining(self.target.connect_timeout + self.target.statement_timeout)):
            raise Timeout(f"the one connection to {self.address} was busy all the time", hint="poll less often")
        try:
            yield
        finally:
            self._lock.release()

    def _connected(self) -> _TimedConnection:
        if self._connection is None or self._connection.closed:
            limit = remaining(self.target.connect_timeout)
            try:
                self._connection = _TimedConnection.connect(**self._parameters(limit))
            except psycopg.Error as exc:
                raise failures.connecting(exc, self.address) from None
            self._connection.read_only = True
        return self._connection

    def _parameters(self, limit: float) -> dict[str, Any]:
        target = self.target
        files = {"sslrootcert": target.ca, "sslcert": target.cert, "sslkey": target.key}
        return {
            "host": target.host,
            "port": target.port,
            "dbname": self.name,
            "user": target.user,
            "password": target.password.reveal() if target.password else None,
            "sslmode": target.sslmode,
            "connect_timeout": max(2, int(limit)),  # libpq takes whole seconds, and no less than two
            "application_name": "nms-workers",
            "client_encoding": "UTF8",  # in a SQL_ASCII database psycopg would hand us bytes for text
            "prepare_threshold": None,
            **{name: str(path) for name, path in files.items() if path},
        }

    @property
    def address(self) -> str:
        """Where it is, for people: `host:port/database`."""
        return f"{self.target.host}:{self.target.port}/{self.name}"


def _milliseconds(seconds: float) -> str:
    return f"{max(1, int(seconds * 1000))}ms"
