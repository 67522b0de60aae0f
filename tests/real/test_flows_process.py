"""`nms-workers flows` as a process: stopped, killed and started again, without its database, and under `up`."""

import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nms_workers.bench.flow_datagrams import Traffic, v5, v9
from nms_workers.store.engine import make_engine
from tests.cli.conftest import Fleet, nms, program_env, start_up
from tests.conftest import StartServer
from tests.fleet.stores import fresh_database, redis_server, rows, wait_until
from tests.servers import Server

__all__ = ["nms", "program_env", "redis_server", "start_up"]

AWAY_SECONDS = float(os.environ.get("NMS_FLOWS_AWAY_SECONDS", "4"))
EVERY_SECONDS = 0.02


class Exporter(threading.Thread):
    """Sends a datagram every few milliseconds, from one socket, templates at the very beginning only."""

    def __init__(self, port: int, traffic: Traffic) -> None:
        super().__init__(daemon=True)
        self._port, self._traffic = port, traffic
        self._over = threading.Event()
        self.sent = 0

    def run(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
            place = ("127.0.0.1", self._port)
            for one in self._traffic.first:
                wire.sendto(one, place)
            while not self._over.wait(EVERY_SECONDS):
                datagram = bytearray(self._traffic.datagrams[self.sent % len(self._traffic.datagrams)])
                struct.pack_into(">I", datagram, self._traffic.sequence_at, self.sent * self._traffic.step)
                wire.sendto(datagram, place)
                self.sent += 1

    def end(self) -> int:
        """How many datagrams were sent."""
        self._over.set()
        self.join()
        return self.sent


class Process:
    """The collector; what it says goes to a file."""

    def __init__(self, listen: str, environment: dict[str, str], said: Path) -> None:
        argv = [sys.executable, "-m", "nms_workers", "flows", "run", "--listen", listen]
        self.said = said
        with said.open("w") as file:
            self.process = subprocess.Popen(argv, env=environment, stderr=file)
        wait_until(lambda: self._port() or self.process.poll() is not None, 60)
        assert self._port(), said.read_text()
        self.port = self._port()

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(how)
        code = self.process.wait(60)
        assert code == (0 if how == signal.SIGTERM else -how), self.said.read_text()

    def _port(self) -> int:
        found = re.search(r"^flows are received at 127\.0\.0\.1:(\d+)", self.said.read_text(), re.MULTILINE)
        return int(found[1]) if found else 0


Start = Callable[..., Process]


@pytest.fixture
def start(program_env: dict[str, str], redis_server: Server, tmp_path: Path) -> Iterator[Start]:
    """`start(database_url, port=0)`: the command; its data is in one folder."""
    started: list[Process] = []
    config = tmp_path / "nms.toml"
    config.write_text("")

    def run(url: str, port: int = 0) -> Process:
        environment = {
            **program_env,
            "NMS_CONFIG": str(config),
            "NMS_DATA": str(tmp_path / "data"),
            "NMS_DATABASE_URL": url,
            "NMS_REDIS_URL": redis_server.url,
        }
        started.append(Process(f"127.0.0.1:{port}", environment, tmp_path / f"said{len(started)}"))
        return started[-1]

    yield run
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


def query(url: str, what: str) -> list[tuple[Any, ...]]:
    engine = make_engine(url)
    try:
        return rows(engine, what)
    finally:
        engine.dispose()


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("how", "lost_before"), [(signal.SIGTERM, 0.0), (signal.SIGKILL, 1.5)], ids=["stopped", "killed"]
)
def test_a_restart_leaves_no_gap_but_itself_and_waits_for_no_template(
    start: Start, start_server: StartServer, how: signal.Signals, lost_before: float
) -> None:
    """What a killed collector had not put into its spool is lost with it: batches are a second old at most."""
    url = fresh_database(start_server("postgresql-15"))
    first = start(url)
    exporter = Exporter(first.port, v9(100))
    exporter.start()
    wait_until(lambda: exporter.sent > 100)

    ended = time.monotonic()
    first.end(how)
    second = start(url, first.port)
    away = time.monotonic() - ended
    at_restart = exporter.sent
    wait_until(lambda: exporter.sent > at_restart + 100)
    sent = exporter.end()
    second.end()

    (stored,) = query(url, "SELECT count(*) FROM flows")[0]
    missing = sent - stored / 26  # of data that came without its template there is nothing
    assert 0 <= missing <= (away + lost_before) / EVERY_SECONDS + 1


@pytest.mark.timeout(300 + 3 * AWAY_SECONDS)
def test_while_the_database_is_away_nothing_is_lost(start: Start, start_server: StartServer) -> None:
    server = start_server("postgresql-15")
    url = fresh_database(server)
    collector = start(url)
    exporter = Exporter(collector.port, v5(100))
    exporter.start()
    wait_until(lambda: query(url, "SELECT 1 FROM flow_blocks LIMIT 1"))

    server.stop()
    back = time.monotonic() + AWAY_SECONDS
    wait_until(lambda: "PostgreSQL does not take flows" in collector.said.read_text(), 30)
    wait_until(lambda: time.monotonic() > back, AWAY_SECONDS + 10)
    server.start()
    sent = exporter.end()

    wait_until(lambda: query(url, "SELECT count(*) FROM flows") == [(30 * sent,)], 60)
    assert query(url, "SELECT sum(datagrams), sum(lost) FROM flow_exporters") == [(sent, 0)]
    assert query(url, "SELECT sum(flows) FROM flow_rollups_1m WHERE kind = 'port'") == [(30 * sent,)]
    collector.end()


@pytest.mark.timeout(300)
def test_up_runs_it_and_the_views_have_figures(
    start_up: Callable[[Path], Fleet], free_port: Callable[[], int], program_env: dict[str, str], tmp_path: Path
) -> None:
    port = free_port()
    config = tmp_path / "nms.toml"
    config.write_text(
        f'[flows]\nlisten = ["127.0.0.1:{port}"]\nprocesses = 2\n\n[[targets]]\nservice = "flows"\nname = "all"\n'
    )
    fleet = start_up(tmp_path / "data")

    exporter = Exporter(port, v5(10))
    exporter.start()
    wait_until(lambda: fleet.json("flows", "exporters"), 60)
    sent = exporter.end()

    wait_until(lambda: fleet.json("flows", "exporters")[0]["flows"] == 30 * sent, 60)
    for poll in ("exporters", "interfaces", "anomalies"):
        ended = fleet("poll", "flows", poll, "--target", "all")
        assert ended.returncode == 0, ended.stderr
    fleet.process.send_signal(signal.SIGINT)
    assert fleet.process.wait(90) == 0
