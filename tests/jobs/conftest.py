"""The fixtures of `stores`, and a desk at which messages are kept in a list instead of a broker."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis
from sqlalchemy import Engine, text

import nms_workers.services
from nms_workers.fleet.clients import Clients
from nms_workers.fleet.inventory import Inventory
from nms_workers.fleet.targets import sync
from nms_workers.jobs.desk import Desk
from nms_workers.jobs.job import Job
from nms_workers.service import Client, services
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


@pytest.fixture
def fence(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The service `fence` is one of ours."""
    here = str(Path(__file__).parent / "services")
    with monkeypatch.context() as patched:
        patched.setattr(nms_workers.services, "__path__", [*nms_workers.services.__path__, here])
        services.cache_clear()
        yield
    services.cache_clear()


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """Where it is written down what was done at a fence."""
    return tmp_path / "book"


@pytest.fixture
def fence_client_of(engine: Engine, red: "redis.Redis", book: Path, fence: None) -> ClientOf:
    """The fences `gate` and `door`, and how to reach them."""
    at = [{"service": "fence", "name": name, "book": str(book)} for name in ("gate", "door")]
    inventory, clients = Inventory(red), Clients()
    sync(engine, inventory, Settings(targets=[TargetConfig.model_validate(one) for one in at]), datetime.now(UTC))
    by_name = {target.name: target for target in inventory.all().values()}
    return lambda job: clients.get(by_name[job.target])


def age(engine: Engine, seconds: float) -> None:
    """Let time pass for every job."""
    moments = ("created_at", "due_at", "retry_at", "expires_at", "published_at", "resend_at", "claimed_at")
    changes = ", ".join(f"{one} = {one} - make_interval(secs => :seconds)" for one in (*moments, "leased_until"))
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE jobs SET {changes}"), {"seconds": seconds})
