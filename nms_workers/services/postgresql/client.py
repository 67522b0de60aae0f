"""A client for one PostgreSQL server, 13 to 18: typed answers about its state, and any statement with a time limit.

```python
client = PostgresqlClient(Target(host="db1", user="monitor", password=Secret("env:DB1_PASSWORD")))
for table in client.get_table_sizes(limit=10):
    print(table.schema, table.name, table.total_bytes)
```
Reads need a role that is a member of `pg_monitor`.
Views: https://www.postgresql.org/docs/current/monitoring-stats.html
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any, Literal, TypeAlias, TypeVar

import msgspec

from nms_workers.errors import ParseError, Refused
from nms_workers.services.postgresql.connection import Database, Row, Target

OLDEST = 13
SlowQueryOrder: TypeAlias = Literal["total", "mean", "max", "calls"]
T = TypeVar("T")

_ONLY_READS = re.compile(
    r"(?:\s+|--[^\n]*(?:\n|\Z)|/\*.*?\*/|\()*(select|with|values|table)\b", re.IGNORECASE | re.DOTALL
)
_UNKNOWN = re.compile(r"\$(\d{1,4})\b")


class ServerStats(msgspec.Struct, frozen=True):
    """The server at a glance. Sizes are bytes, durations seconds, counters since `stats_reset` of each database."""

    version: str
    started: datetime
    in_recovery: bool
    connections: int
    connections_max: int
    active: int
    waiting_for_locks: int
    longest_transaction: float
    commits: int
    rollbacks: int
    deadlocks: int
    cache_hit_ratio: float | None
    size: int


class DatabaseStats(msgspec.Struct, frozen=True):
    """One database. Size in bytes (None: no right to see it), counters since `stats_reset`."""

    name: str
    size: int | None
    connections: int
    commits: int
    rollbacks: int
    rows_returned: int
    rows_fetched: int
    rows_inserted: int
    rows_updated: int
    rows_deleted: int
    cache_hit_ratio: float | None
    conflicts: int
    temp_files: int
    temp_bytes: int
    deadlocks: int
    transaction_id_age: int
    stats_reset: datetime | None


class ActiveConnection(msgspec.Struct, frozen=True):
    """One client's session. Durations are seconds; `query` is cut, and None when the role may not see it."""

    pid: int
    database: str | None
    user: str | None
    application: str | None
    address: str | None
    state: str | None
    wait_type: str | None
    wait: str | None
    connected: float | None
    in_transaction: float | None
    in_state: float | None
    blocked_by: list[int]
    query: str | None


class TableSize(msgspec.Struct, frozen=True):
    """One table with its indexes and TOAST, in bytes; rows are the planner's estimate."""

    database: str
    schema: str
    name: str
    rows: int
    table_bytes: int
    index_bytes: int
    toast_bytes: int
    total_bytes: int


class SlowQuery(msgspec.Struct, frozen=True):
    """One statement as pg_stat_statements knows it, constants replaced. Times are seconds since its reset."""

    query_id: int
    database: str
    user: str
    calls: int
    rows: int
    total: float
    mean: float
    max: float
    share: float
    cache_hit_ratio: float | None
    temp_blocks_written: int
    query: str


class QueryPlan(msgspec.Struct, frozen=True):
    """A plan as EXPLAIN sees it.

    Args:
        total_cost: in the planner's units.
        planning, execution: seconds; None unless it was run.
        sequential_scans: the tables that are read from end to end.
        plan: the whole plan, as in https://www.postgresql.org/docs/current/sql-explain.html with FORMAT JSON.
    """

    total_cost: float
    estimated_rows: int
    actual_rows: float | None
    planning: float | None
    execution: float | None
    sequential_scans: list[str]
    plan: dict[str, Any]


