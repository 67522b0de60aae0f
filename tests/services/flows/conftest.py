"""A view of a real history with flows in it."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, text

from nms_workers.services.flows.addresses import halves
from nms_workers.services.flows.client import FlowsClient
from nms_workers.services.flows.record import FLOW
from nms_workers.services.flows.target import FlowsTarget
from nms_workers.store.flow_writer import FlowWriter
from nms_workers.store.flows import Batch, Exporter
from tests.fleet.stores import database_url, engine, postgres_name

__all__ = ["database_url", "engine", "postgres_name"]

ROUTER, SWITCH = bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2))


class Told:
    """What exporters told, put into the history."""

    def __init__(self, writer: FlowWriter) -> None:
        self._writer = writer

    def __call__(self, received: datetime, *flows: dict[str, Any], exporter: bytes = ROUTER, **about: Any) -> None:
        """One batch of one exporter; a flow is named by the fields of `FLOW`, addresses as text."""
        made = np.zeros(len(flows), FLOW)
        for row, one in zip(made, flows, strict=True):
            for name, value in one.items():
                row[name] = halves(value) if isinstance(value, str) else value
        for name in ("octets", "packets"):
            made[f"{name}_scaled"] = made[name]
        moment = int(received.timestamp() * 1e6)
        made["flow_start"] = made["flow_end"] = moment
        batch = Batch(
            flows=made,
            exporter=np.zeros(len(made), np.uint32),
            received=np.full(len(made), moment, np.int64),
            exporters=[Exporter(exporter, **({"versions": (9,), "datagrams": 1, "templates": 3} | about))],
        )
        assert self._writer.put(batch)
        assert self._writer.flush(30)


@pytest.fixture
def told(database_url: str, tmp_path: Path) -> Iterator[Told]:
    """`told(received, {"octets": 1000, ...}, exporter=ROUTER)`."""
    writer = FlowWriter(tmp_path / "flows", database_url, linger=0.01)
    writer.start()
    yield Told(writer)
    writer.close(10)


@pytest.fixture
def view(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """`view(**settings)`: a client."""
    monkeypatch.setenv("TEST_HISTORY", database_url)
    made: list[FlowsClient] = []

    def make(**settings: Any) -> FlowsClient:
        made.append(FlowsClient(FlowsTarget.model_validate({"url": "env:TEST_HISTORY", **settings})))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def device(engine: Engine) -> int:
    """An SNMP target whose port 7 is called `Gi0/7`, of 1 Gbit/s."""
    with engine.begin() as connection:
        number: int = connection.execute(
            text(
                "INSERT INTO targets (service, name, source, state) "
                "VALUES ('snmp', 'router', 'test', 'active') RETURNING id"
            )
        ).scalar_one()
        connection.execute(
            text(
                "INSERT INTO entities (target_id, poll, kind, key, digest, attributes, first_seen, last_seen) VALUES "
                "(:target, 'inventory', 'interface', 'Gi0/7', 'x', '{\"index\": \"7\"}', now(), now())"
            ),
            {"target": number},
        )
    return number


def now() -> datetime:
    return datetime.now(UTC)
