"""Rates of counters that fell, from rows in PostgreSQL as a poll of interfaces leaves them."""

from collections.abc import Iterator, Sequence
from datetime import timedelta

import pytest

from nms_workers.records import Layout, series
from nms_workers.services.snmp.service import Snmp
from nms_workers.store import query
from nms_workers.store.history import History
from nms_workers.store.rollups import roll_up
from tests.store.conftest import Database
from tests.store.slots import START, slot

BEGIN = START - timedelta(hours=2)
PORT = (("interface", "ge-0/0/1"),)
OCTETS, DISCARDS = "snmp_interface_in_octets_total", "snmp_interface_in_discards_total"
WIRE = Layout(
    [
        series("snmp_system_uptime_seconds"),
        *(
            series(metric, PORT)
            for metric in (
                OCTETS,
                DISCARDS,
                "snmp_interface_speed_bits_per_second",
                "snmp_interface_counter_discontinuity_seconds",
                "snmp_interface_counter_bits",
            )
        ),
    ]
)
SHORTER = Layout(WIRE.members[:-1])
GIGABIT = 1e9
TOP = 2.0**32

# seconds, uptime, octets, discards, speed, discontinuity, bits
Read = tuple[float, float, float, float, float, float, float]


@pytest.fixture
def history(newest: Database) -> Iterator[History]:
    history = History(newest.engine, {one.digest: one for one in (WIRE, SHORTER)}.get)
    yield history
    history.engine.dispose()


def rates(
    database: Database,
    history: History,
    read: Sequence[Read],
    metric: str = OCTETS,
    resolution: query.Resolution = "raw",
) -> list[float]:
    """What is told of the counter after these reads."""
    target = database.target("switch", "snmp")
    for seconds, *values in read:
        history.write([slot(target, 0, values, layout=WIRE, due=BEGIN + timedelta(seconds=seconds))])
    if resolution != "raw":
        roll_up(database.engine)
    return told(database, metric, resolution)


def told(database: Database, metric: str = OCTETS, resolution: query.Resolution = "raw") -> list[float]:
    assert Snmp.witnesses is not None
    rows = query.samples(
        database.engine,
        metric=metric,
        since=BEGIN - timedelta(hours=1),
        rate=True,
        witnesses={"snmp": Snmp.witnesses},
        resolution=resolution,
    )
    return [row["value"] for row in rows]


def test_a_counter_of_32_bits_wraps(newest: Database, history: History) -> None:
    read = [
        (0.0, 5000.0, TOP - 6000, 0.0, GIGABIT, 0.0, 32.0),
        (60.0, 5060.0, 6000.0, 0.0, GIGABIT, 0.0, 32.0),
        (120.0, 5120.0, 12000.0, 0.0, GIGABIT, 0.0, 32.0),
    ]
    assert rates(newest, history, read) == [200.0, 100.0]


def test_a_counter_that_is_always_narrow_wraps_though_the_others_have_64_bits(
    newest: Database, history: History
) -> None:
    read = [
        (0.0, 5000.0, 1e15, TOP - 600, GIGABIT, 0.0, 64.0),
        (60.0, 5060.0, 1e15 + 60, 600.0, GIGABIT, 0.0, 64.0),
    ]
    assert rates(newest, history, read, DISCARDS) == [20.0]
    assert told(newest) == [1.0]


@pytest.mark.parametrize("octets", [TOP - 6000, 9e18], ids=["as if it wrapped", "very far"])
def test_a_counter_of_64_bits_never_wraps(newest: Database, history: History, octets: float) -> None:
    read = [(0.0, 5000.0, octets, 0.0, GIGABIT, 0.0, 64.0), (60.0, 5060.0, 6000.0, 0.0, GIGABIT, 0.0, 64.0)]
    assert rates(newest, history, read) == [100.0]


