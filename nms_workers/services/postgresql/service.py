"""The PostgreSQL service: what is read, how often, and what is done when a part of it cannot be read."""

from collections.abc import Iterator, Mapping

from nms_workers.errors import AuthError, Refused, TargetError
from nms_workers.records import Event, Record, Sample
from nms_workers.service import Service, poll
from nms_workers.services.postgresql.client import PostgresqlClient
from nms_workers.services.postgresql.connection import Database, Target
from nms_workers.services.postgresql.queries import PREFIX, Query, queries


class Postgresql(Service):
    """PostgreSQL 13 to 18: sessions, locks, WAL, replication, vacuum, databases, tables, indexes and top statements."""

    kind = "postgresql"
    Target = Target
    client = PostgresqlClient
    port = 5432

    @poll(every="10s", enumerates=("blocked_session", "long_transaction", "query_left_out"))
    def activity(self, client: PostgresqlClient) -> Iterator[Record]:
        """Sessions, how long they run, what they wait for, and the locks they hold."""
        return read(client, "activity")

    @poll(every="15s", volatile=True, enumerates=("query_left_out",))
    def progress(self, client: PostgresqlClient) -> Iterator[Record]:
        """How far running VACUUM, ANALYZE, CREATE INDEX, COPY and base backups are."""
        return read(client, "progress")

    @poll(every="30s", enumerates=("server", "wraparound_danger", "query_left_out"))
    def server(self, client: PostgresqlClient) -> Iterator[Record]:
        """Uptime, transaction id exhaustion, checkpoints, background writer, settings that matter."""
        return read(client, "server")

    @poll(every="30s", enumerates=("archiver_failing", "query_left_out"))
    def wal(self, client: PostgresqlClient) -> Iterator[Record]:
        """Write-ahead log and archiver."""
        return read(client, "wal")

    @poll(every="30s", enumerates=("query_left_out",))
    def io(self, client: PostgresqlClient) -> Iterator[Record]:
        """Reads and writes by kind of process and object (PostgreSQL 16 and later), SLRU caches."""
        return read(client, "io")

    @poll(every="30s", enumerates=("replica", "replication_slot", "replicates_to", "slot_losing", "query_left_out"))
    def replication(self, client: PostgresqlClient) -> Iterator[Record]:
        """Standbys and their lag, recovery, slots, subscriptions."""
        return read(client, "replication")

    @poll(every="60s", enumerates=("database", "query_left_out"))
    def databases(self, client: PostgresqlClient) -> Iterator[Record]:
        """Transactions, rows, blocks, sessions, conflicts and ages of each database."""
        return read(client, "databases")

    @poll(every="60s", volatile=True, enumerates=("query_left_out",))
    def statements(self, client: PostgresqlClient) -> Iterator[Record]:
        """The statements that take the most time, from pg_stat_statements."""
        return read(client, "statements")

    @poll(every="5m", deadline="2m", enumerates=("query_left_out",))
    def sizes(self, client: PostgresqlClient) -> Iterator[Record]:
        """Space on disk of databases, tablespaces and temporary files."""
        return read(client, "sizes")

    @poll(every="5m", deadline="2m", enumerates=("query_left_out",))
    def tables(self, client: PostgresqlClient) -> Iterator[Record]:
        """The largest tables: rows, scans, sizes, vacuum and analyze, blocks read and hit."""
        return read_inside(client, "tables")

    @poll(every="5m", deadline="2m", enumerates=("query_left_out",))
    def indexes(self, client: PostgresqlClient) -> Iterator[Record]:
        """The largest indexes: scans, sizes, and those nobody uses."""
        return read_inside(client, "indexes")

    @poll(every="1h", deadline="5m", enumerates=("query_left_out",))
    def bloat(self, client: PostgresqlClient) -> Iterator[Record]:
        """Estimated space in tables and indexes that holds no rows."""
        return read_inside(client, "bloat")

    @poll(every="1h", deadline="1m", enumerates=("setting", "settings_pending_restart", "query_left_out"))
    def settings(self, client: PostgresqlClient) -> Iterator[Record]:
        """Settings that differ from the defaults, and those that wait for a restart."""
        return read(client, "settings")


# What statements may use as parameters, besides the names of the databases.
_THRESHOLDS = {"max_tables", "max_indexes", "top_queries", "blocked_after", "long_transaction", "wraparound_ratio"}


def read(client: PostgresqlClient, poll_name: str) -> Iterator[Record]:
    """The records of every statement of a poll that concerns the whole server."""
    with client.database(client.target.dbname) as database:
        yield from _statements(client, database, poll_name)


def read_inside(client: PostgresqlClient, poll_name: str) -> Iterator[Record]:
    """The records of every statement of a poll that must run inside each database, one database after the other."""
    for name in client.databases_with_tables():
        try:
            with client.database(name) as database:
                yield from _statements(client, database, poll_name)
        except (AuthError, Refused) as exc:
            if name == client.target.dbname:
                raise
            yield from _left_out(name, poll_name, exc)


def _statements(client: PostgresqlClient, database: Database, poll_name: str) -> Iterator[Record]:
    major = client.major
    parameters = client.target.model_dump(include=_THRESHOLDS) | {"databases": client.databases()}
    chosen = {name: query for name, query in queries(poll_name).items() if query.applies(major)}
    for name, (when, needed) in _conditions(database, chosen).items():
        if not when:
            continue
        query, what = chosen[name], f"{poll_name}.{name}"
        if not needed:
            yield from _left_out(database.name, what, Refused("what it needs is missing", hint=query.hint))
            continue
        try:
            rows = database.rows(query.sql(major), parameters)
        except Refused as exc:
            yield from _left_out(database.name, what, exc)
        else:
            yield from query.read(rows, major)
            yield _success(database.name, what, 1)


def _conditions(database: Database, chosen: Mapping[str, Query]) -> dict[str, tuple[bool, bool]]:
    """Whether each statement has a meaning here, and whether what it needs is there: asked before, because a statement
    that fails leaves an error in the server's log each time."""
    pairs = (f"coalesce(({q.when}), false), coalesce(({q.needs}), false)" for q in chosen.values())
    (row,) = database.rows(f"SELECT {', '.join(pairs)}")
    return dict(zip(chosen, zip(row[::2], row[1::2], strict=True), strict=True))


def _left_out(database: str, what: str, exc: TargetError) -> Iterator[Record]:
    yield _success(database, what, 0)
    yield Event(
        kind="query_left_out",
        message=f"{what} of database {database} is left out: {exc.message}",
        severity="warning",
        fingerprint=f"query_left_out:{database}:{what}",
        state="firing",
        attributes={"database": database, "query": what, "reason": exc.message, "hint": exc.hint},
    )


def _success(database: str, what: str, value: int) -> Sample:
    return Sample(f"{PREFIX}query_success", value, {"database": database, "query": what})
