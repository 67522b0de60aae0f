"""What Flower, the logs, Redis and the database tell: which target was polled and how it ended, and no secret."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import psutil
import psycopg
import pytest
import redis
import requests
from psycopg import sql

from nms_workers.embedded import free_port
from tests.real.conftest import POSTGRES, REDIS
from tests.real.fleet import Fleet, until
from tests.real.ledger import Ledger
from tests.real.probe_server import PASSWORD, ProbeServer
from tests.servers import PASSWORD as SERVER_PASSWORD

pytestmark = pytest.mark.real(POSTGRES, REDIS)
LOGIN = "watcher:crab nebula"


class Flower:
    """Its HTTP API."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def get(self, path: str, login: str = LOGIN) -> str:
        """The body of an answer."""
        answer = requests.get(self._url + path, auth=tuple(login.split(":")), timeout=10)
        answer.raise_for_status()
        return answer.text

    def tasks(self, name: str) -> list[dict[str, Any]]:
        """What it knows of the runs of a task."""
        return list(json.loads(self.get(f"/api/tasks?taskname={name}&limit=50")).values())


def test_names_targets_and_outcomes_are_shown_and_no_secret(fleet: Fleet, ledger: Ledger, probe: ProbeServer) -> None:
    port = free_port()
    login = fleet.folder / "flower_login"
    login.write_text(LOGIN)
    wrong = fleet.folder / "wrong"
    wrong.write_text("ultraviolet catastrophe")
    fleet.configure(
        fleet.target("shown", probe.port, {"quick": None}),
        fleet.target("barred", probe.port, {"steady": None}, password=f"file:{wrong}"),
        head=f'[web]\nflower_port = {port}\nflower_auth = "file:{login}"',
    )
    members = [fleet.start("flower", "flower"), *fleet.crew("control", "polls", "beat", "actions")]
    flower = Flower(port)
    until(lambda: _answers(flower), "Flower answers", 90)
    done = fleet.run("act", "probe", "apply", "effect=ban", "--target", "shown", "--wait")
    assert done.returncode == 0, done.stderr

    polled = until(lambda: [t for t in flower.tasks("nms.probe.quick") if t["state"] == "SUCCESS"], "a poll in Flower")
    assert "'targets': ['shown']" in polled[0]["kwargs"]
    assert polled[0]["result"] == "{'shown': 'ok'}"
    barred = until(lambda: [t for t in flower.tasks("nms.probe.steady") if t["state"] == "SUCCESS"], "the other poll")
    assert barred[0]["result"] == "{'barred': 'auth'}"
    acted = until(lambda: [t for t in flower.tasks("nms.probe.apply") if t["state"] == "SUCCESS"], "the action")
    assert "'effect': 'ban'" in acted[0]["kwargs"]
    assert "'state': 'succeeded'" in acted[0]["result"]
    with pytest.raises(requests.HTTPError, match="401"):
        flower.get("/api/tasks", login="watcher:guess")

    until(lambda: ledger.outcomes("barred")["auth"] > 1, "the wrong password is in the ledger as an outcome")
    told = {
        "Flower": "\n".join(
            flower.get(path) for path in ("/api/tasks", "/api/workers", "/broker", "/tasks", "/metrics")
        ),
        "the logs": fleet.logs(),
        "Redis": "\n".join(_redis_says(fleet.redis)),
        "the database": "\n".join(_database_says(fleet.database)),
        "the shell": "\n".join(fleet.run(*words).stdout for words in (("config", "show"), ("targets", "--json"))),
        "command lines": "\n".join(_command_line(member.pid) for member in members),
    }
    for where, words in told.items():
        assert len(words) > 100, f"{where} says something"
        for secret in (PASSWORD, wrong.read_text(), SERVER_PASSWORD, LOGIN.partition(":")[2]):
            for written in (secret, quote(secret), quote(secret, safe="").replace("%20", "+")):
                assert written not in words, f"{where} tells {written!r}"
    assert members[0].stop() == 0


def _answers(flower: Flower) -> bool:
    try:
        return bool(flower.get("/healthcheck"))
    except requests.RequestException:
        return False


def _redis_says(url: str) -> Iterator[str]:
    """Every key and every value."""
    with redis.Redis.from_url(url, decode_responses=True, encoding_errors="replace") as client:
        for key in client.scan_iter():
            yield key
            match client.type(key):
                case "string":
                    yield str(client.get(key))
                case "hash":
                    yield str(client.hgetall(key))
                case "list":
                    yield str(client.lrange(key, 0, -1))
                case "set":
                    yield str(client.smembers(key))
                case "zset":
                    yield str(client.zrange(key, 0, -1))


def _database_says(url: str) -> Iterator[str]:
    """Every row of every table."""
    with psycopg.connect(url) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        assert len(tables) > 10
        for (table,) in tables:
            rows = connection.execute(sql.SQL("SELECT t::text FROM {} AS t").format(sql.Identifier(table)))
            yield from (row[0] for row in rows)


def _command_line(pid: int) -> str:
    return " ".join(psutil.Process(pid).cmdline())