class PostgresqlClient:
    """One PostgreSQL server.

    Raises (every method that reads):
        AuthError, Unreachable: there is no connection.
        Timeout: the statement took longer than `statement_timeout` or what is left of the deadline.
        Refused: a privilege or an extension is missing, or the statement is not allowed.
        ParseError: it is no PostgreSQL, or not the answer it promises.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self._main = Database(target, target.dbname)

    def close(self) -> None:
        """Close the connection; the next read opens a new one."""
        self._main.close()

    @property
    def major(self) -> int:
        """The server's major version.

        Raises:
            Refused: it is older than PostgreSQL 13.
        """
        major = self._main.version // 10_000
        if major < OLDEST:
            raise Refused(
                f"{self._main.address} is PostgreSQL {major}", hint=f"{OLDEST} is the oldest that can be read"
            )
        return major

    def rows(self, sql: str, parameters: Mapping[str, object] | None = None) -> list[Row]:
        """What one read-only statement yields: see `connection.Database.rows`."""
        return self._main.rows(sql, parameters)

    @contextmanager
    def database(self, name: str) -> Iterator[Database]:
        """The connection to a database: the kept one, or one that is closed afterwards."""
        if name == self.target.dbname:
            yield self._main
            return
        other = Database(self.target, name)
        try:
            yield other
        finally:
            other.close()

    def databases(self) -> list[str]:
        """The names of the databases that the settings include, sorted, at most `max_databases`."""
        found = self._main.rows("SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1")
        wanted, unwanted = self.target.databases, self.target.databases_exclude
        names = [name for (name,) in found if _matches(name, wanted) and not _matches(name, unwanted)]
        return names[: self.target.max_databases]

    def databases_with_tables(self) -> list[str]:
        """The databases whose tables and indexes are read: `dbname`, then those of `tables_in`."""
        others = [name for name in self.databases() if name != self.target.dbname]
        return [self.target.dbname, *(name for name in others if _matches(name, self.target.tables_in))]

    def get_stats(self) -> ServerStats:
        """The server at a glance."""
        return self._typed(ServerStats, self._main, _SERVER_STATS)[0]

    def get_database_stats(self) -> list[DatabaseStats]:
        """The databases that the settings include, by name."""
        return self._typed(DatabaseStats, self._main, _DATABASE_STATS, {"databases": self.databases()})

    def get_active_connections(self, *, idle: bool = False, limit: int = 100) -> list[ActiveConnection]:
        """The sessions of clients, the longest transaction first; with `idle`, those that do nothing too."""
        return self._typed(ActiveConnection, self._main, _CONNECTIONS, {"idle": idle, "limit": limit})

    def get_table_sizes(self, database: str | None = None, *, limit: int = 50) -> list[TableSize]:
        """The largest tables of a database, the largest first. A table that is locked exclusively is left out."""
        with self.database(database or self.target.dbname) as connection:
            return self._typed(TableSize, connection, _TABLE_SIZES, {"limit": limit})

    def analyze_slow_queries(self, *, order: SlowQueryOrder = "total", limit: int = 20) -> list[SlowQuery]:
        """The statements that cost most, from pg_stat_statements.

        Args:
            order: by `total`, `mean` or `max` execution time, or by `calls`.

        Raises:
            Refused: the extension is not in this database, or not loaded.
        """
        if not self._main.rows("SELECT FROM pg_extension WHERE extname = 'pg_stat_statements'"):
            raise Refused(
                f"{self._main.address} has no pg_stat_statements",
                hint="add it to shared_preload_libraries, restart, and CREATE EXTENSION pg_stat_statements",
            )
        return self._typed(SlowQuery, self._main, _SLOW_QUERIES + _SLOW_ORDERS[order], {"limit": limit})

    def analyze_query_performance(self, sql: str, *, database: str | None = None, run: bool = False) -> QueryPlan:
        """The plan of one SELECT, WITH, VALUES or TABLE.

        Args:
            sql: one statement. `$1` stands for an unknown value from PostgreSQL 16 on, when it is not run.
            run: execute it (EXPLAIN ANALYZE) in a read-only transaction that is rolled back, under the statement
                timeout. It costs what the statement costs, and functions with effects outside of tables have them.

        Raises:
            Refused: it is another kind of statement, more than one, or it would change something.
        """
        if not _ONLY_READS.match(sql):
            raise Refused(
                "only SELECT, WITH, VALUES and TABLE are explained", hint="send one statement that only reads"
            )
        options = ["FORMAT JSON"]
        if run:
            options += ["ANALYZE", "BUFFERS"]
        elif self.major >= 16:  # the version that brought GENERIC_PLAN
            options.append("GENERIC_PLAN")
        unknown = max(map(int, _UNKNOWN.findall(sql)), default=0) if "GENERIC_PLAN" in options else 0
        with self.database(database or self.target.dbname) as connection:
            rows = connection.one_statement(f"EXPLAIN ({', '.join(options)}) {sql}", unknown)
        try:
            return _plan(rows[0][0][0])
        except (IndexError, KeyError, TypeError) as exc:
            raise ParseError(f"EXPLAIN answered something else than a plan: {exc!r}") from exc

    @staticmethod
    def _typed(kind: type[T], database: Database, sql: str, parameters: Mapping[str, object] | None = None) -> list[T]:
        names = [field.name for field in msgspec.structs.fields(kind)]  # type: ignore[arg-type] # T is a Struct
        rows = database.rows(sql, parameters)
        try:
            return [msgspec.convert(dict(zip(names, row, strict=True)), kind) for row in rows]
        except (msgspec.ValidationError, ValueError) as exc:
            raise ParseError(f"{database.address} answered in another shape: {exc}") from exc


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _plan(answer: dict[str, Any]) -> QueryPlan:
    root = answer["Plan"]
    return QueryPlan(
        total_cost=root["Total Cost"],
        estimated_rows=root["Plan Rows"],
        actual_rows=root.get("Actual Rows"),
        planning=_seconds(answer.get("Planning Time")),
        execution=_seconds(answer.get("Execution Time")),
        sequential_scans=sorted({node["Relation Name"] for node in _nodes(root) if node["Node Type"] == "Seq Scan"}),
        plan=root,
    )


def _nodes(root: dict[str, Any]) -> Iterator[dict[str, Any]]:
    waiting = [root]
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(node.get("Plans", ()))


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


# The columns stand in the order of the fields of the answer's type.
_SERVER_STATS = """
SELECT current_setting('server_version'), pg_postmaster_start_time(), pg_is_in_recovery(), a.connections,
       current_setting('max_connections')::int, a.active, a.waiting, a.longest::float8,
       d.commits::bigint, d.rollbacks::bigint, d.deadlocks::bigint, d.hits / nullif(d.hits + d.reads, 0)::float8,
       (SELECT coalesce(sum(pg_database_size(oid)), 0)::bigint FROM pg_database
        WHERE has_database_privilege(oid, 'CONNECT') OR pg_has_role('pg_read_all_stats', 'USAGE'))
