"""`nms-workers flows`, the real program on a real database."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from nms_workers.store.flow_history import FlowHistory
from nms_workers.store.flow_spool import FlowSpool
from tests.cli.conftest import Run
from tests.servers import Server
from tests.store.conftest import Database, MakeDatabase, make_database  # noqa: F401 - a fixture
from tests.store.flow_batches import ONE, batch, some

FLOWS = some(500, sampling=10)
SCALED = int(FLOWS["octets_scaled"].sum())

Flows = Callable[..., Any]


@pytest.fixture
def database(session_server: Callable[[str], Server], make_database: MakeDatabase, tmp_path: Path) -> Database:  # noqa: F811
    """With 500 flows that came two minutes ago."""
    database = make_database(session_server("postgresql-18"))
    spool, history = FlowSpool(tmp_path / "spool"), FlowHistory(database.engine)
    at = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=2)
    target = database.target("edge-router", "snmp")
    one = batch(FLOWS, ONE, at, datagrams=20, lost=1, templates=2, target_id=target)
    assert spool.put(one.body(), len(FLOWS))
    with spool.taken(1 << 30) as waiting:
        history.write(waiting)
        spool.done(waiting[0])
    return database


@pytest.fixture
def flows(nms: Run, database: Database) -> Iterator[Flows]:
    """`flows("top", ...)`: run to its end against this database."""
    url = f"{database.url}?options={quote(f'-csearch_path={database.schema}')}"

    def run(*arguments: str) -> Any:
        return nms("flows", *arguments, env={"NMS_DATABASE_URL": url})

    return run


def test_top_is_a_table_with_bars_and_shares(flows: Flows) -> None:
    ended = flows("top", "--by", "src,dst", "--limit", "3")
    assert ended.returncode == 0, ended.stderr
    title, header, *lines = ended.stdout.splitlines()
    assert "500 flows" in title
    assert title.rstrip().endswith("read from roll-ups of 1m")
    assert header.split() == [
        "source_address",
        "destination_address",
        "share",
        "%",
        "bytes",
        "bits/s",
        "packets",
        "flows",
    ]
    assert len(lines) == 3
    assert all("%" in line for line in lines)
    assert "▏" in ended.stdout or "▎" in ended.stdout or "▍" in ended.stdout


def test_a_port_is_called_by_its_service_and_a_protocol_by_its_name(flows: Flows) -> None:
    ended = flows("top", "--by", "port", "--port", "443", "--protocol", "tcp")
    assert ended.returncode == 0, ended.stderr
    (line,) = ended.stdout.splitlines()[2:]
    assert line.split()[:3] == ["tcp", "443", "https"]
    assert "100.0%" in line


def test_top_as_json_is_what_is_stored(flows: Flows) -> None:
    ended = flows("top", "--by", "exporter", "--since", "1h", "--json")
    assert ended.returncode == 0, ended.stderr
    answer = json.loads(ended.stdout)
    assert answer["total"]["octets_scaled"] == SCALED
    (row,) = answer["rows"]
    assert (row["exporter"], row["target"], row["flows"], row["share"]) == ("192.0.2.1", "edge-router", 500, 1.0)
    assert row["octets_scaled"] == 10 * row["octets"] == SCALED
    assert answer["source"] == "1m"
    assert datetime.fromisoformat(answer["since"]) < datetime.fromisoformat(answer["until"])


def test_what_is_asked_of_the_flows_themselves_says_so(flows: Flows) -> None:
    answer = json.loads(flows("top", "--by", "src,port", "--host", "10.0.1.0/24", "--json").stdout)
    assert answer["source"] == "raw"
    told = flows("top", "--by", "src,port", "--host", "10.0.1.0/24")
    assert "read from the flows themselves" in told.stdout


def test_matrix_and_exporters(flows: Flows) -> None:
    answer = json.loads(flows("matrix", "--ipv4", "8", "--ipv6", "32", "--json").stdout)
    assert {row["source_network"] for row in answer["rows"]} == {"10.0.0.0/8", "2001:db8::/32"}
    assert sum(row["octets_scaled"] for row in answer["rows"]) == SCALED
    table = flows("matrix")
    assert table.stdout.splitlines()[1].split()[:2] == ["source_network", "destination_network"]
    (row,) = json.loads(flows("exporters", "--json").stdout)
    assert {name: row[name] for name in ("exporter", "target", "datagrams", "flows", "lost", "templates")} == {
        "exporter": "192.0.2.1", "target": "edge-router", "datagrams": 20, "flows": 500, "lost": 1, "templates": 2,
    }  # fmt: skip
    assert row["flows_per_second"] > 0
    line = flows("exporters").stdout.splitlines()[1]
    assert line.startswith("192.0.2.1")
    assert "IPFIX" in line


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("top", "--by", "colour"), "cannot be asked by colour"),
        (("top", "--by", ""), "by nothing"),
        (("top", "--since", "soon"), "is not a duration"),
        (("top", "--since", "1m", "--until", "5m"), "begins after"),
        (("top", "--src", "10.0.0.300"), "neither an address nor a network"),
        (("top", "--exporter", "router"), "is not an address"),
        (("top", "--protocol", "spam"), "is no protocol"),
        (("top", "--by", "src,port", "--since", "9d"), "not kept since"),
        (("matrix", "--ipv4", "33"), "--ipv4"),
    ],
    ids=lambda value: "-".join(value).strip("-") if isinstance(value, tuple) else "",
)
def test_what_cannot_be_asked_is_told_without_asking(nms: Run, arguments: tuple[str, ...], why: str) -> None:
    ended = nms("flows", *arguments, env={"NMS_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"})
    assert ended.returncode == 2
    assert why in ended.stderr
    assert "Traceback" not in ended.stderr


def test_without_a_command_it_is_the_collector(nms: Run) -> None:
    ended = nms("flows", env={"NMS_FLOWS": '{"listen": ["127.0.0.1:0", "no-address"]}'})
    assert ended.returncode == 2
    assert "flows.listen" in ended.stderr
    listed = nms("flows", "--help").stdout
    for command in ("run", "top", "matrix", "exporters"):
        assert command in listed
