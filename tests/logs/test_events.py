"""Without Elasticsearch: lines are events in a real PostgreSQL, each once."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from nms_workers.logs.events import EventsOutlet
from nms_workers.masking import MASK
from nms_workers.store.engine import make_engine
from nms_workers.store.migrations import upgrade
from nms_workers.store.spool import Spool
from nms_workers.store.writer import Writer
from tests.fleet.stores import database_url, engine, postgres_name, rows, wait_until
from tests.logs.conftest import HOST, Ship, append, logs, numbered
from tests.servers import Server

__all__ = ["database_url", "engine", "postgres_name"]

_EVENTS = """
    SELECT t.service, t.name, e.kind, e.severity, e.state, e.message, e.attributes FROM events e
    JOIN targets t ON t.id = e.target_id ORDER BY e.ts, e.message
"""


@pytest.fixture
def writer(database_url: str, tmp_path: Path) -> Iterator[Writer]:
    made = Writer(Spool(tmp_path / "spool"), database_url)
    made.start()
    yield made
    made.close(10)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.log"


def outlet(engine: Engine, writer: Writer, kind: type[EventsOutlet] = EventsOutlet) -> EventsOutlet:
    """Where events go."""
    return kind(engine, writer, HOST, "test:1")


def told(engine: Engine) -> list[str]:
    """The messages of all events."""
    return [row[5] for row in rows(engine, _EVENTS)]


def test_lines_become_events(ship: Ship, engine: Engine, writer: Writer, path: Path) -> None:
    append(path, "2026-11-22T20:30:00Z WARNING token=abc", "", "2026-11-22T20:30:01Z CRITICAL " + "x" * 20_000)
    ship(logs(path, service="fail2ban", line_bytes=100_000, files={"joining": "none"}), outlet(engine, writer))
    wait_until(lambda: len(told(engine)) == 3)
    by_severity = {row[3]: row for row in rows(engine, _EVENTS)}
    service, name, kind, _, state, message, attributes = by_severity["warning"]
    assert (service, name, kind, state) == ("logs", HOST, "log_line", "occurred")
    assert message == f"2026-11-22T20:30:00Z WARNING token={MASK}"
    assert attributes["stream_name"] == "security"
    assert attributes["log"] == {"file": {"path": str(path)}, "level": "warn", "offset": 0}
    assert by_severity["info"][5] == " "
    assert len(by_severity["critical"][5]) == 16_384
    assert by_severity["critical"][6]["log"]["flags"] == ["truncated"]


class _Answerless(EventsOutlet):
    """Delivers, and then its process is at an end."""

    def deliver(self, *args: Any, **options: Any) -> Any:
        super().deliver(*args, **options)
        raise SystemError("the process ends here")


def test_delivered_and_never_acknowledged(ship: Ship, engine: Engine, writer: Writer, path: Path) -> None:
    append(path, *numbered(1, 20))
    shipping = ship(logs(path), outlet(engine, writer, _Answerless))
    shipping.died()
    wait_until(lambda: len(told(engine)) == 20)
    append(path, *numbered(21, 25))
    ship(logs(path), outlet(engine, writer))
    wait_until(lambda: len(told(engine)) >= 25)
    assert writer.flush(20)
    assert sorted(told(engine)) == numbered(1, 25)


def test_postgresql_is_away_for_a_while(
    ship: Ship, start_server: Callable[..., Server], tmp_path: Path, path: Path
) -> None:
    server = start_server("postgresql-18")
    upgrade(server.url)
    engine, writer = make_engine(server.url), Writer(Spool(tmp_path / "spool", max_bytes=400_000), server.url)
    writer.start()
    try:
        append(path, *numbered(1, 10))
        server.stop()
        ship(logs(path, bulk_lines=100), outlet(engine, writer))
        append(path, *numbered(11, 20))
        server.start()
        wait_until(lambda: _quietly(engine) == 20, 60)
        server.stop()
        append(path, *numbered(21, 3000))  # more than the spool may hold: it is left to the polls, and reading waits
        wait_until(lambda: writer.backlog().bytes > 200_000)
        server.start()
        wait_until(lambda: _quietly(engine) >= 3000, 90)
        assert writer.flush(20)
        assert sorted(told(engine)) == numbered(1, 3000)
    finally:
        writer.close(5)
        engine.dispose()


def _quietly(engine: Engine) -> int:
    try:
        return len(told(engine))
    except SQLAlchemyError:
        return -1
