"""A plan over three real systems, `shape + ban + capture`: done in order, and undone when its last step cannot be."""

from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from sqlalchemy import Engine

from nms_workers.fleet.clients import Clients
from nms_workers.fleet.inventory import Inventory
from nms_workers.fleet.targets import sync
from nms_workers.jobs.desk import Desk
from nms_workers.jobs.job import newest
from nms_workers.jobs.plan import Plan, submit_plan
from nms_workers.jobs.run import run
from nms_workers.settings import Settings, TargetConfig
from tests.conftest import StartServer
from tests.jobs.conftest import ClientOf, Published
from tests.servers import Fail2banServer, Gns3Server, Server
from tests.services.fail2ban.support import done
from tests.services.gns3.support import Plain, act, two_linked
from tests.services.traffic_control.conftest import lab
from tests.services.traffic_control.lab import Lab

__all__ = ["lab"]


@pytest.fixture
def gns3(session_server: StartServer) -> Gns3Server:
    """GNS3 without projects."""
    server = session_server("gns3-3.0", "gns3")
    assert isinstance(server, Gns3Server)
    Plain(server).clear()
    return server


@pytest.fixture
def fail2ban(start_server: StartServer) -> Fail2banServer:
    """A server of this test's own."""
    server = start_server("fail2ban")
    assert isinstance(server, Fail2banServer)
    return server


@pytest.fixture
def client_of(  # noqa: PLR0917 - the systems of the plan
    engine: Engine,
    red: "redis.Redis",
    redis_server: Server,
    database_url: str,
    lab: Lab,
    fail2ban: Fail2banServer,
    gns3: Gns3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> ClientOf:
    """How to reach `traffic_control/edge`, `fail2ban/fw` and `gns3/lab`."""
    monkeypatch.setenv("NMS_DATABASE_URL", database_url)
    monkeypatch.setenv("NMS_REDIS_URL", redis_server.url)
    monkeypatch.setenv("GNS3_PASSWORD", gns3.password)
    at: list[dict[str, Any]] = [
        {"service": "traffic_control", "name": "edge", "netns": lab.near},
        {"service": "fail2ban", "name": "fw", "socket": str(fail2ban.socket), "timezone": "UTC"},
        {"service": "gns3", "name": "lab", "url": gns3.url, "username": gns3.user, "password": "env:GNS3_PASSWORD"},
    ]
    inventory, clients = Inventory(red), Clients()
    sync(engine, inventory, Settings(targets=[TargetConfig.model_validate(one) for one in at]), datetime.now(UTC))
    by_name = {(target.service, target.name): target for target in inventory.all().values()}
    return lambda job: clients.get(by_name[job.service, job.target])


def isolate(a: str, b: str) -> Plan:
    """Shape what goes to somebody, ban him, and write down what he still sends, between `a` and `b`."""
    steps = [
        ("traffic_control", "edge", "shape", {"interface": "left", "destination": "198.51.100.7/32", "rate": "1mbit"}),
        ("fail2ban", "fw", "ban_ip", {"jail": "nms", "address": "198.51.100.7"}),
        ("gns3", "lab", "start_capture", {"project": "lab", "a": a, "b": b}),
    ]
    named = [dict(zip(("service", "target", "action", "arguments"), one, strict=True)) for one in steps]
    return Plan.model_validate({"name": "isolate", "steps": named})


@pytest.mark.parametrize("b", ["PC2", "PC9"], ids=["all of it", "without a capture"])
def test_shape_and_ban_and_capture(  # noqa: PLR0917 - the systems of the plan
    engine: Engine,
    desk: Desk,
    client_of: ClientOf,
    published: Published,
    lab: Lab,
    fail2ban: Fail2banServer,
    gns3: Gns3Server,
    b: str,
) -> None:
    jobs = submit_plan(desk, isolate("PC1", b), "ada")
    client = client_of(jobs[2])
    two_linked(client)  # type: ignore[arg-type]
    act(client, "start_node", project="lab", stagger=0)  # type: ignore[arg-type]
    rules, done_before = lab.rules(), 0
    while done_before < len(published.jobs):
        run(desk, published.jobs[done_before], "host:1", client_of)
        done_before += 1

    ended = {(job.action, job.state, job.error or "") for job in newest(engine)}
    (link,) = Plain(gns3).of("lab", "links")
    if b == "PC2":
        assert ended == {(one, "succeeded", "") for one in ("shape", "ban_ip", "start_capture")}
        assert link["capturing"]
        assert done(fail2ban) == ["nms ban 198.51.100.7"]
        assert lab.rules() != rules
        return
    assert {(action, state) for action, state, _ in ended} == {
        ("shape", "succeeded"),
        ("ban_ip", "succeeded"),
        ("start_capture", "failed"),
        ("unban_ip", "succeeded"),
        ("restore", "succeeded"),
    }
    assert any("no node 'PC9'" in error for _, _, error in ended)
    assert not link["capturing"]
    assert done(fail2ban) == ["nms ban 198.51.100.7", "nms unban 198.51.100.7"]
    assert lab.rules() == rules
