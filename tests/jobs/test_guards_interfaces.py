"""Interfaces that the fleet is reached through: refused on this host and in this namespace, nowhere else."""

import shutil
import subprocess
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import Engine

from nms_workers.fleet.inventory import Inventory
from nms_workers.fleet.targets import sync
from nms_workers.jobs.guards import refusal
from nms_workers.jobs.wish import Wish
from nms_workers.queues import host_name
from nms_workers.services.traffic_control.service import TrafficControl
from nms_workers.settings import Guards, Settings, TargetConfig
from tests.servers import Server, ServerMissing

Ask = Callable[..., str | None]
WHY = "lo leads to PostgreSQL of the fleet"
ACTIONS: dict[str, dict[str, Any]] = {
    "shape": {"rate": "10mbit"},
    "set_default_class": {"rate": "10mbit"},
    "police": {"rate": "10mbit"},
    "emulate": {"loss": 0.1},
    "clear": {"confirm": "tc"},
    "restore": {"before": {}},
}


@pytest.fixture
def ask(
    engine: Engine, red: "redis.Redis", redis_server: Server, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> Ask:
    """`ask("shape")`: why it is refused at `lo`, by which the stores of these tests are reached."""
    monkeypatch.setenv("NMS_DATABASE_URL", database_url)
    monkeypatch.setenv("NMS_REDIS_URL", redis_server.url)

    def look(
        action: str,
        *,
        interface: str = "lo",
        guards: dict[str, Any] | None = None,
        target: dict[str, Any] | None = None,
        **wish: Any,
    ) -> str | None:
        at = TargetConfig.model_validate({"service": "traffic_control", "name": "tc"} | (target or {}))
        sync(engine, Inventory(red), Settings(targets=[at]), datetime.now(UTC))
        given = {"interface": interface} | ACTIONS[action]
        settings = Settings(guards=Guards.model_validate({"find": ["fleet"], **(guards or {})}))
        asked = Wish("traffic_control", action, "tc", given, "ada", **wish)
        arguments = {name: value for name, value in given.items() if name != "confirm"}
        with engine.connect() as connection:
            return refusal(connection, settings, asked, TrafficControl.actions()[action], arguments)

    return look


def test_no_action_is_left_out() -> None:
    assert ACTIONS.keys() == TrafficControl.actions().keys()


@pytest.mark.parametrize("action", ACTIONS)
def test_the_interface_to_the_fleet_is_not_changed_by_default(ask: Ask, action: str) -> None:
    told = ask(action)
    assert told is not None
    assert WHY in told
    assert "guards.free_interfaces" in told, "it says how it may be"
    assert ask(action, interface="eth9") is None
    assert ask(action, undoes=uuid.uuid4()) is None, "what is put back was there before"


def test_it_may_be_where_the_settings_say_so_or_nothing_is_looked_for(ask: Ask) -> None:
    assert ask("shape", guards={"free_interfaces": ["l*"]}) is None
    assert ask("shape", guards={"find": []}) is None
    assert WHY in str(ask("shape", guards={"free_interfaces": ["eth*"]}))


def test_the_worker_beside_the_target_looks_and_nobody_elsewhere(ask: Ask) -> None:
    there = {"worker": "fw1"}
    assert ask("shape", target=there) is None, "this host's `lo` is another one"
    assert WHY in str(ask("shape", target=there, job=uuid.uuid4())), "the one that runs it is beside it"
    assert WHY in str(ask("shape", target={"worker": host_name()}))


def test_an_interface_of_another_namespace_is_not_ours(ask: Ask) -> None:
    unshare = shutil.which("unshare")
    if unshare is None:
        raise ServerMissing("network namespaces", "there is no unshare", "apt-get install util-linux")
    with subprocess.Popen([unshare, "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdin.write(b"entered\n")
        other.stdin.flush()
        if other.stdout.readline() == b"":
            raise ServerMissing("network namespaces", "none can be made here", "sudo make test")
        assert ask("shape", target={"netns": f"/proc/{other.pid}/ns/net"}) is None
        other.stdin.close()
    assert WHY in str(ask("shape", target={"netns": "/proc/self/ns/net"})), "another name of our own"
    assert not Path("/run/netns/nowhere").exists()
    assert ask("shape", target={"netns": "nowhere"}) is None, "the action itself says that there is none"


def test_where_the_fleet_is_must_be_known(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NMS_REDIS_URL", "redis://:secret@nowhere.invalid:6379/0")
    told = ask("shape", interface="eth9")
    assert told is not None
    assert "the address of nowhere.invalid, Redis of the fleet, cannot be found" in told
    assert "secret" not in told
