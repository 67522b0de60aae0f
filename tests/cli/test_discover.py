"""`nms-workers discover snmp` and `targets approve`, with real agents and a real database."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.fleet.stores import database_url, postgres_name, redis_server
from tests.servers import Server

__all__ = ["database_url", "postgres_name", "redis_server"]

StartServer = Callable[..., Server]


@pytest.fixture
def agents(start_server: StartServer, tmp_path: Path) -> Server:
    """Two agents at three addresses, and a settings file that knows how they are asked."""
    first = start_server("snmpd", addresses=("127.78.1.2", "127.78.1.3"), lines="sysName core\n")
    start_server("snmpd", addresses=("127.78.1.5",), at_port=first.port, lines="sysName edge\n")
    (tmp_path / "nms.toml").write_text(
        f"""
        [guards]
        protected = ["127.78.9.0/24"]
        [[targets]]
        service = "snmp"
        name = "seed"
        host = "127.78.1.14"
        port = {first.port}
        community = "env:TEST_PUBLIC"
        timeout = 1.0
        """
    )
    return first


def test_devices_are_found_proposed_and_approved(
    nms: Run, agents: Server, database_url: str, redis_server: Server
) -> None:
    env = {"TEST_PUBLIC": "public", "NMS_DATABASE_URL": database_url, "NMS_REDIS_URL": redis_server.url}
    ended = nms("discover", "snmp", "127.78.1.0/29", "--rate", "200", "--json", env=env)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert [(one["name"], one["addresses"]) for one in told["found"]] == [
        ("core", ["127.78.1.2", "127.78.1.3"]),
        ("edge", ["127.78.1.5"]),
    ]
    assert told["entered"] == {"waiting": ["core", "edge"], "active": [], "known": 0}
    assert "6 of 6 addresses asked, 3 answered" in ended.stderr
    again = json.loads(nms("discover", "snmp", "127.78.1.0/29", "--json", env=env).stdout)
    assert again["entered"] == {"waiting": [], "active": [], "known": 2}

    approved = nms("targets", "approve", "core", env=env)
    assert approved.stdout.strip() == "active now: snmp/core", approved.stderr
    listed = json.loads(nms("targets", "--json", env=env).stdout)
    assert {(one["name"], one["state"]) for one in listed} == {("core", "active"), ("edge", "proposed")}
    refused = nms("targets", "approve", "nobody", env=env)
    assert refused.returncode == 2
    assert "no target 'nobody' waits for approval" in refused.stderr


def test_what_is_not_swept_is_told(nms: Run, agents: Server) -> None:
    for arguments, why in (
        (["8.8.8.0/30"], "is not a private network"),
        (["127.78.0.0/16"], "touches 127.78.9.0/24, which is protected by the settings"),
        (["127.78.1.0/29", "--limit", "5"], "more than 5 addresses"),
        (["127.78.1.1/29"], "host bits"),
        (["127.78.1.0/29", "--credentials", "nothing"], "neither a file nor an SNMP target"),
        (["127.78.1.0/29"], "TEST_PUBLIC is not set"),
    ):
        ended = nms("discover", "snmp", *arguments, "--dry-run")
        assert ended.returncode == 2, ended.stdout
        assert why in ended.stderr
        assert "Traceback" not in ended.stderr


def test_a_protected_network_is_swept_when_it_is_named_twice(nms: Run, agents: Server) -> None:
    env = {"TEST_PUBLIC": "public"}
    network = "127.78.9.0/30"
    ended = nms("discover", "snmp", network, "--even", network, "--dry-run", env=env)
    assert ended.returncode == 0, ended.stderr
    assert "0 devices at 2 of 2 addresses" in ended.stdout
