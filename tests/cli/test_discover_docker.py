"""`nms-workers discover docker`, once, at a real engine."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from tests.cli.conftest import Run
from tests.fleet.stores import database_url, postgres_name, redis_server
from tests.servers import Server
from tests.servers.docker import IMAGE, DockerServer

__all__ = ["database_url", "postgres_name", "redis_server"]


@pytest.mark.real("docker")
def test_containers_are_shown_and_entered(
    nms: Run, start_server: Callable[..., Server], database_url: str, redis_server: Server, tmp_path: Path
) -> None:
    engine = cast(DockerServer, start_server("docker"))
    with engine.plain() as api:
        for name, labels in (
            ("cache", {"nms.service.type": "redis", "nms.target.password": "env:CACHE", "nms.restart": "true"}),
            ("bad", {"nms.service.type": "redis", "nms.target.password": "hunter2"}),
            ("other", {}),
        ):
            own = {"nms.service": "true", **labels} if labels else {}
            api.start(api.create_container(IMAGE, ["sleep", "1000"], name=name, labels=own)["Id"])
        address = api.inspect_container("cache")["NetworkSettings"]["IPAddress"]
    target = f'[[targets]]\nservice = "docker"\nname = "local"\nurl = "{engine.url}"\n'
    (tmp_path / "nms.toml").write_text(target + '[discovery.docker]\napprove = ["type:redis"]\n')
    shown = nms("discover", "docker", "--dry-run", "--json")
    assert shown.returncode == 0, shown.stderr
    ((look),) = json.loads(shown.stdout)
    assert look["faults"].keys() == {"bad"}
    ((one),) = look["found"]
    assert (one["kind"], one["name"], one["approved"], one["restart"]) == ("redis", "cache", True, True)
    assert one["settings"] == {"password": "env:CACHE", "host": address, "port": 6379}

    env = {"NMS_DATABASE_URL": database_url, "NMS_REDIS_URL": redis_server.url}
    entered = nms("discover", "docker", env=env)
    assert entered.returncode == 0, entered.stderr
    assert "active: redis/cache" in entered.stdout
    assert "nms.target.password: write" in entered.stdout
    listed = json.loads(nms("targets", "--json", env=env).stdout)
    assert [(row["service"], row["name"], row["source"], row["state"]) for row in listed] == [
        ("redis", "cache", "docker", "active")
    ]
    assert "hunter2" not in shown.stdout + shown.stderr + entered.stdout + entered.stderr


def test_what_is_missing_is_told(nms: Run, tmp_path: Path) -> None:
    (tmp_path / "nms.toml").write_text("[discovery.docker]\n")
    ended = nms("discover", "docker")
    assert (ended.returncode, "the settings name no docker target" in ended.stderr) == (2, True)