@pytest.mark.parametrize("bits", [32.0, 64.0])
@pytest.mark.parametrize("before", [TOP - 6000, 3000.0], ids=["it fell", "it grew all the same"])
def test_a_device_that_started_between_polls_counts_from_zero(
    newest: Database, history: History, bits: float, before: float
) -> None:
    read = [(0.0, 5000.0, before, 0.0, GIGABIT, 0.0, bits), (60.0, 40.0, 6000.0, 0.0, GIGABIT, 0.0, bits)]
    assert rates(newest, history, read) == [100.0]


def test_a_restart_is_seen_where_the_uptime_is_longer_than_before(newest: Database, history: History) -> None:
    read = [(0.0, 20.0, TOP - 6000, 0.0, GIGABIT, 0.0, 32.0), (60.0, 50.0, 6000.0, 0.0, GIGABIT, 0.0, 32.0)]
    assert rates(newest, history, read) == [100.0]


def test_a_card_that_was_changed_counts_from_zero(newest: Database, history: History) -> None:
    read = [
        (0.0, 5000.0, TOP - 6000, 0.0, GIGABIT, 0.0, 32.0),
        (60.0, 5060.0, 6000.0, 0.0, GIGABIT, 5030.0, 32.0),
        (120.0, 5120.0, 12000.0, 0.0, GIGABIT, 5030.0, 32.0),
    ]
    assert rates(newest, history, read) == [100.0, 100.0]


@pytest.mark.parametrize(
    "after",
    [
        (60.0, 40.0, 8e10, 0.0, GIGABIT, 0.0, 64.0),
        (60.0, 5060.0, 8e10, 0.0, GIGABIT, 5030.0, 64.0),
    ],
    ids=["after a restart", "after a lost count"],
)
def test_no_rate_is_made_up_that_the_port_cannot_do(newest: Database, history: History, after: Read) -> None:
    more = (120.0, after[1] + 60, 8e10 + 600, *after[3:])
    read = [(0.0, 5000.0, 9e10, 0.0, GIGABIT, 0.0, 64.0), after, more]
    assert rates(newest, history, read) == [10.0], "a gigabit is 7.5e9 octets a minute"


def test_a_wrap_faster_than_the_port_is_none(newest: Database, history: History) -> None:
    read = [(0.0, 5000.0, 600.0, 0.0, 1e7, 0.0, 32.0), (60.0, 5060.0, 60.0, 0.0, 1e7, 0.0, 32.0)]
    assert rates(newest, history, read) == [1.0], "10 Mb/s are 75 MB a minute, a wrap would be 4 GB"


def test_a_fall_without_an_uptime_is_no_wrap(newest: Database, history: History) -> None:
    nan = float("nan")
    read = [(0.0, nan, TOP - 6000, 0.0, GIGABIT, 0.0, 32.0), (60.0, nan, 6000.0, 0.0, GIGABIT, 0.0, 32.0)]
    assert rates(newest, history, read) == [100.0]


def test_another_worker_reads_again_at_once_and_by_another_clock(newest: Database, history: History) -> None:
    """Its layout is another one, its row bears the same moment, and a third one comes from a clock that is behind."""
    target = newest.target("switch", "snmp")
    read = [
        (WIRE, 0.0, (5000.0, 1e9, 0.0, GIGABIT, 0.0, 64.0)),
        (WIRE, 60.0, (5060.0, 1e9 + 6000, 0.0, GIGABIT, 0.0, 64.0)),
        (SHORTER, 60.0, (5060.0, 1e9 + 6000, 0.0, GIGABIT, 0.0)),
        (SHORTER, 59.0, (5061.0, 1e9 + 6100, 0.0, GIGABIT, 0.0)),
    ]
    for layout, seconds, values in read:
        history.write([slot(target, int(seconds), values, layout=layout, due=BEGIN + timedelta(seconds=seconds))])
    assert told(newest) == [pytest.approx(6100 / 59)], "no second row of one moment, nothing of rows out of order"


def test_roll_ups_know_it_too(newest: Database, history: History) -> None:
    read: list[Read] = [
        (number * 60.0, 5000.0 + number * 60, (TOP - 30_000 + number * 6000) % TOP, 0.0, GIGABIT, 0.0, 32.0)
        for number in range(30)
    ]
    assert set(rates(newest, history, read, resolution="5m")) == {100.0}
