"""The servers that the other tests stand on: each starts, keeps its data, and is gone when it says so."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from kombu import Connection

from tests.servers import (
    GNS3,
    POSTGRES,
    REDIS,
    SERVERS,
    Fail2banServer,
    Server,
    ServerFailed,
    ServerMissing,
    create,
    program,
)
from tests.services.gns3.support import Plain

StartServer = Callable[..., Server]

STORES = (*POSTGRES, *REDIS, "rabbitmq", *GNS3)  # that keep data and listen at a port


def _write(server: Server) -> None:
    if server.name in POSTGRES:
        with psycopg.connect(server.url) as connection:
            connection.execute("create table kept as select 42 as answer")
    elif server.name in REDIS:
        with redis.Redis.from_url(server.url) as client:
            client.set("kept", 42)
    elif isinstance(server, Fail2banServer):
        _fail2ban(server, "set", "nms", "banip", "192.0.2.42")
    elif server.name in GNS3:
        Plain(server).ask("POST", "/projects", {"name": "answer-42"})
    else:
        with Connection(server.url) as connection:
            connection.SimpleQueue("kept").put({"answer": 42}, delivery_mode=2)


def _read(server: Server) -> int:
    if server.name in POSTGRES:
        with psycopg.connect(server.url) as connection:
            row = connection.execute("select answer from kept").fetchone()
            assert row is not None
            return int(row[0])
    if server.name in REDIS:
        with redis.Redis.from_url(server.url) as client:
            return int(client.get("kept"))
    if isinstance(server, Fail2banServer):
        end = time.monotonic() + 10  # it brings its bans back when it is up already
        while not (banned := _fail2ban(server, "get", "nms", "banip").strip()):
            assert time.monotonic() < end, "the ban did not come back"
        return int(banned.rpartition(".")[2])
    if server.name in GNS3:
        return int(Plain(server).ask("GET", "/projects")[0]["name"].removeprefix("answer-"))
    with Connection(server.url) as connection:
        return int(connection.SimpleQueue("kept").get(timeout=10).payload["answer"])


def _fail2ban(server: Fail2banServer, *command: str) -> str:
    argv = ["fail2ban-client", "-s", str(server.socket), *command]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=10).stdout


@pytest.mark.parametrize("name", [*STORES, "fail2ban"])
def test_keeps_its_data_when_stopped_and_when_killed(name: str, start_server: StartServer) -> None:
    server = start_server(name)
    _write(server)
    port, family = server.port, [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]

    server.restart()
    assert not psutil.wait_procs(family, timeout=5)[1], "processes were left behind"
    server.kill()
    assert not server.running
    server.start()

    assert server.port == port
    assert _read(server) == 42


@pytest.mark.parametrize("name", [*STORES, "netdata"])
def test_listens_on_the_loopback_interface_only(name: str, session_server: StartServer) -> None:
    server = session_server(name)
    family = {server.pid, *(child.pid for child in psutil.Process(server.pid).children(recursive=True))}
    listening = {c.laddr.ip for c in psutil.net_connections("inet") if c.pid in family and c.status == "LISTEN"}
    assert listening == (set() if server.url.startswith("unix:") else {"127.0.0.1"})


@pytest.mark.parametrize("name", POSTGRES)
def test_postgresql_is_the_version_of_its_name(name: str, session_server: StartServer) -> None:
    server = session_server(name)
    with psycopg.connect(server.url) as connection:
        assert connection.info.server_version // 10000 == int(name.removeprefix("postgresql-"))


def test_postgresql_takes_settings_and_counts_statements(start_server: StartServer) -> None:
    server = start_server("postgresql-18", conf={"work_mem": "7MB"})
    with psycopg.connect(server.url) as connection:
        assert connection.execute("show work_mem").fetchone() == ("7MB",)
        connection.execute("create extension pg_stat_statements")
        assert connection.execute("select count(*) > 0 from pg_stat_statements").fetchone() == (True,)


def test_postgresql_standby_follows(start_server: StartServer) -> None:
    primary = start_server("postgresql-15")
    standby = start_server("postgresql-15", standby_of=primary)
    with psycopg.connect(standby.url) as connection:
        assert connection.execute("select pg_is_in_recovery()").fetchone() == (True,)


def test_redis_takes_settings(start_server: StartServer) -> None:
    server = start_server("valkey-9", conf={"maxmemory": "64mb"}, password="")
    with redis.Redis.from_url(server.url) as client:
        assert client.config_get("maxmemory") == {"maxmemory": "67108864"}


def test_rabbitmq_declares_a_quorum_queue(session_server: StartServer) -> None:
    server = session_server("rabbitmq")
    with Connection(server.url) as connection:
        channel = connection.channel()
        channel.queue_declare("q", durable=True, auto_delete=False, arguments={"x-queue-type": "quorum"})
        assert channel.queue_delete("q") == 0


def test_a_server_that_cannot_start_shows_its_last_words(tmp_path: Path) -> None:
    server = create("postgresql-18", tmp_path, conf={"no_such_setting": "1"})
    with pytest.raises(ServerFailed, match="no_such_setting"):
        server.start()
    assert not server.running


def test_a_missing_server_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SERVERS, "redis-7.0", SERVERS["redis-7.0"].__class__(Server, "/no/such/redis", install="apt"))
    with pytest.raises(ServerMissing, match=r"redis-7.0: there is no /no/such/redis; to have it: apt"):
        program("redis-7.0")


@pytest.mark.parametrize("required", [False, True])
@pytest.mark.parametrize("options", [[], ["--numprocesses=2"]])
def test_what_could_not_be_had_stands_at_the_end_of_a_run(tmp_path: Path, options: list[str], required: bool) -> None:
    (tmp_path / "test_it.py").write_text(
        "import pytest\nfrom tests.servers import ServerMissing\n"
        "@pytest.fixture\ndef gone():\n    raise ServerMissing('moon', 'it has set', 'wait a night')\n"
        "def test_by_fixture(gone): ...\n"
        "def test_by_itself(): raise ServerMissing('moon', 'it has set', 'wait a night')\n"
        "def test_without(): ...\n"
    )
    argv = [sys.executable, "-m", "pytest", "--rootdir", str(tmp_path), "-p", "tests.conftest", *options, str(tmp_path)]
    env = os.environ | {"NMS_REQUIRE_REAL": "1" if required else "0", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == (1 if required else 0)
    _, _, end = done.stdout.partition("servers that could not be had")
    assert "moon: it has set. To have it: wait a night. Not tested without it:\n" in end
    assert {line.strip() for line in end.splitlines() if line.startswith("    ")} == {
        "test_it.py::test_by_fixture",
        "test_it.py::test_by_itself",
    }
    assert ("(NMS_REQUIRE_REAL=1 makes this a failure)" in done.stdout) is required
