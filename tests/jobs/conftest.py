"""The fixtures of `stores`, and a desk at which messages are kept in a list instead of a broker."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
import redis
from sqlalchemy import Engine, text

from nms_workers.fleet.clients import Clients
from nms_workers.fleet.inventory import Inventory
from nms_workers.fleet.targets import sync
from nms_workers.jobs.desk import Desk
from nms_workers.jobs.job import Job
from nms_workers.service import Client
from nms_workers.settings import Settings, TargetConfig
from tests.fleet.stores import database_url, engine, postgres_name, red, redis_server, shelf
from tests.servers import Server

__all__ = ["database_url", "engine", "postgres_name", "red", "redis_server", "shelf"]

KEY = "the:shelf"
ClientOf = Callable[[Job], Client]


class Published:
    """The messages that went out."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def __call__(self, job: Job) -> None:
        self.jobs.append(job)


@pytest.fixture
def published() -> Published:
    return Published()


@pytest.fixture
def desk(engine: Engine, published: Published) -> Desk:
    return Desk(engine, Settings(), published)


@pytest.fixture
def client_of(
    engine: Engine, redis_server: Server, red: "redis.Redis", shelf: None, monkeypatch: pytest.MonkeyPatch
) -> ClientOf:
    """Two targets, `main` and `spare`, with `edge` beside the worker `fw1`, and how to reach them."""
    monkeypatch.setenv("SHELF_URL", redis_server.url)
    shelf_at = {"service": "shelf", "url": "env:SHELF_URL", "key": KEY}
    targets = [TargetConfig.model_validate(shelf_at | {"name": name}) for name in ("main", "spare")]
    targets.append(TargetConfig.model_validate(shelf_at | {"name": "edge", "worker": "fw1"}))
    inventory, clients = Inventory(red), Clients()
    sync(engine, inventory, Settings(targets=targets), datetime.now(UTC))
    by_name = {target.name: target for target in inventory.all().values()}
    return lambda job: clients.get(by_name[job.target])


def age(engine: Engine, seconds: float) -> None:
    """Let time pass for every job."""
    moments = ("created_at", "due_at", "retry_at", "expires_at", "published_at", "resend_at", "claimed_at")
    changes = ", ".join(f"{one} = {one} - make_interval(secs => :seconds)" for one in (*moments, "leased_until"))
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE jobs SET {changes}"), {"seconds": seconds})
