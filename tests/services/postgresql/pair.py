"""A primary with a streaming standby that do all there is to report: two slots, a subscription, an archiver that failed
once, autovacuum, every command with progress, and, where pages have checksums, a broken one."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Self

import psycopg
import pytest

from tests.servers import PostgresServer
from tests.services.postgresql.conftest import busy, until

StartServer = Callable[..., PostgresServer]

PRIMARY = {
    "wal_level": "logical",
    "max_slot_wal_keep_size": "1GB",
    "archive_mode": "on",
    "track_io_timing": "on",
    "autovacuum_naptime": "1s",
}
STANDBY = {"hot_standby_feedback": "on", "wal_receiver_status_interval": "1s", "archive_mode": "off"}
TABLES = """
create table seen (id bigint primary key, name text, nothing text) with
    (autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0,
     autovacuum_analyze_threshold = 1, autovacuum_analyze_scale_factor = 0);
insert into seen select n, repeat(md5(n::text), 100) from generate_series(1, 3000) n;
create table large as select n, repeat('x', 1000) as filler from generate_series(1, 5000) n;
create table loaded (line text);
create publication changes for table loaded;
"""
WORK = """
select pg_stat_reset();
update seen set name = 'short' where id % 3 = 0;
vacuum analyze seen;
delete from seen where id % 2 = 0;
select count(*) from seen;
select name from seen where id = 7;
"""


class Pair:
    """The two servers, running, and a connection to the primary.

    Args:
        with_slot: the standby uses a slot, which then holds the standby's snapshot; otherwise its WAL sender does.
    """

    def __init__(self, name: str, start_server: StartServer, folder: Path, *, with_slot: bool) -> None:
        self.archive_works = folder / f"{name}-archive-works"
        self.folder = folder / name
        self.folder.mkdir()
        self.primary = start_server(name, conf=PRIMARY | {"archive_command": f"test -e {self.archive_works}"})
        self.sql = psycopg.connect(self.primary.url, autocommit=True)
        self._standby = partial(start_server, name, standby_of=self.primary)
        self._with_slot = with_slot

    def __enter__(self) -> Self:
        self.sql.execute(TABLES)
        self.sql.execute("select pg_create_physical_replication_slot('standby', true)")
        slot = {"primary_slot_name": "standby"} if self._with_slot else {}
        self.standby = self._standby(conf=STANDBY | slot)
        if self.primary.has_statements:
            self.sql.execute("create extension pg_stat_statements")
        self._subscribe()
        self._work()
        return self

    def __exit__(self, *_: object) -> None:
        self.sql.close()

    def _subscribe(self) -> None:
        """A subscription to the same server needs its slot made before: making both at once waits for itself."""
        self.sql.execute("create database copy")
        self.sql.execute("select pg_create_logical_replication_slot('copied', 'pgoutput')")
        address = (
            f"host={self.primary.host} port={self.primary.port} dbname={self.primary.dbname} user={self.primary.user}"
        )
        with psycopg.connect(self.primary.url, dbname="copy", autocommit=True) as there:
            there.execute("create table loaded (line text)")
            there.execute(
                f"create subscription copied connection $${address} password='{self.primary.password}'$$ "
                "publication changes with (create_slot = false, copy_data = false)"
            )
        self.sql.execute("insert into loaded values ('to be copied')")
        self._until_true("select max(last_msg_receipt_time) is not null from pg_stat_subscription")

    def _work(self) -> None:
        for statement in WORK.strip().split(";\n"):
            self.sql.execute(statement)
        table = "from pg_stat_user_tables where relname = 'seen'"
        self._until_true(f"select last_autovacuum is not null and last_autoanalyze is not null {table}")
        self._until_true(f"select seq_scan > 0 and idx_scan > 0 {table}")

    def fail_to_archive(self) -> None:
        """Return when the archiver has failed."""
        self.sql.execute("select pg_switch_wal()")
        self._until_true("select failed_count > 0 from pg_stat_archiver")

    def archive(self) -> None:
        """Return when the archiver has worked again."""
        self.archive_works.touch()

        def archived() -> bool:
            self.sql.execute("insert into loaded values ('more')")
            self.sql.execute("select pg_switch_wal()")  # also wakes the archiver, which sleeps a minute after failing
            return self._is_true("select archived_count > 0 from pg_stat_archiver")

        until(archived)

    @contextmanager
    def commands_in_progress(self) -> Iterator[None]:
        """VACUUM, ANALYZE, CREATE INDEX, COPY and a base backup, all of them slow or waiting."""
        url, slow = self.primary.url, ("set vacuum_cost_delay = '100ms'", "set vacuum_cost_limit = 1")
        with ExitStack() as running:
            running.enter_context(busy(url, *slow, "vacuum (disable_page_skipping) large"))
            running.enter_context(busy(url, *slow, "analyze seen"))
            other = running.enter_context(psycopg.connect(url))
            other.execute("lock table loaded in row exclusive mode")
            running.enter_context(busy(url, "create index concurrently on loaded (line)"))
            loading = running.enter_context(psycopg.connect(url))
            copy = running.enter_context(loading.cursor().copy("copy large from stdin"))
            running.callback(copy.write_row, (1, "last"))
            copy.write_row((0, "first"))
            program = [self.primary.bin / "pg_basebackup", "-D", self.folder / "backup", "-d", url, "-X", "none"]
            backup = subprocess.Popen([*program, "-c", "fast", "--max-rate=32"])
            running.callback(backup.wait)
            running.callback(backup.kill)
            yield

    def break_a_page(self) -> None:
        """Write into a table's file while the server is down, and have it notice."""
        self.sql.execute("checkpoint")
        (path,) = self.sql.execute("select pg_relation_filepath('large')").fetchone()
        self.sql.close()
        self.primary.stop()
        with (self.primary.data / path).open("r+b") as file:
            file.seek(4000)
            file.write(b"broken")
        self.primary.start()
        self.sql = psycopg.connect(self.primary.url, autocommit=True)
        with pytest.raises(psycopg.errors.DataCorrupted):
            self.sql.execute("select count(*) from large")
        self._until_true("select sum(checksum_failures) > 0 from pg_stat_database")

    def _is_true(self, question: str) -> bool:
        (answer,) = self.sql.execute(question).fetchone()
        return bool(answer)

    def _until_true(self, question: str) -> None:
        until(lambda: self._is_true(question))
