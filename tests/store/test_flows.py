"""Batches of flows on their way into real servers."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nms_workers.store import flow_history, flow_spool, partitions
from nms_workers.store.flow_history import FlowHistory
from nms_workers.store.flow_spool import FlowSpool
from nms_workers.store.flow_writer import FlowWriter
from nms_workers.store.flows import Batch, BatchError, Exporter
from nms_workers.store.spool import SpoolError
from tests.servers import Server
from tests.store.conftest import Database, MakeDatabase
from tests.store.flow_batches import MINUTE, ONE, TWO, anything, batch, micros, rows, some, text_of
from tests.store.waiting import until

MakeWriter = Callable[..., FlowWriter]
StartServer = Callable[..., Server]


@pytest.fixture
def make_writer(tmp_path: Path) -> Iterator[MakeWriter]:
    """`make_writer(database)`: a writer into this database, not started; closed at the end."""
    made: list[FlowWriter] = []

    def make(database: Database, **options: Any) -> FlowWriter:
        writer = FlowWriter(tmp_path / "spool", database.url, schema=database.schema, linger=0.05, **options)
        made.append(writer)
        return writer

    yield make
    for writer in made:
        writer.close(0)


def stored(database: Database) -> tuple[int, int, int]:
    """Flows, octets, and flows in a roll-up."""
    flows, octets = database.rows("SELECT count(*), coalesce(sum(octets), 0) FROM flows")[0]
    rolled = database.value("SELECT coalesce(sum(flows), 0) FROM flow_rollups_1m WHERE kind = 'conversation'")
    return flows, int(octets), int(rolled)


def sums(*batches: Batch) -> tuple[int, int, int]:
    flows = sum(len(one.flows) for one in batches)
    return flows, sum(int(one.flows["octets"].sum()) for one in batches), flows


def test_every_field_is_read_as_it_was_written(database: Database, make_writer: MakeWriter) -> None:
    writer = make_writer(database)
    flows = np.concatenate([anything(300), some(100), some(50, 2, sampling=100)])
    assert writer.put(batch(flows[:250]))
    assert writer.put(batch(flows[250:], TWO))
    writer.start()
    assert writer.flush(30)
    found = [dict(row._mapping) for row in database.rows("SELECT * FROM flows")]
    assert {one.pop("received") for one in found} == {MINUTE}
    exporters = [str(one.pop("exporter")) for one in found]
    assert exporters == [text_of(ONE)] * 250 + [text_of(TWO)] * 200
    assert found == rows(flows)


def test_what_says_nothing_takes_no_room(database: Database, make_writer: MakeWriter) -> None:
    writer = make_writer(database)
    writer.put(batch(some(100)))
    writer.start()
    assert writer.flush(30)
    (block,) = database.rows("SELECT vlan, octets_scaled, sampling_interval, export_version, octets FROM flow_blocks")
    assert block.vlan is None
    assert block.octets_scaled is None
    assert (block.sampling_interval, block.export_version) == ([1], [10])
    assert len(block.octets) == 100


def test_flows_of_many_exporters_and_minutes_go_to_rows_of_their_own(
    database: Database, make_writer: MakeWriter
) -> None:
    writer, flows = make_writer(database), some(6000)
    who = np.arange(6000, dtype="u4") % 3
    when = micros(MINUTE) + np.arange(6000) * 20_000  # two minutes
    addresses = (ONE, TWO, bytes(10) + b"\xff\xff" + bytes([198, 51, 100, 7]))
    writer.put(Batch(flows, who, when, [Exporter(one, (9,), 5) for one in addresses]))
    writer.start()
    assert writer.flush(30)
    found = database.rows(
        "SELECT exporter::text, date_trunc('minute', received), count(*), sum(octets) FROM flows GROUP BY 1, 2"
    )
    names = [text_of(ONE), text_of(TWO), "198.51.100.7"]
    expected = []
    for place, name in enumerate(names):
        for minute in range(2):
            mine = flows[(who == place) & ((when - micros(MINUTE)) // 60_000_000 == minute)]
            expected.append((name, MINUTE + timedelta(minutes=minute), len(mine), int(mine["octets"].sum())))
    assert sorted((name.split("/")[0], *rest) for name, *rest in found) == sorted(expected)
    rolled = database.rows("SELECT exporter::text, ts, sum(flows), sum(octets) FROM flow_rollups_1m GROUP BY 1, 2")
    told = sorted((name.split("/")[0], ts, flows / 5, octets / 5) for name, ts, flows, octets in rolled)
    assert told == sorted(expected)  # five kinds


def test_a_batch_that_was_written_and_not_forgotten_is_not_written_again(
    database: Database, make_writer: MakeWriter, tmp_path: Path
) -> None:
    writer = make_writer(database)
    first, second = batch(some(500)), batch(some(300, 2))
    writer.put(first)
    (path,) = writer.spool.folder.glob("*.flows")
    body = path.read_bytes()
    writer.start()
    assert writer.flush(30)
    path.write_bytes(body)  # as if we had died between the commit and the end
    writer.put(second)
    before = flow_history.repeated_batches._value.get()
    assert writer.flush(30)
    assert stored(database) == sums(first, second)
    assert flow_history.repeated_batches._value.get() - before == 1
    assert database.rows("SELECT flows, datagrams FROM flow_exporters") == [(800, 0)]


def test_nothing_is_lost_while_the_database_is_away(
    start_server: StartServer, make_database: MakeDatabase, make_writer: MakeWriter, caplog: pytest.LogCaptureFixture
) -> None:
    server = start_server("postgresql-15")
    database = make_database(server)
    writer = make_writer(database)
    writer.start()
    batches = [batch(some(200, seed)) for seed in range(12)]
    for one in batches[:4]:
        writer.put(one)
    assert writer.flush(30)
    database.engine.dispose()
    server.stop()
    for one in batches[4:8]:
        assert writer.put(one)
    until(lambda: "PostgreSQL does not take flows" in caplog.text, "the outage is told")
    assert not writer.flush(0.2)
    assert writer.backlog().batches == 4
    server.start()
    for one in batches[8:]:
        writer.put(one)
    assert writer.flush(60)
    assert "PostgreSQL takes flows again" in caplog.text
    assert stored(database) == sums(*batches)


def test_what_finds_no_room_is_counted_and_told(
    newest: Database, make_writer: MakeWriter, caplog: pytest.LogCaptureFixture
) -> None:
    writer = make_writer(newest, max_bytes=100_000)
    before = flow_spool.dropped_flows._value.get()
    one = batch(some(300))  # 74 kB
    assert [writer.put(one) for _ in range(3)] == [True, False, False]
    assert flow_spool.dropped_flows._value.get() - before == 600
    assert caplog.text.count("is full") == 1
    writer.start()
    assert writer.flush(30)
    assert writer.put(one)
    assert "has room again" in caplog.text
    assert writer.flush(30)
    assert stored(newest) == sums(one, one)


def test_what_a_killed_process_left_is_written_by_another(newest: Database, make_writer: MakeWriter) -> None:
    writer = make_writer(newest)
    code = (
        "import sys; from pathlib import Path; from nms_workers.store.flow_spool import FlowSpool\n"
        "from tests.store.flow_batches import batch, some\n"
        "one = batch(some(700)); print(FlowSpool(Path(sys.argv[1])).put(one.body(), 700), flush=True); input()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(writer.spool.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "True\n"
    child.send_signal(signal.SIGKILL)
    child.communicate()
    writer.start()
    assert writer.flush(30)
    assert stored(newest) == sums(batch(some(700)))


def test_processes_killed_at_any_moment_lose_nothing_and_write_nothing_twice(
    newest: Database, make_writer: MakeWriter
) -> None:
    writer = make_writer(newest)
    code = (
        "import sys, time; from pathlib import Path; from nms_workers.store.flow_writer import FlowWriter\n"
        "from tests.store.flow_batches import batch, some\n"
        "writer = FlowWriter(Path(sys.argv[1]), sys.argv[2], schema=sys.argv[3], linger=0.0); writer.start()\n"
        "while writer.put(batch(some(50))): print('safe', flush=True); time.sleep(0.001)"
    )
    safe = 0
    for killed_after in (20, 45, 70):
        arguments = [str(writer.spool.folder), newest.url, newest.schema]
        child = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        for _ in range(killed_after):
            assert child.stdout.readline() == "safe\n"
        child.send_signal(signal.SIGKILL)
        safe += killed_after + len(child.communicate()[0].splitlines())
    writer.start()
    assert writer.flush(60)
    batches = newest.value("SELECT count(*) FROM flow_batches")
    assert safe <= batches <= safe + 3  # one may have been put and not told
    flows, _, rolled = stored(newest)
    assert flows == rolled == newest.value("SELECT flows FROM flow_exporters") == 50 * batches


def test_a_half_written_file_of_a_dead_process_is_swept(newest: Database, make_writer: MakeWriter) -> None:
    writer = make_writer(newest)
    writer.put(batch(some(10)))
    old, young = writer.spool.folder / "old.part", writer.spool.folder / "young.part"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    writer.start()
    assert writer.flush(30)
    assert not old.exists()
    assert young.exists()


def test_processes_that_drain_side_by_side_write_each_batch_once(newest: Database, make_writer: MakeWriter) -> None:
    writers = [make_writer(newest) for _ in range(3)]
    batches = [batch(some(50, seed)) for seed in range(60)]
    for writer in writers:
        writer.start()
    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(lambda place: writers[place % 3].put(batches[place]), range(60)))
    for writer in writers:
        assert writer.flush(60)
    assert stored(newest) == sums(*batches)
    assert newest.value("SELECT count(*) FROM flow_batches") == 60


def test_a_taken_batch_is_nobody_elses(tmp_path: Path) -> None:
    ours, theirs = (FlowSpool(tmp_path / "spool") for _ in range(2))
    for seed in range(2):
        assert ours.put(batch(some(10, seed)).body(), 10)
    with ours.taken(1) as first:
        assert len(first) == 1
        with theirs.taken(1 << 30) as rest:
            assert len(rest) == 1
            assert rest[0].id != first[0].id
            theirs.done(rest[0])
    with theirs.taken(1 << 30) as left:
        assert [one.id for one in left] == [first[0].id]
        assert left[0].body == first[0].body


def test_a_batch_that_cannot_be_written_is_set_aside_and_holds_up_no_other(
    newest: Database, make_writer: MakeWriter, caplog: pytest.LogCaptureFixture
) -> None:
    writer = make_writer(newest)
    good = [batch(some(100, seed)) for seed in range(3)]
    for one in good:
        writer.put(one)
    cut = sorted(writer.spool.folder.glob("*.flows"))[1]
    cut.write_bytes(cut.read_bytes()[:5000])
    writer.start()
    assert writer.flush(30)
    assert stored(newest) == sums(good[0], good[2])
    assert "set aside" in caplog.text
    aside = writer.spool.folder / "refused"
    assert (aside / cut.name).exists()
    assert "cannot be read" in (aside / cut.name).with_suffix(".reason").read_text()


@pytest.mark.parametrize("body", [b"", b"\x05\0\0\0hallo", b"\xff\xff\xff\xff"], ids=["nothing", "no-head", "too-long"])
def test_a_body_that_is_none_is_told(body: bytes) -> None:
    with pytest.raises(BatchError, match="cannot be read"):
        Batch.from_body(body)


def test_a_batch_names_its_exporters() -> None:
    one = batch(some(3))
    wrong = Batch(one.flows, np.array([0, 1, 0], "u4"), one.received, one.exporters)
    with pytest.raises(BatchError, match="did not come with it"):
        Batch.from_body(b"".join(wrong.body()))


def test_a_batch_comes_back_from_its_body() -> None:
    one = batch(anything(20), templates=3, target_id=7)
    back = Batch.from_body(b"".join(one.body()))
    assert back.flows.dtype == one.flows.dtype
    assert back.flows.tobytes() == one.flows.tobytes()
    assert np.array_equal(back.received, one.received)
    assert tuple(back.exporters) == one.exporters


def test_flows_older_than_their_retention_are_in_the_roll_ups_only(
    newest: Database, make_writer: MakeWriter, caplog: pytest.LogCaptureFixture
) -> None:
    writer = make_writer(newest)
    late, later, lost = batch(some(10)), batch(some(20), received=MINUTE - timedelta(hours=30)), timedelta(days=9)
    before = flow_history.misdated_flows._value.get()
    for one in (late, later, batch(some(40), received=MINUTE - lost)):
        writer.put(one)
    writer.start()
    assert writer.flush(30)
    assert stored(newest) == (10, sums(late)[1], 30)
    assert flow_history.misdated_flows._value.get() - before == 60
    assert "60 flows were received before the retention" in caplog.text


def test_a_batch_older_than_the_ledger_is_set_aside(newest: Database, make_writer: MakeWriter) -> None:
    writer = make_writer(newest)
    writer.put(batch(some(10)))
    (path,) = writer.spool.folder.glob("*.flows")
    old = micros(datetime.now(UTC) - timedelta(days=10))
    path.rename(path.with_name(f"{old:020d}{path.name[20:]}"))
    writer.start()
    assert writer.flush(30)
    assert stored(newest)[0] == 0
    assert "too old" in next((writer.spool.folder / "refused").glob("*.reason")).read_text()


def test_exporters_are_counted_up(database: Database, make_writer: MakeWriter) -> None:
    writer, target = make_writer(database), database.target("router", "snmp")
    writer.put(batch(some(5), versions=(9,), datagrams=2, lost=1, templates=4, target_id=target))
    writer.put(batch(some(7), versions=(5, 10), datagrams=3, templates=6))
    writer.put(batch(some(0), TWO, versions=(), datagrams=1, target_id=target + 1000))
    writer.start()
    assert writer.flush(30)
    writer.put(batch(some(1), versions=(9,), datagrams=1, lost=2, templates=5))
    assert writer.flush(30)
    columns = "versions, datagrams, flows, lost, templates, target_id, first_seen < last_seen"
    found = database.rows(f"SELECT {columns} FROM flow_exporters ORDER BY family(address)")
    assert found == [([5, 9, 10], 6, 13, 3, 5, target, True), ([], 1, 0, 0, 0, None, False)]


def test_a_database_that_is_not_migrated_is_told(
    newest: Database, make_writer: MakeWriter, caplog: pytest.LogCaptureFixture
) -> None:
    newest.run("DROP TABLE flow_batches")
    writer = make_writer(newest)
    writer.put(batch(some(1)))
    writer.start()
    until(lambda: "nms-workers db upgrade" in caplog.text, "the hint is given")
    assert writer.backlog().batches == 1


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file")
    with pytest.raises(SpoolError, match="cannot be used"):
        FlowSpool(tmp_path / "spool").put([b"x"], 1)


def test_a_folder_that_was_away_is_drained_when_it_is_back(
    newest: Database, make_writer: MakeWriter, caplog: pytest.LogCaptureFixture
) -> None:
    writer = make_writer(newest)
    writer.start()
    writer.put(batch(some(10)))
    assert writer.flush(30)
    aside = writer.spool.folder.rename(writer.spool.folder.with_name("aside"))
    writer.spool.folder.write_text("a file")
    with pytest.raises(SpoolError):
        writer.put(batch(some(10)))
    until(lambda: "cannot be used" in caplog.text, "the fault is told")
    writer.spool.folder.unlink()
    aside.rename(writer.spool.folder)
    writer.put(batch(some(10)))
    assert writer.flush(30)
    assert stored(newest)[0] == 20


def test_only_the_hours_and_exporters_asked_for_are_read(database: Database, make_writer: MakeWriter) -> None:
    writer = make_writer(database)
    writer.put(batch(some(10)))
    writer.start()
    assert writer.flush(30)
    here = partitions.partition_name("flow_blocks", MINUTE)
    asked = "SELECT sum(octets) FROM flows WHERE received >= '{}' AND received < '{}' AND exporter = '192.0.2.1'"
    plan = "\n".join(
        line for (line,) in database.rows("EXPLAIN " + asked.format(MINUTE, MINUTE + timedelta(minutes=1)))
    )
    assert set(re.findall(r"flow_blocks_p\d+", plan)) == {here}
    assert "Index Cond" in plan
    assert "exporter" in plan.partition("Index Cond")[2].splitlines()[0]


def test_hours_are_made_ahead_and_dropped_after_the_retention(newest: Database, make_writer: MakeWriter) -> None:
    writer = make_writer(newest)
    writer.put(batch(some(10)))
    writer.start()
    assert writer.flush(30)
    name = partitions.partition_name("flow_blocks", MINUTE)
    now = datetime.now(UTC)
    ahead = partitions.partition_name("flow_blocks", now + timedelta(hours=3))
    assert newest.value("SELECT to_regclass(:name)", name=ahead) == ahead
    done = partitions.maintain(newest.engine, now + timedelta(hours=26), {"flow_blocks": timedelta(hours=24)})
    assert done is not None
    assert name in done.dropped
    assert stored(newest)[0] == 0
    assert stored(newest)[2] == 10


def test_the_history_alone_writes_all_or_nothing(newest: Database, tmp_path: Path) -> None:
    spool, history = FlowSpool(tmp_path / "spool"), FlowHistory(newest.engine)
    spool.put(batch(some(10)).body(), 10)
    newest.run("ALTER TABLE flow_exporters ADD CHECK (flows < 15)")
    with spool.taken(1 << 20) as waiting:
        assert history.write(waiting) == 10
    spool.put(batch(some(10, 2)).body(), 10)
    with spool.taken(1 << 20) as both, pytest.raises(Exception, match="flow_exporters_flows_check"):
        history.write(both)
    assert stored(newest) == (10, sums(batch(some(10)))[1], 10)
    assert newest.value("SELECT count(*) FROM flow_batches") == 1
