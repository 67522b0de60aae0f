"""Questions about flows, answered by a real server, against answers counted one by one."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nms_workers.store.engine import make_engine
from nms_workers.store.flow_columns import MEASURES
from nms_workers.store.flow_history import FlowHistory
from nms_workers.store.flow_query import BY, Answer, Filter, exporters, matrix, top
from nms_workers.store.flow_spool import FlowSpool
from nms_workers.store.flow_upkeep import roll_up_flows
from nms_workers.store.flows import Batch
from nms_workers.store.query import QueryError
from tests.store.conftest import Database
from tests.store.flow_batches import ONE, TWO, address, batch, some, text_of

NOW = datetime.now(UTC)
RECENT = NOW.replace(second=0, microsecond=0) - timedelta(minutes=3)

Put = Callable[..., None]


@pytest.fixture
def put(database: Database, tmp_path: Path) -> Put:
    """`put(batch, ...)`: into the database at once."""
    spool = FlowSpool(tmp_path / "spool")

    def write(*batches: Batch, keep: int = 10_000) -> None:
        for one in batches:
            assert spool.put(one.body(), len(one.flows))
        with spool.taken(1 << 30) as waiting:
            FlowHistory(database.engine, keep=keep).write(waiting)
            for done in waiting:
                spool.done(done)

    return write


def keys_of(flow: Any, exporter: bytes, names: tuple[str, ...]) -> list[tuple[Any, ...]]:
    """The keys that a flow counts for; two where interfaces are asked for."""
    ports = sorted((int(flow["source_port"]), int(flow["destination_port"])))
    known: dict[str, Any] = {name: int(flow[name]) for name in ("protocol", "source_as", "destination_as")}
    known |= {name: str(address(flow[name])) for name in ("source_address", "destination_address")}
    known |= {"port": ports[0] or ports[1], "exporter": text_of(exporter)}
    if "direction" not in names:
        return [tuple(known[name] for name in names)]
    ways = (("in", int(flow["ingress_interface"])), ("out", int(flow["egress_interface"])))
    return [tuple((known | {"direction": way, "interface": index})[name] for name in names) for way, index in ways]


def counted(told: list[tuple[NDArray[np.void], bytes]], names: tuple[str, ...]) -> dict[tuple[Any, ...], list[int]]:
    sums: dict[tuple[Any, ...], list[int]] = {}
    for flows, exporter in told:
        for flow in flows:
            for key in keys_of(flow, exporter, names):
                held = sums.setdefault(key, [0] * len(MEASURES))
                for place, name in enumerate(MEASURES):
                    held[place] += 1 if name == "flows" else int(flow[name])
    return sums


def answered(answer: Answer, names: tuple[str, ...]) -> dict[tuple[Any, ...], list[int]]:
    return {tuple(row[name] for name in names): [row[name] for name in MEASURES] for row in answer.rows}


TOLD = [(some(400, 1, sampling=10), ONE), (some(300, 2), TWO), (some(200, 3), ONE)]


def test_every_way_to_ask_gives_what_counting_gives(database: Database, put: Put) -> None:
    put(*(batch(flows, exporter, RECENT) for flows, exporter in TOLD))
    total = [sum(len(flows) if name == "flows" else int(flows[name].sum()) for flows, _ in TOLD) for name in MEASURES]
    for by, names in BY.items():
        answer = top(database.engine, [by], since=RECENT, limit=1000)
        assert answered(answer, names) == counted(TOLD, names), by
        assert answer.source == "1m"
        assert list(answer.total.values()) == total
        assert set(answer.others.values()) == {0}
        sizes = [row["octets_scaled"] for row in answer.rows]
        assert sizes == sorted(sizes, reverse=True)
        assert sum(row["share"] for row in answer.rows) == pytest.approx(2 if by == "interface" else 1)


def test_what_no_roll_up_has_together_is_read_from_the_flows(database: Database, put: Put) -> None:
    put(*(batch(flows, exporter, RECENT) for flows, exporter in TOLD))
    for by in (["src", "port"], ["src", "interface"], ["conversation", "protocol"], ["port", "as", "exporter"]):
        names = tuple(dict.fromkeys(name for one in by for name in BY[one]))
        answer = top(database.engine, by, since=RECENT, limit=10_000)
        assert answered(answer, names) == counted(TOLD, names), by
        assert answer.source == "raw"


FILTERS: list[tuple[str, dict[str, Any], str]] = [
    ("src", {"dst": "10.0.1.0/24"}, "1m"),
    ("dst", {"host": "10.0.0.0/23"}, "1m"),
    ("conversation", {"src": "2001:db8::/32"}, "1m"),
    ("port", {"protocol": 17}, "1m"),
    ("protocol", {"port": 443}, "1m"),
    ("as", {"src_as": 64_512}, "1m"),
    ("as", {"dst_as": 15_169, "exporter": "192.0.2.1"}, "1m"),
    ("interface", {"interface": 2}, "1m"),
    ("exporter", {"exporter": "192.0.2.1"}, "1m"),
    ("src", {"port": 53}, "raw"),
    ("src", {"protocol": 6, "exporter": "192.0.2.1"}, "raw"),
    ("port", {"src": "10.0.0.0/8", "dst": "10.0.2.0/24"}, "raw"),
]


def test_only_what_is_asked_for_is_counted(database: Database, put: Put) -> None:
    put(*(batch(flows, exporter, RECENT) for flows, exporter in TOLD))
    for by, where, source in FILTERS:
        given: dict[str, Any] = {
            name: ip_address(one) if name == "exporter" else ip_network(one) if isinstance(one, str) else one
            for name, one in where.items()
        }
        answer = top(database.engine, [by], since=RECENT, limit=1000, where=Filter(**given))
        expected = filtered(by, given)
        assert expected
        assert answered(answer, BY[by]) == expected, (by, where)
        assert answer.source == source


def filtered(by: str, given: dict[str, Any]) -> dict[tuple[Any, ...], list[int]]:
    """What counting gives of the flows that fit."""
    names = ("source_address", "destination_address", "protocol", "port", "source_as", "destination_as", "exporter")
    names += ("direction", "interface") if "interface" in (by, *given) else ()
    expected: dict[tuple[Any, ...], list[int]] = {}
    for key, sums in counted(TOLD, names).items():
        row = dict(zip(names, key, strict=True))
        if all(fits(row, name, one) for name, one in given.items()):
            held = expected.setdefault(tuple(row[name] for name in BY[by]), [0] * len(MEASURES))
            held[:] = [one + more for one, more in zip(held, sums, strict=True)]
    return expected


def fits(row: dict[str, Any], name: str, one: Any) -> bool:
    ends = {
        "src": ["source_address"],
        "dst": ["destination_address"],
        "host": ["source_address", "destination_address"],
    }
    if name in ends:
        return any(ip_address(row[end]) in one for end in ends[name])
    told = row[{"src_as": "source_as", "dst_as": "destination_as"}.get(name, name)]
    return bool(told == (str(one) if name == "exporter" else one))


def test_what_the_roll_ups_do_not_name_is_told_apart(database: Database, put: Put) -> None:
    put(batch(TOLD[0][0], ONE, RECENT), keep=5)
    answer = top(database.engine, ["conversation"], since=RECENT, limit=3)
    assert len(answer.rows) == 3
    assert answer.total["octets_scaled"] == int(TOLD[0][0]["octets_scaled"].sum())
    every = sorted((sums[3] for sums in counted(TOLD[:1], BY["conversation"]).values()), reverse=True)
    assert [row["octets_scaled"] for row in answer.rows] == every[:3]
    assert answer.others["octets_scaled"] == sum(every[5:])


@pytest.mark.parametrize("rolled", ["not", "half", "all"])
def test_each_window_is_read_once_from_the_coarsest_that_has_it(database: Database, put: Put, rolled: str) -> None:
    """Whatever the upkeep did or did not do yet."""
    times = [NOW - timedelta(hours=4, minutes=number * 7) for number in range(10)] + [RECENT]
    told = [(some(50, seed), ONE) for seed in range(len(times))]
    put(*(batch(flows, ONE, at) for (flows, _), at in zip(told, times, strict=True)))
    if rolled != "not":
        roll_up_flows(database.engine, NOW - timedelta(hours=4, minutes=5) if rolled == "half" else NOW)
    if rolled == "half":
        late = (some(50, 99), ONE)
        put(batch(late[0], ONE, times[4]))
        told.append(late)
    for ago, source in ((timedelta(hours=5.5), "1m"), (timedelta(hours=23), "5m"), (timedelta(days=20), "1h")):
        answer = top(database.engine, ["conversation"], since=NOW - ago, limit=10_000)
        assert answer.source == source
        assert answered(answer, BY["conversation"]) == counted(told, BY["conversation"]), source


def test_time_is_read_in_whole_windows(database: Database, put: Put) -> None:
    for number in range(3):
        put(batch(some(10 + number, number), ONE, RECENT + timedelta(minutes=number)))
    asked = RECENT + timedelta(minutes=1, seconds=30)
    for by in ("src", "src,port"):
        answer = top(database.engine, by.split(","), since=asked, until=RECENT + timedelta(minutes=2))
        assert answer.total["flows"] == 11, by
        assert answer.since == RECENT + timedelta(minutes=1)


def test_networks_talk_to_networks(database: Database, put: Put) -> None:
    put(*(batch(flows, exporter, RECENT) for flows, exporter in TOLD))
    for ipv4 in (0, 16, 24, 32):
        networks_talk(database, ipv4)


def networks_talk(database: Database, ipv4: int) -> None:
    answer = matrix(database.engine, since=RECENT, ipv4=ipv4, ipv6=64, limit=10_000)
    expected: dict[tuple[str, str], int] = {}
    for (source, destination), sums in counted(TOLD, BY["conversation"]).items():
        ends = (ip_address(source), ip_address(destination))
        lengths = [ipv4 if end.version == 4 else 64 for end in ends]
        key = tuple(str(ip_network((end, length), strict=False)) for end, length in zip(ends, lengths, strict=True))
        expected[key] = expected.get(key, 0) + sums[3]  # type: ignore[index, arg-type]
    found = {
        tuple(str(ip_network(row[end])) for end in ("source_network", "destination_network")): row["octets_scaled"]
        for row in answer.rows
    }
    assert found == expected


def test_exporters_tell_rates_loss_templates_and_last_seen(database: Database, put: Put) -> None:
    target = database.target("core", "snmp")
    put(batch(TOLD[0][0], ONE, RECENT, datagrams=20, lost=3, templates=2, target_id=target))
    put(batch(some(0), TWO, versions=(105,), datagrams=1))
    second, first = exporters(database.engine, since=RECENT)
    assert (second["exporter"], second["versions"], second["flows_per_second"]) == (text_of(TWO), [105], 0)
    told = {"target": "core", "versions": [10], "datagrams": 20, "flows": 400, "lost": 3, "templates": 2}
    assert first.items() >= ({"exporter": text_of(ONE)} | told).items()
    assert first["last_seen"] >= first["first_seen"] >= NOW
    seconds = 400 / first["flows_per_second"]
    assert 180 <= seconds < 3600
    assert first["octets_per_second"] == pytest.approx(int(TOLD[0][0]["octets_scaled"].sum()) / seconds)
    assert first["packets_per_second"] == pytest.approx(int(TOLD[0][0]["packets_scaled"].sum()) / seconds)


def test_interfaces_of_known_devices_have_names(database: Database, put: Put) -> None:
    target = database.target("core", "snmp")
    database.run(
        "INSERT INTO entities (target_id, poll, kind, key, digest, attributes, first_seen, last_seen) VALUES "
        "(:target, 'inventory', 'interface', 'uplink', 'a', CAST(:uplink AS jsonb), now(), now()), "
        "(:target, 'inventory', 'interface', 'access', 'b', CAST(:access AS jsonb), now(), now())",
        uplink='{"index": "2", "name": "xe-0/0/2"}',
        access='{"index": "3"}',
        target=target,
    )
    put(batch(TOLD[0][0], ONE, RECENT, target_id=target), batch(TOLD[1][0], TWO, RECENT))
    answer = top(database.engine, ["interface"], since=RECENT, limit=100)
    names = {(row["target"], row["interface"], row["name"]) for row in answer.rows if row["direction"] == "in"}
    known = {("core", 1, None), ("core", 2, "xe-0/0/2"), ("core", 3, "access")}
    assert names == known | {(None, index, None) for index in (1, 2, 3)}
    assert {row["target"] for row in top(database.engine, ["exporter"], since=RECENT).rows} == {"core", None}


def test_nothing_is_an_answer(newest: Database) -> None:
    answer = top(newest.engine, ["src"], since=RECENT)
    assert (answer.rows, set(answer.total.values())) == ([], {0})
    assert exporters(newest.engine) == []


def test_what_cannot_be_answered_says_why(newest: Database) -> None:
    with pytest.raises(QueryError, match="cannot be asked by colour"):
        top(newest.engine, ["src", "colour"], since=RECENT)
    with pytest.raises(QueryError, match="by nothing"):
        top(newest.engine, [], since=RECENT)
    with pytest.raises(QueryError, match="not kept since") as refusal:
        top(newest.engine, ["src", "port"], since=NOW - timedelta(days=3))
    assert "ask for less time" in str(refusal.value.hint)
    with pytest.raises(QueryError, match="limit of 0"):
        top(newest.engine, ["src"], since=RECENT, limit=0)
    with pytest.raises(QueryError, match="prefix length"):
        matrix(newest.engine, since=RECENT, ipv4=33)


def test_a_question_that_takes_too_long_is_given_up(newest: Database) -> None:
    newest.run("DROP VIEW flow_rollups_1m")
    newest.run(
        "CREATE VIEW flow_rollups_1m AS "
        "SELECT now() - interval '1 minute' AS ts, '192.0.2.1'::inet AS exporter, 'ingress' AS kind, "
        "NULL::inet AS source_address, NULL::inet AS destination_address, 6::smallint AS protocol, 1 AS port, "
        "1::bigint AS interface, 0::bigint AS source_as, 0::bigint AS destination_as, 1::bigint AS octets, "
        "1::bigint AS packets, 1::bigint AS flows, 1::bigint AS octets_scaled, 1::bigint AS packets_scaled "
        "FROM pg_sleep(20)"
    )
    engine = make_engine(newest.url, schema=newest.schema)
    with engine.connect() as connection:
        connection.exec_driver_sql("SET statement_timeout = '200ms'")
        connection.commit()
    with pytest.raises(QueryError, match="takes too long") as refusal:
        top(engine, ["exporter"], since=RECENT)
    assert "less time" in str(refusal.value.hint)
    engine.dispose()
