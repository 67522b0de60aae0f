"""Roll-ups of roll-ups: whatever happens, each level sums up to the flows."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from sqlalchemy import text

from nms_workers import tasks
from nms_workers.runtime import Runtime
from nms_workers.settings import Settings
from nms_workers.store.flow_columns import KINDS, LEVELS, MEASURES
from nms_workers.store.flow_history import FlowHistory
from nms_workers.store.flow_spool import FlowSpool
from nms_workers.store.flow_upkeep import roll_up_flows
from tests.store.conftest import Database
from tests.store.flow_batches import ONE, TWO, batch, some
from tests.store.waiting import until

HOUR = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=3)
LATER = HOUR + timedelta(hours=4)


class Store:
    """Writes batches at once, without a thread."""

    def __init__(self, folder: Path, database: Database, keep: int = 10_000) -> None:
        self.database, self.keep = database, keep
        self._spool, self._history = FlowSpool(folder), FlowHistory(database.engine, keep=keep)

    def write(self, minute: int, seed: int, *, number: int = 300, exporter: bytes = ONE, hosts: int = 20) -> None:
        one = batch(some(number, seed, hosts=hosts), exporter, HOUR + timedelta(minutes=minute))
        assert self._spool.put(one.body(), number)
        with self._spool.taken(1 << 30) as waiting:
            self._history.write(waiting)
            for done in waiting:
                self._spool.done(done)

    def roll_up(self, now: datetime = LATER) -> int:
        return roll_up_flows(self.database.engine, now, keep=self.keep)

    def totals(self, level: str) -> dict[tuple[str, str], list[int]]:
        """Sums by exporter and kind."""
        measures = ", ".join(f"sum({name})" for name in MEASURES)
        found = self.database.rows(f"SELECT exporter::text, kind, {measures} FROM flow_rollups_{level} GROUP BY 1, 2")
        return {(exporter, kind): [int(one) for one in sums] for exporter, kind, *sums in found}

    def raw(self) -> dict[tuple[str, str], list[int]]:
        """What each level should say."""
        measures = ", ".join("count(*)" if name == "flows" else f"sum({name})" for name in MEASURES)
        found = self.database.rows(f"SELECT exporter::text, {measures} FROM flows GROUP BY 1")
        return {(exporter, kind): [int(one) for one in sums] for exporter, *sums in found for kind in KINDS}


@pytest.fixture
def store(database: Database, tmp_path: Path) -> Iterator[Store]:
    return Store(tmp_path / "spool", database)


@pytest.fixture
def small(newest: Database, tmp_path: Path) -> Iterator[Store]:
    """Keeps ten keys of each kind."""
    return Store(tmp_path / "spool", newest, keep=10)


def fill(store: Store) -> None:
    for seed, (minute, exporter) in enumerate([(0, ONE), (0, ONE), (0, TWO), (4, ONE), (5, ONE), (59, TWO), (61, ONE)]):
        store.write(minute, seed, exporter=exporter)


def test_every_level_sums_up_to_the_flows(store: Store) -> None:
    fill(store)
    assert store.roll_up() == 11  # windows: 5 + 4 + 2, those of two exporters at once
    for level in LEVELS:
        assert store.totals(level) == store.raw()
    assert store.database.value("SELECT count(*) FROM flow_rollup_due") == 0


def test_a_minute_of_several_batches_becomes_one_row_of_each_kind(store: Store) -> None:
    fill(store)
    counted = "SELECT kind, count(*) FROM flow_rollup_blocks_1m WHERE ts = :ts AND exporter = '192.0.2.1' GROUP BY 1"
    assert dict(map(tuple, store.database.rows(counted, ts=HOUR))) == dict.fromkeys(KINDS, 2)
    keys = "source_address, destination_address, protocol, port, interface, source_as, destination_as"
    summed = f"SELECT kind, {keys}, sum(octets), sum(flows) FROM flow_rollups_1m WHERE ts = :ts GROUP BY kind, {keys}"
    before = sorted(map(str, store.database.rows(summed, ts=HOUR)))
    store.roll_up()
    assert dict(map(tuple, store.database.rows(counted, ts=HOUR))) == dict.fromkeys(KINDS, 1)
    assert sorted(map(str, store.database.rows(summed, ts=HOUR))) == before
    twice = (
        f"SELECT count(*) FROM (SELECT FROM flow_rollups_1m GROUP BY ts, exporter, kind, {keys} HAVING count(*) > 1) x"
    )
    assert store.database.value(twice) == 0


def test_only_the_largest_keep_their_names_and_no_octet_is_lost(small: Store) -> None:
    for minute in (0, 0, 1, 7):
        small.write(minute, minute, hosts=100)
    small.roll_up()
    for level in LEVELS:
        assert small.totals(level) == small.raw()
        most = small.database.rows(
            f"SELECT kind, max(cardinality(octets)), bool_or(array_position(octets, NULL) IS NOT NULL) "
            f"FROM flow_rollup_blocks_{level} GROUP BY 1"
        )
        assert {kind: (number, nulls) for kind, number, nulls in most}["conversation"] == (11, False)
        others = small.database.rows(
            f"SELECT ts, min(octets_scaled) FILTER (WHERE source_address IS NOT NULL), "
            f"count(*) FILTER (WHERE source_address IS NULL) FROM flow_rollups_{level} "
            f"WHERE kind = 'conversation' GROUP BY 1"
        )
        assert {number for _, _, number in others} == {1}


def test_what_comes_late_is_rolled_up_again(store: Store) -> None:
    fill(store)
    store.roll_up()
    store.write(4, 100)
    store.write(30, 101, exporter=TWO)
    assert store.roll_up() == 5  # windows: 2 + 2 + 1
    for level in LEVELS:
        assert store.totals(level) == store.raw()


def test_doing_it_again_changes_nothing(store: Store) -> None:
    fill(store)
    store.roll_up()
    assert store.roll_up() == 0
    notes = "INSERT INTO flow_rollup_due SELECT level, ts, '192.0.2.1' FROM (VALUES ('1m'), ('5m'), ('1h')) x (level)"
    store.database.run(f"{notes}, (SELECT CAST(:ts AS timestamptz) AS ts) y", ts=HOUR)
    assert store.roll_up() == 3
    for level in LEVELS:
        assert store.totals(level) == store.raw()


def test_a_window_is_left_alone_until_it_is_over(store: Store) -> None:
    store.write(0, 1)
    store.write(6, 2)
    assert store.roll_up(HOUR + timedelta(seconds=89)) == 0
    assert store.roll_up(HOUR + timedelta(seconds=91)) == 1
    assert store.roll_up(HOUR + timedelta(minutes=5, seconds=31)) == 1
    assert store.totals("5m") != store.raw()
    assert store.totals("1h") == {}
    assert store.roll_up(HOUR + timedelta(minutes=11)) == 2
    assert store.totals("5m") == store.raw()
    assert store.roll_up(HOUR + timedelta(minutes=61)) == 1
    assert store.totals("1h") == store.raw()


def test_many_exporters_are_rolled_up_some_at_a_time(newest: Database, tmp_path: Path) -> None:
    store = Store(tmp_path / "spool", newest)
    for number in range(120):
        store.write(0, number, number=3, exporter=bytes([10, 1, 0, number]))
    assert store.roll_up() == 9  # three levels, fifty exporters at once
    for level in LEVELS:
        assert store.totals(level) == store.raw()


def test_two_at_once_do_the_work_once(newest: Database, tmp_path: Path) -> None:
    store = Store(tmp_path / "spool", newest)
    fill(store)
    barrier = threading.Barrier(3)

    def roll_up(_: int) -> int:
        barrier.wait()
        return store.roll_up()

    with ThreadPoolExecutor(3) as pool:
        assert sum(pool.map(roll_up, range(3))) <= 11
    store.roll_up()
    for level in LEVELS:
        assert store.totals(level) == store.raw()


def test_what_is_written_while_a_window_is_rolled_up_is_not_forgotten(newest: Database, tmp_path: Path) -> None:
    store = Store(tmp_path / "spool", newest)
    store.write(0, 1)
    with ThreadPoolExecutor(1) as pool:
        with newest.engine.begin() as writing:  # as the writer does: rows first, the note last, then the commit
            columns = ", ".join(["exporter", "kind", *KINDS["port"], *MEASURES])
            writing.execute(
                text(
                    f"INSERT INTO flow_rollup_blocks_1m (ts, {columns}) "
                    "VALUES (:ts, '192.0.2.1', 'port', '{6}', '{443}', '{5}', '{5}', '{5}', '{5}', '{5}')"
                ),
                {"ts": HOUR},
            )
            writing.execute(
                text(
                    "INSERT INTO flow_rollup_due SELECT level, ts, exporter FROM flow_rollup_due "
                    "ON CONFLICT (level, ts, exporter) DO UPDATE SET ts = excluded.ts"
                )
            )
            rolling = pool.submit(store.roll_up)
            waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"
            until(lambda: newest.rows(waits)[0][0], "the roll-up waits for the writer")
            assert not rolling.done()
        rolling.result(30)
    store.roll_up()
    flows = newest.rows("SELECT sum(flows) FROM flow_rollups_1m WHERE kind = 'port'")[0][0]
    for level in LEVELS:
        assert newest.value(f"SELECT sum(flows) FROM flow_rollups_{level} WHERE kind = 'port'") == flows == 305


def test_a_note_of_what_is_not_kept_any_more_leaves_the_coarser_roll_up_as_it_is(
    newest: Database, tmp_path: Path
) -> None:
    store = Store(tmp_path / "spool", newest)
    store.write(0, 1)
    store.roll_up()
    kept = store.totals("1h")
    newest.run("TRUNCATE flow_rollup_blocks_1m, flow_rollup_blocks_5m")
    newest.run("INSERT INTO flow_rollup_due VALUES ('1h', :ts, '192.0.2.1')", ts=HOUR)
    gone = {f"flow_rollup_blocks_{level}": timedelta(hours=1) for level in ("1m", "5m")}
    roll_up_flows(newest.engine, HOUR + timedelta(days=3), retention=gone)
    assert store.totals("1h") == kept
    assert newest.value("SELECT count(*) FROM flow_rollup_due") == 0


def test_a_sum_beyond_a_bigint_ends_at_the_greatest_one(newest: Database, tmp_path: Path) -> None:
    store = Store(tmp_path / "spool", newest)
    flows = some(4)
    flows["octets"] = flows["octets_scaled"] = np.uint64(2**64 - 1)
    for minute in (0, 1):
        one = batch(flows, ONE, HOUR + timedelta(minutes=minute))
        store._spool.put(one.body(), 4)
        with store._spool.taken(1 << 20) as waiting:
            store._history.write(waiting)
            store._spool.done(waiting[0])
    store.roll_up()
    for level in LEVELS:
        greatest = newest.value(f"SELECT max(octets) FROM flow_rollups_{level} WHERE kind = 'as'")
        assert greatest == 2**63 - 1
    assert newest.value("SELECT min(octets) FROM flows") == 2**63 - 1


def test_the_upkeep_of_the_fleet_rolls_flows_up(
    newest: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "spool", newest)
    fill(store)
    monkeypatch.setenv("NMS_DATABASE_URL", f"{newest.url}?options={quote(f'-csearch_path={newest.schema}')}")
    monkeypatch.setenv("NMS_FLOWS__CONVERSATIONS", "12")
    here = Runtime(Settings.load(None))
    monkeypatch.setattr(tasks, "runtime", lambda: here)
    tasks._FLEET_TASKS["nms.roll_up"](None)
    here.close()
    for level in LEVELS:
        assert store.totals(level) == store.raw()
    assert newest.value("SELECT max(cardinality(octets)) FROM flow_rollup_blocks_1h WHERE kind = 'conversation'") == 13
