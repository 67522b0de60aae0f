import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from nms_workers.store import partitions
from tests.store.conftest import Database

NOW = datetime(2031, 3, 31, 23, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("table", "name", "start", "end"),
    [
        ("poll_runs", "poll_runs_p2031033123", "2031-03-31T23:00", "2031-04-01T00:00"),
        ("sample_blocks", "sample_blocks_p20310331", "2031-03-31T00:00", "2031-04-01T00:00"),
        ("rollups_1h", "rollups_1h_p203103", "2031-03-01T00:00", "2031-04-01T00:00"),
    ],
)
def test_bounds_and_names(table: str, name: str, start: str, end: str) -> None:
    assert partitions.partition_name(table, NOW) == name
    expected = tuple(datetime.fromisoformat(f"{moment}+00:00") for moment in (start, end))
    assert partitions.bounds(partitions.TABLES[table].width, NOW) == expected


def test_a_moment_of_another_zone_goes_to_the_partition_of_utc() -> None:
    assert partitions.partition_name("sample_blocks", datetime.fromisoformat("2031-04-01T01:00+02:00")).endswith(
        "20310331"
    )


def attached(database: Database, table: str) -> list[str]:
    return [
        name
        for (name,) in database.rows(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = to_regclass(:table) ORDER BY 1",
            table=table,
        )
    ]


def test_they_are_made_ahead_and_dropped_when_their_time_is_over(database: Database) -> None:
    made = partitions.maintain(database.engine, NOW)
    assert made is not None
    assert "sample_blocks_p20310402" in made.made
    assert "poll_runs_p2031040102" in made.made
    assert partitions.maintain(database.engine, NOW) == partitions.Maintained()
    later = partitions.maintain(database.engine, NOW + timedelta(days=31))
    assert later is not None
    assert {"sample_blocks_p20310331", "poll_runs_p2031033123"} <= set(later.dropped)
    assert attached(database, "sample_blocks")[0] == "sample_blocks_p20310401"  # ends within the 30 days
    assert "events_p20310331" in attached(database, "events")
    sooner = partitions.maintain(database.engine, NOW + timedelta(days=31), {"events": timedelta(days=1)})
    assert sooner is not None
    assert "events_p20310331" in sooner.dropped


def test_a_partition_is_as_its_table(database: Database) -> None:
    partitions.maintain(database.engine, NOW)
    definition = database.rows(
        "SELECT indexdef FROM pg_indexes WHERE tablename = 'events_p20310331' AND schemaname = current_schema()"
    )
    assert len(definition) == 2
    assert (
        database.value(
            "SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE oid = 'sample_blocks_p20310331'::regclass"
        )
        == "FOR VALUES FROM ('2031-03-31 00:00:00+00') TO ('2031-04-01 00:00:00+00')"
    )


def test_two_at_once_do_the_work_once(newest: Database) -> None:
    barrier = threading.Barrier(4)

    def maintain(_: int) -> partitions.Maintained | None:
        barrier.wait()
        return partitions.maintain(newest.engine, NOW)

    with ThreadPoolExecutor(4) as pool:
        results = [result for result in pool.map(maintain, range(4)) if result]
    assert sorted(name for result in results for name in result.made) == sorted(
        {name for result in results for name in result.made}
    )
    assert "sample_blocks_p20310331" in attached(newest, "sample_blocks")


def test_what_a_killed_run_left_behind_is_finished(database: Database) -> None:
    partitions.maintain(database.engine, NOW)
    database.run(f"COMMENT ON TABLE sample_blocks_p20310331 IS '{partitions._DOOMED}'")
    database.run("ALTER TABLE sample_blocks DETACH PARTITION sample_blocks_p20310331")
    database.run("ALTER TABLE sample_blocks DETACH PARTITION sample_blocks_p20310401")  # by a person, who wants it
    done = partitions.maintain(database.engine, NOW + timedelta(days=40))
    assert done is not None
    assert "sample_blocks_p20310331" in done.dropped
    assert database.value("SELECT to_regclass('sample_blocks_p20310331')") is None
    assert database.value("SELECT to_regclass('sample_blocks_p20310401')") is not None


def test_making_one_does_not_wait_for_readers_and_writers(newest: Database) -> None:
    partitions.maintain(newest.engine, NOW)
    with newest.engine.begin() as busy:
        busy.execute(text("INSERT INTO sample_blocks VALUES (1, '2031-03-31T12:00Z', '{1}')"))
        with newest.engine.begin() as making:
            making.execute(text("SET LOCAL lock_timeout = '1s'"))
            made = partitions.ensure(making, [("sample_blocks", NOW + timedelta(days=20))])
    assert made == ["sample_blocks_p20310420"]


def test_one_that_a_reader_holds_stays_until_the_next_run(
    newest: Database, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    partitions.maintain(newest.engine, NOW)
    monkeypatch.setattr(partitions, "LOCK_SECONDS", 1)
    later = NOW + timedelta(days=60)
    with newest.engine.begin() as reading:
        reading.execute(text("SELECT count(*) FROM sample_blocks"))
        held = partitions.maintain(newest.engine, later)
        assert held is not None
        assert "sample_blocks_p20310331 is in use" in caplog.text
        assert "sample_blocks_p20310331" not in held.dropped
        assert "poll_runs_p2031033123" in held.dropped
    done = partitions.maintain(newest.engine, later)
    assert done is not None
    assert "sample_blocks_p20310331" in done.dropped
    assert [name for name in attached(newest, "sample_blocks") if name < "sample_blocks_p203105"] == []


@pytest.mark.parametrize(
    ("age", "kept"),
    [
        (timedelta(days=29), True),
        (timedelta(days=32), False),
        (timedelta(days=-2), True),
        (timedelta(days=-4), False),
    ],
)
def test_what_is_kept(age: timedelta, kept: bool) -> None:
    assert partitions.kept("sample_blocks", NOW - age, NOW) is kept