FROM (SELECT count(*) AS connections, count(*) FILTER (WHERE state = 'active') AS active,
             count(*) FILTER (WHERE wait_event_type = 'Lock') AS waiting,
             coalesce(extract(epoch FROM max(clock_timestamp() - xact_start)), 0) AS longest
      FROM pg_stat_activity WHERE backend_type = 'client backend') a,
     (SELECT sum(xact_commit) AS commits, sum(xact_rollback) AS rollbacks, sum(deadlocks) AS deadlocks,
             sum(blks_hit) AS hits, sum(blks_read) AS reads FROM pg_stat_database) d
"""
_DATABASE_STATS = """
SELECT d.datname,
       CASE WHEN has_database_privilege(d.oid, 'CONNECT') OR pg_has_role('pg_read_all_stats', 'USAGE')
            THEN pg_database_size(d.oid) END,
       s.numbackends, s.xact_commit, s.xact_rollback, s.tup_returned, s.tup_fetched, s.tup_inserted, s.tup_updated,
       s.tup_deleted, s.blks_hit / nullif(s.blks_hit + s.blks_read, 0)::float8, s.conflicts, s.temp_files, s.temp_bytes,
       s.deadlocks, age(d.datfrozenxid), s.stats_reset
FROM pg_database d JOIN pg_stat_database s ON s.datid = d.oid
WHERE d.datname = ANY(%(databases)s) ORDER BY 1
"""
_CONNECTIONS = """
SELECT a.pid, a.datname, a.usename, a.application_name, host(a.client_addr), a.state, a.wait_event_type, a.wait_event,
       extract(epoch FROM clock_timestamp() - a.backend_start)::float8,
       extract(epoch FROM clock_timestamp() - a.xact_start)::float8,
       extract(epoch FROM clock_timestamp() - a.state_change)::float8,
       CASE WHEN a.wait_event_type = 'Lock' THEN pg_blocking_pids(a.pid) ELSE '{}' END,
       nullif(left(a.query, 2000), '<insufficient privilege>')
FROM pg_stat_activity a
WHERE a.backend_type = 'client backend' AND a.pid <> pg_backend_pid() AND (%(idle)s OR a.state IS DISTINCT FROM 'idle')
ORDER BY a.xact_start NULLS LAST, a.pid LIMIT %(limit)s
"""
_TABLE_SIZES = """
SELECT current_database(), n.nspname, c.relname, greatest(c.reltuples, 0)::bigint, t.heap, t.indexes,
       t.total - t.heap - t.indexes, t.total
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (SELECT pg_relation_size(c.oid) AS heap, pg_indexes_size(c.oid) AS indexes,
                           pg_total_relation_size(c.oid) AS total) t
WHERE c.relkind IN ('r', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
  AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.relation = c.oid AND l.mode = 'AccessExclusiveLock'
                  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))
ORDER BY t.total DESC, c.oid LIMIT %(limit)s
"""
_SLOW_QUERIES = """
SELECT s.queryid, d.datname, pg_get_userbyid(s.userid), s.calls, s.rows, s.total_exec_time / 1000,
       s.mean_exec_time / 1000, s.max_exec_time / 1000,
       coalesce(s.total_exec_time / nullif(sum(s.total_exec_time) OVER (), 0), 0),
       s.shared_blks_hit / nullif(s.shared_blks_hit + s.shared_blks_read, 0)::float8, s.temp_blks_written,
       left(s.query, 2000)
FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid
WHERE s.queryid IS NOT NULL
"""
_SLOW_ORDERS = {
    "total": "ORDER BY s.total_exec_time DESC LIMIT %(limit)s",
    "mean": "ORDER BY s.mean_exec_time DESC LIMIT %(limit)s",
    "max": "ORDER BY s.max_exec_time DESC LIMIT %(limit)s",
    "calls": "ORDER BY s.calls DESC LIMIT %(limit)s",
}
