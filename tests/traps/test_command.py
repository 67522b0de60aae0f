"""`nms-workers traps`, by itself and under `nms-workers up`."""

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis
from sqlalchemy import Engine

from nms_workers.fleet.inventory import Inventory
from nms_workers.fleet.targets import sync
from nms_workers.settings import Settings
from nms_workers.traps import receiver
from tests.cli.conftest import Fleet, Run, nms, program_env, start_up
from tests.conftest import StartServer
from tests.fleet.stores import red, redis_server, rows, wait_until
from tests.servers import Server
from tests.traps.conftest import COLD_START, INDEX_7, LINK_DOWN, V2C, Receive, Send

__all__ = ["nms", "program_env", "red", "redis_server", "start_up"]

TARGET = """
[[targets]]
service = "snmp"
name = "router"
host = "127.0.0.1"
community = "file:{community}"
"""

Start = Callable[..., tuple["subprocess.Popen[str]", int]]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Settings with one target, whose own community is believed."""
    (tmp_path / "community").write_text("secret-community\n")
    path = tmp_path / "nms.toml"
    path.write_text(TARGET.format(community=tmp_path / "community"))
    return path


@pytest.fixture
def environment(
    config: Path, database_url: str, redis_server: Server, program_env: dict[str, str], tmp_path: Path
) -> dict[str, str]:
    """Of the command."""
    return {
        **program_env,
        "NMS_CONFIG": str(config),
        "NMS_DATA": str(tmp_path / "data"),
        "NMS_DATABASE_URL": database_url,
        "NMS_REDIS_URL": redis_server.url,
    }


@pytest.fixture
def start(config: Path, engine: Engine, red: "redis.Redis", environment: dict[str, str]) -> Iterator[Start]:
    """`start(*options)`: the command, and the port at which it listens."""
    sync(engine, Inventory(red), Settings.load(config), datetime.now(UTC))
    started: list[subprocess.Popen[str]] = []

    def run(*options: str) -> tuple["subprocess.Popen[str]", int]:
        argv = [sys.executable, "-m", "nms_workers", "traps", "--listen", "127.0.0.1:0", *options]
        process = subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.match(r"traps are received at 127\.0\.0\.1:(\d+)", line):
                return process, int(found[1])
        pytest.fail(f"it ended with {process.wait()}")

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_it_keeps_what_comes_and_ends_in_order(
    start: Start, send: Send, engine: Engine, free_port: Callable[[], int], tmp_path: Path
) -> None:
    metrics = free_port()
    process, port = start("--metrics", str(metrics))
    wait_until(lambda: list((tmp_path / "data" / "run").glob("traps@*.heartbeat")))

    send(port, V2C, "", COLD_START, command="snmpinform")
    send(port, V2C, "", LINK_DOWN, *INDEX_7)

    def told() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    wait_until(lambda: 'nms_traps_datagrams_total{outcome="told"} 2.0' in told())
    assert "nms_traps_kernel_drops_total 0.0" in told()
    assert "nms_traps_answers_total 1.0" in told()
    assert os.getpriority(os.PRIO_PROCESS, process.pid) > os.getpriority(os.PRIO_PROCESS, 0)

    process.send_signal(signal.SIGTERM)
    _, words = process.communicate(timeout=60)

    assert process.returncode == 0, words
    kinds = rows(engine, "SELECT e.kind FROM events e JOIN targets t ON t.id = e.target_id ORDER BY e.ts")
    assert kinds == [("coldStart",), ("linkDown",)]
    assert {row[0] for row in rows(engine, "SELECT outcome FROM poll_runs WHERE poll = 'traps'")} == {"ok"}


def test_wrong_addresses_are_refused(nms: Run) -> None:
    ended = nms("traps", "--listen", "here")

    assert ended.returncode == 2
    assert "write an address and a port" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.timeout(300)
def test_up_runs_it_where_settings_ask_for_it(
    config: Path, start_up: Callable[[Path], Fleet], send: Send, free_port: Callable[[], int], tmp_path: Path
) -> None:
    port = free_port()
    config.write_text(f'[traps]\nlisten = ["127.0.0.1:{port}"]\n{config.read_text()}')
    fleet = start_up(tmp_path / "data")

    send(port, V2C, "", COLD_START, command="snmpinform")

    wait_until(lambda: [one["kind"] for one in fleet.json("events")].count("coldStart") == 1, 60)
    fleet.process.send_signal(signal.SIGINT)
    assert fleet.process.wait(90) == 0


def test_targets_are_read_again_and_stay_known_while_redis_is_away(
    receive: Receive,
    start_server: StartServer,
    send: Send,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(receiver, "REFRESH_SECONDS", 0.1)
    server = start_server("valkey-9")
    with redis.Redis.from_url(server.url) as client:
        inventory = Inventory(client)
        inventory.publish([])
        receiving = receive(known=inventory)
        send(receiving.port, V2C, "", COLD_START)
        receiving.wait(unknown_source=1)

        inventory.publish(receiving.targets)
        wait_until(lambda: receiving.receiver._sources.targets)
        server.stop()
        wait_until(lambda: "targets cannot be read" in caplog.text)
        send(receiving.port, V2C, "", COLD_START)

        receiving.wait(told=1)
        receiving.stop()
