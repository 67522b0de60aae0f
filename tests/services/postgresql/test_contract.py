"""What the service emits against `metrics.csv`, both ways, over every version there is, on real pairs of servers."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from nms_workers.records import Entity, Event, Layout, Link, Record, Sample
from nms_workers.services.postgresql.client import PostgresqlClient
from nms_workers.services.postgresql.service import Postgresql
from tests.metric_contract import emitted, never_emitted, undeclared
from tests.servers import POSTGRES, PostgresServer
from tests.services.postgresql.conftest import Connect, entities, events, polls, read, until, value, values
from tests.services.postgresql.pair import Pair


@pytest.mark.timeout(300)
def test_all_that_is_emitted_is_declared_and_all_that_is_declared_is_emitted(
    start_server: Callable[..., PostgresServer], connect: Connect, tmp_path: Path
) -> None:
    tmp_path.chmod(0o777)  # the servers run as another user, and look here whether they may archive
    seen: list[Record] = []
    for number, name in enumerate(POSTGRES):
        with Pair(name, start_server, tmp_path, with_slot=number % 2 == 0) as pair:
            seen += _primary(pair, connect(pair.primary)) + _standby(pair, connect(pair.standby))
            if name == "postgresql-18":
                pair.break_a_page()
                seen += read(connect(pair.primary), "databases")
    assert undeclared(Postgresql, seen) == []
    assert never_emitted(Postgresql, seen) == []


def test_the_declared_names_follow_the_conventions() -> None:
    declared = Postgresql.metrics().values()
    assert [m.name for m in declared if m.name.endswith("_total") != (m.type == "counter")] == []
    assert [m.name for m in declared if m.unit not in m.name or not m.description] == []


def test_every_context_of_netdatas_collector_is_covered() -> None:
    text = Path(__file__).with_name("netdata_contexts.toml").read_text(encoding="utf-8")
    contexts = tomllib.loads(text)
    ours = {name.removeprefix("postgresql_") for name in Postgresql.metrics()}
    assert len(contexts) == 70
    assert {context: missing for context, names in contexts.items() if (missing := set(names) - ours)} == {}


def _primary(pair: Pair, client: PostgresqlClient) -> list[Record]:
    pair.fail_to_archive()
    (failing,) = events(read(client, "wal"), "archiver_failing")
    assert failing.state == "firing"
    pair.archive()
    records = [record for poll in polls() for record in _storable(read(client, poll))]
    assert events(records, "archiver_failing") == []
    assert value(records, "wal_archive_files", status="done") > 0

    replication = until(lambda: _with_feedback(client))
    standby = {"application": "walreceiver", "address": "127.0.0.1"}
    assert value(replication, "replication_streaming", **standby) == 1
    assert value(replication, "replication_lag_bytes", stage="replay", **standby) < 1_000_000
    assert value(replication, "replication_slot_wal_status", slot="copied", status="reserved") == 1
    assert value(replication, "subscription_workers", subscription="copied") == 1
    assert set(entities(replication, "replica")) == {"walreceiver@127.0.0.1", "copied@127.0.0.1"}
    assert set(entities(replication, "replication_slot")) == {"standby", "copied"}
    links = {one.b: one.a for one in replication if isinstance(one, Link)}
    (server,) = entities(records, "server")
    assert links[("replica", "walreceiver@127.0.0.1")] == ("server", server)

    with pair.commands_in_progress():
        progress = until(lambda: _with_all_commands(client, 5), seconds=60)
    return records + replication + progress


def _standby(pair: Pair, client: PostgresqlClient) -> list[Record]:
    def replayed() -> list[Record]:
        pair.sql.execute("insert into loaded values ('replayed')")
        records = read(client, "replication")
        return records if values(records, "recovery_last_transaction_age_seconds") else []

    replication = until(replayed)
    assert value(replication, "wal_receiver_streaming") == 1
    records = [record for poll in polls() for record in _storable(read(client, poll))]
    assert value(records, "in_recovery") == 1
    assert events(records, "query_left_out") == events(read(client, "statements"), "query_left_out")
    return replication + records


def _with_feedback(client: PostgresqlClient) -> list[Record]:
    """What is read once the standby has said which snapshot it holds."""
    records = read(client, "replication")
    held = values(records, "replication_xmin_age_transactions") + values(
        records, "replication_slot_xmin_age_transactions"
    )
    return records if held and values(records, "replication_streaming", application="walreceiver") == [1] else []


def _with_all_commands(client: PostgresqlClient, commands: int) -> list[Record]:
    records = read(client, "progress")
    started = {one.metric for one in records if isinstance(one, Sample)} & {
        "postgresql_vacuum_heap_blocks_scanned",
        "postgresql_analyze_sample_blocks",
        "postgresql_create_index_lockers",
        "postgresql_copy_tuples_processed",
        "postgresql_base_backup_bytes",
    }
    return records if len(started) == commands else []


def _storable(records: list[Record]) -> list[Record]:
    """The records, if no series stands twice in one read and all that is known about things is JSON."""
    samples = [one for one in records if isinstance(one, Sample)]
    assert len(Layout(list(emitted(samples)))) == len(samples)
    for one in records:
        if isinstance(one, Entity | Event):
            json.dumps(one.attributes)
    return records
