"""One target, and each of its slots run by a worker that was started for it alone."""

from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import redis
from sqlalchemy import Engine

from nms_workers.fleet.clients import Clients
from nms_workers.fleet.flight import Flights
from nms_workers.fleet.inventory import Inventory
from nms_workers.fleet.run import Runner
from nms_workers.fleet.targets import sync
from nms_workers.settings import Settings, TargetConfig
from nms_workers.store.latest import Latest
from nms_workers.store.spool import Spool
from nms_workers.store.writer import Writer
from nms_workers.transport.breaker import Breakers
from tests.servers import Server

RunPoll = Callable[[str], str]
"""`run(poll)`: one slot; its outcome, when all is written."""


def runs_of(target: dict[str, Any], engine: Engine, red: "redis.Redis", redis_server: Server, folder: Path) -> RunPoll:
    """Make the target known; what it returns runs its polls."""
    config = TargetConfig.model_validate(target)
    inventory = Inventory(red)
    sync(engine, inventory, Settings(targets=[config]), datetime.now(UTC))
    due = int(datetime.now(UTC).timestamp() * 1000)

    def run(poll: str) -> str:
        nonlocal due
        due += 1000
        with ExitStack() as after:
            url = engine.url.render_as_string(hide_password=False)
            writer, clients = Writer(Spool(folder / "spool"), url, Latest(redis_server.url)), Clients()
            after.callback(clients.close)
            writer.start()
            after.callback(writer.close, 10)
            runner = Runner(Flights(red, "host:1"), Breakers(red), clients, writer, "host:1")
            outcomes = runner.run(config.service, poll, [(one, due) for one in inventory.all().values()])
            assert writer.flush(20)
        return str(outcomes[config.name])

    return run
