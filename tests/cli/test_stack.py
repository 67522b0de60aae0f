"""One round of every poll of every real server that can be had: the stack that people run, in one table."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from nms_workers.service import services
from tests.cli.conftest import Run
from tests.conftest import StartServer
from tests.servers import (
    Fail2banServer,
    Gns3Server,
    HaproxyServer,
    PostgresServer,
    RedisServer,
    Server,
    SuricataServer,
)

REAL = (
    *("postgresql-15", "redis-7.0", "fail2ban", "suricata", "gns3-2.2", "gns3-3.0"),
    *("prometheus", "netdata", "haproxy"),
)


def settings_of(server: Server) -> dict[str, Any]:
    """A target of its service, as a person would write it down."""
    password = {"password": "env:STACK_PASSWORD"}
    if isinstance(server, Fail2banServer):
        return {"socket": str(server.socket)}
    if isinstance(server, SuricataServer):
        return {"socket": str(server.socket), "eve_file": str(server.eve), "config": str(server.config)}
    if isinstance(server, PostgresServer | RedisServer):
        user = {"user": server.user} if isinstance(server, PostgresServer) else {}
        return {"host": server.host, "port": server.port, **user, **password}
    login = {"username": server.user, **password} if isinstance(server, Gns3Server | HaproxyServer) else {}
    socket = {"socket": str(server.socket)} if isinstance(server, HaproxyServer) else {}
    return {"url": server.url, **socket, **login}


def written(targets: Mapping[str, Mapping[str, Any]]) -> str:
    """These targets as TOML: JSON's texts, numbers and lists are TOML's too."""
    lines: list[str] = []
    for name, settings in targets.items():
        lines += ["[[targets]]", f"name = {json.dumps(name)}"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    return "\n".join([*lines, ""])


@pytest.mark.real(*REAL)
@pytest.mark.timeout(300)
def test_one_round_of_the_whole_stack(nms: Run, session_server: StartServer, tmp_path: Path) -> None:
    running = {name: session_server(name, "stack") for name in REAL}
    targets = {name: {"service": name.rpartition("-")[0] or name, **settings_of(one)} for name, one in running.items()}
    (tmp_path / "nms.toml").write_text(written(targets))
    password = running["haproxy"].password
    assert {getattr(one, "password", "") for one in running.values()} == {password, ""}, "one password opens them all"

    checked = nms("config", "check", env={"STACK_PASSWORD": password})
    assert checked.returncode == 0, checked.stderr
    data = str(tmp_path / "data")
    ended = nms("up", "--once", "--json", "--data", data, env={"STACK_PASSWORD": password}, timeout=240)

    slots = json.loads(ended.stdout)["slots"]
    wanted = {(name, poll) for name, one in targets.items() for poll in services()[one["service"]].polls()}
    assert {(slot["target"], slot["poll"]) for slot in slots} >= wanted
    assert [slot for slot in slots if slot["outcome"] not in ("ok", "unchanged")] == []
    assert ended.returncode == 0, ended.stderr
