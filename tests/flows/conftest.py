"""A collector with a real history."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from nms_workers.fleet.inventory import Target
from nms_workers.flows.enrichment import Known, known
from nms_workers.flows.keeping import Keeper
from nms_workers.flows.receiver import Collector
from nms_workers.flows.telling import Teller
from nms_workers.services.flows.detection import Thresholds
from nms_workers.settings import Flows
from nms_workers.store.flow_writer import FlowWriter
from nms_workers.store.spool import Spool
from nms_workers.store.writer import Writer
from tests.fleet.stores import database_url, engine, postgres_name, rows, wait_until
from tests.flows.exporters import send

__all__ = ["database_url", "engine", "postgres_name"]

TOTALS = "SELECT count(*), coalesce(sum(octets), 0), coalesce(sum(packets), 0) FROM flows"


@dataclass
class Collecting:
    """A running collector."""

    collector: Collector
    keeper: Keeper
    store: FlowWriter
    writer: Writer
    engine: Engine
    thread: threading.Thread

    @property
    def port(self) -> int:
        return self.collector.sockets[0].port

    def send(self, datagrams: Sequence[bytes], **how: Any) -> int:
        """Send these, and wait until they were received."""
        before = self.collector.datagrams
        own = send(self.port, datagrams, **how)
        wait_until(lambda: self.collector.datagrams - before >= len(datagrams))
        return own

    def totals(self, flows: int) -> tuple[int, int, int]:
        """Flows, octets and packets in the history, once there are so many flows."""
        wait_until(lambda: rows(self.engine, TOTALS)[0][0] >= flows)
        return tuple(map(int, rows(self.engine, TOTALS)[0]))  # type: ignore[return-value]

    def stop(self) -> None:
        """End it; all it has is kept."""
        self.collector.stop()
        self.thread.join(30)
        assert not self.thread.is_alive()
        assert self.store.close(30)
        assert self.writer.close(30)


Collect = Callable[..., Collecting]


@pytest.fixture
def collect(engine: Engine, database_url: str, tmp_path: Path) -> Iterator[Collect]:
    """`collect(targets, **settings)`: a collector on loopback; its folder is the same each time."""
    started: list[Collecting] = []

    def start(targets: Sequence[Target] = (), *, number: int = 1, **settings: Any) -> Collecting:
        wanted = Flows.model_validate({"listen": ("127.0.0.1:0",), "batch_age": 0.05, **settings})
        store = FlowWriter(tmp_path / "spool", database_url, linger=0.05, keep=wanted.conversations)
        writer = Writer(Spool(tmp_path / "results"), database_url)
        thresholds = Thresholds(wanted.scan_ports, wanted.fan_out, wanted.detection_window)
        keeper = Keeper(wanted, store, Teller(writer, "test:1", number, thresholds))

        def ask() -> Known:
            return known(targets, engine)

        collector = Collector(wanted, ask, keeper, tmp_path / "flows", number)
        store.start()
        writer.start()
        thread = threading.Thread(target=collector.run)
        thread.start()
        started.append(Collecting(collector, keeper, store, writer, engine, thread))
        if targets:
            wait_until(lambda: keeper.known != Known())
        return started[-1]

    yield start
    for one in reversed(started):  # the last one first: it empties the spool that they share
        one.stop()


@pytest.fixture
def target(engine: Engine) -> Callable[..., Target]:
    """`target(service, name, **settings)`: one that the history knows."""

    def make(service: str, name: str, every: dict[str, float] | None = None, **settings: Any) -> Target:
        with engine.begin() as connection:
            number = connection.exec_driver_sql(
                "INSERT INTO targets (service, name, source, state) VALUES (%s, %s, 'test', 'active') RETURNING id",
                (service, name),
            ).scalar_one()
        return Target(number, service, name, settings, every or {})

    return make
