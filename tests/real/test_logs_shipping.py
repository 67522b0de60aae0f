"""`nms-workers logs`, killed again and again: each line of a real container and of rotated files comes once."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from sqlalchemy import Engine

from tests.conftest import StartServer
from tests.fleet.stores import database_url, engine, postgres_name, red, redis_server, rows
from tests.real.fleet import CODE, until
from tests.servers import DockerServer, Server
from tests.servers.docker import IMAGE
from tests.stubs.elasticsearch import ElasticsearchStub

__all__ = ["database_url", "engine", "postgres_name", "red", "redis_server"]

LINES = 3_000
_PART = 1_000
_SPEAKS = """
i=0
while [ $i -lt {lines} ]; do
  i=$((i+1))
  echo "out $i"
  if [ $((i % 3)) = 0 ]; then echo "err $i" >&2; fi
  if [ $((i % 200)) = 0 ]; then sleep 0.2; fi
done
"""


@pytest.fixture
def stub() -> Iterator[ElasticsearchStub]:
    with ElasticsearchStub() as one:
        yield one


@pytest.fixture
def docker_engine(session_server: StartServer) -> Iterator[DockerServer]:
    """An engine without containers before and after the test."""
    one = session_server("docker", "docker")
    assert isinstance(one, DockerServer)
    one.clear()
    yield one
    one.clear()


@pytest.fixture
def plain(docker_engine: DockerServer) -> Iterator[docker.APIClient]:
    """What the engine says without our code."""
    with docker_engine.plain() as api:
        yield api


class Process:
    """The command, started as often as it is killed."""

    def __init__(self, config: Path, folder: Path, **environment: str) -> None:
        self._log = folder / "shipper.log"
        self._env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(CODE),
            "NMS_CONFIG": str(config),
            "NMS_DATA": str(folder / "data"),
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        """Start it; return when it ships."""
        with self._log.open("ab") as log:
            begun = log.tell()
            argv = [sys.executable, "-m", "nms_workers", "logs", *options]
            process = subprocess.Popen(argv, env=self._env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._process = process
        until(lambda: b"logs are shipped" in self._log.read_bytes()[begun:] or process.poll() is not None, "it ships")
        assert process.poll() is None, self.words()

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        assert self._process.poll() is None, self.words()
        self._process.kill()
        self._process.wait(20)

    def stop(self) -> int:
        """SIGTERM, as who operates it does."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self._process.wait(40)

    def words(self) -> str:
        """What it wrote."""
        return self._log.read_text(errors="replace")[-4000:]


Start = Callable[..., Process]


@pytest.fixture
def shipper(tmp_path: Path) -> Iterator[Start]:
    """`shipper(config, **environment)`: the command with these settings."""
    made: list[Process] = []

    def make(config: str, **environment: str) -> Process:
        path = tmp_path / "nms.toml"
        path.write_text(config)
        made.append(Process(path, tmp_path, **environment))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def stores(database_url: str, redis_server: Server) -> dict[str, str]:
    """Where the history is, as the command is told."""
    return {"NMS_DATABASE_URL": database_url, "NMS_REDIS_URL": redis_server.url}


def elasticsearch(stub: ElasticsearchStub, logs: str) -> str:
    """Settings with a cluster, and this section."""
    target = f'[[targets]]\nservice = "elasticsearch"\nname = "main"\nurl = "{stub.url}"\n'
    return f'[logs]\nelasticsearch = "main"\nbulk_lines = 100\n{logs}\n{target}'


def docker_target(server: DockerServer) -> str:
    """Settings of an engine."""
    return f'[[targets]]\nservice = "docker"\nname = "local"\nurl = "{server.url}"\n'


def told(stub: ElasticsearchStub, stream: str) -> list[str]:
    """The messages of a data stream."""
    return [document["message"] for _, document in stub.documents(stream)]


def run(plain: docker.APIClient, script: str, name: str, **labels: str) -> str:
    """A container that runs a script of busybox' shell."""
    made = plain.create_container(IMAGE, ["sh", "-c", script], name=name, labels=labels)
    plain.start(made["Id"])
    return str(made["Id"])


@pytest.mark.real("docker")
@pytest.mark.timeout(400)
def test_a_container_whose_shipper_is_killed(
    shipper: Start, stub: ElasticsearchStub, docker_engine: DockerServer, plain: docker.APIClient
) -> None:
    process = shipper(elasticsearch(stub, 'docker = ["local"]') + docker_target(docker_engine))
    labels = {"nms.logs": "true", "nms.service.type": "suricata", "nms.service.name": "ids"}
    container = run(plain, _SPEAKS.format(lines=LINES), "speaker", **labels)
    wanted = [f"out {number}" for number in range(1, LINES + 1)]
    wanted += [f"err {number}" for number in range(3, LINES + 1, 3)]
    kills = 0
    while (had := len(told(stub, "nms-security-logs"))) < len(wanted):
        process.start()
        aim = min(len(wanted), had + len(wanted) // 7)
        until(lambda aim=aim: len(told(stub, "nms-security-logs")) >= aim, "it goes on", 120)  # type: ignore[misc]
        process.kill()
        kills += 1
    assert kills >= 5
    process.start()
    plain.restart(container, timeout=1)  # it says everything again, and that is not the same
    until(lambda: len(told(stub, "nms-security-logs")) >= 2 * len(wanted), "it is followed again", 120)
    assert process.stop() == 0
    assert sorted(told(stub, "nms-security-logs")) == sorted(wanted * 2)
    documents = [document for _, document in stub.documents("nms-security-logs")]
    first = documents[0]
    assert first["container"] == {"id": container, "name": "speaker", "image": {"name": IMAGE}}
    assert first["service"] == {"name": "ids", "type": "suricata"}
    assert {(one["message"][:3], one["stream"]) for one in documents} == {("out", "stdout"), ("err", "stderr")}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", first["@timestamp"])


@pytest.mark.real("docker")
@pytest.mark.timeout(400)
def test_lines_of_the_very_same_time(
    shipper: Start, stub: ElasticsearchStub, docker_engine: DockerServer, plain: docker.APIClient
) -> None:
    """The engine keeps nanoseconds, and many lines may share one: they are told apart by their order."""
    container = run(plain, "true", "ended", **{"nms.logs": "true"})
    plain.wait(container)
    times = [f"2026-11-22T10:00:0{second}.123456789Z" for second in range(3)]
    said = [("stdout" if number % 3 else "stderr", f"line {number:04}", times[number // 300]) for number in range(900)]
    kept = docker_engine.folder / "root" / "containers" / container / f"{container}-json.log"
    kept.write_text(
        "".join(json.dumps({"log": f"{text}\n", "stream": one, "time": at}) + "\n" for one, text, at in said)
    )
    process = shipper(elasticsearch(stub, 'docker = ["local"]') + docker_target(docker_engine))
    for aim in (50, 350, 650):
        process.start()
        until(lambda aim=aim: len(told(stub, "nms-monitoring-logs")) >= aim, "it goes on", 60)  # type: ignore[misc]
        process.kill()
    process.start()
    until(lambda: len(told(stub, "nms-monitoring-logs")) >= 900, "all of it", 60)
    assert process.stop() == 0
    assert sorted(told(stub, "nms-monitoring-logs")) == [text for _, text, _ in said]
    assert [document["@timestamp"] for _, document in stub.documents("nms-monitoring-logs")] == [at for *_, at in said]


@pytest.mark.real("docker")
def test_which_containers_and_what_they_say(
    shipper: Start, stub: ElasticsearchStub, docker_engine: DockerServer, plain: docker.APIClient
) -> None:
    run(plain, "echo early; echo token=abc", "ended", **{"nms.service": "true"})
    run(plain, "echo no", "silent")
    run(plain, "echo no", "refused", **{"nms.service": "true", "nms.logs": "false"})
    run(plain, "echo named; sleep 600", "web-1")
    long = 40_000  # the engine cuts it into three pieces
    script = (
        f"head -c {long} /dev/zero | tr '\\0' x; echo; printf 'Traceback (most recent call last):\\n  File\\nE: no\\n'"
    )
    run(plain, script, "long", **{"nms.logs": "true", "nms.logs.stream": "network"})
    section = 'docker = ["local"]\ncontainers = ["web-*"]\nline_bytes = 100000\n'
    process = shipper(elasticsearch(stub, section) + docker_target(docker_engine))
    process.start()
    until(lambda: len(told(stub, "nms-monitoring-logs")) >= 3, "what is there comes")
    until(lambda: told(stub, "nms-network-logs"), "the long one too")
    run(plain, "echo late", "late", **{"nms.logs": "true"})
    until(lambda: "late" in told(stub, "nms-monitoring-logs"), "a new container is followed", 10)
    assert process.stop() == 0
    assert sorted(told(stub, "nms-monitoring-logs")) == ["early", "late", "named", "token=<masked>"]
    assert told(stub, "nms-network-logs") == ["x" * long + "\nTraceback (most recent call last):\n  File\nE: no"]


@pytest.mark.timeout(400)
def test_files_that_are_rotated_while_the_shipper_is_killed(
    shipper: Start, stub: ElasticsearchStub, tmp_path: Path
) -> None:
    folder = tmp_path / "var"
    folder.mkdir()
    files = f'[[logs.files]]\npaths = ["{folder}/*.log"]\nservice = "json"\n'
    process = shipper(elasticsearch(stub, files))
    renamed, copied = Rotated(folder / "renamed.log"), Rotated(folder / "copied.log")
    with stub.away():
        process.start()
        renamed.write(_PART)
        copied.write(_PART)
        process.kill()
    for _ in range(5):
        process.start()
        renamed.write(_PART)
        copied.write(_PART // 2)
        until(lambda: len(told(stub, "nms-monitoring-logs")) >= renamed.number, "it goes on", 60)
        renamed.rename()
        copied.copy()
        process.kill()
        renamed.write(_PART // 3)
        copied.write(_PART // 3)
    process.start()
    wanted = renamed.lines + copied.lines
    until(lambda: len(told(stub, "nms-monitoring-logs")) >= len(wanted), "all of it", 60)
    assert process.stop() == 0
    assert sorted(told(stub, "nms-monitoring-logs")) == sorted(wanted)


class Rotated:
    """A log file, and what was written to it."""

    def __init__(self, path: Path) -> None:
        self.path, self.lines, self.number = path, list[str](), 0
        self._rotations = 0

    def write(self, count: int) -> None:
        new = [f"{self.path.name} line {self.number + one:06}" for one in range(1, count + 1)]
        self.number += count
        self.lines += new
        with self.path.open("a") as file:
            file.writelines(line + "\n" for line in new)

    def rename(self) -> None:
        for number in range(self._rotations, 0, -1):
            self._at(number).rename(self._at(number + 1))
        self.path.rename(self._at(1))
        self._rotations += 1

    def copy(self) -> None:
        for number in range(self._rotations, 0, -1):
            self._at(number).rename(self._at(number + 1))
        self._at(1).write_bytes(self.path.read_bytes())
        os.truncate(self.path, 0)
        self._rotations += 1

    def _at(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")


@pytest.mark.timeout(400)
def test_events_in_postgresql_while_the_shipper_is_killed(
    shipper: Start, stores: dict[str, str], engine: Engine, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    log = Rotated(tmp_path / "app.log")
    section = f'[logs]\nbulk_lines = 100\n[[logs.files]]\npaths = ["{log.path}"]\nservice = "json"\n'
    process = shipper(section, **stores)
    for _ in range(4):
        log.write(1000)
        process.start()
        until(lambda: _events(engine) > log.number - 1000, "it goes on", 60)
        process.kill()
    port = free_port()
    log.write(10)
    process.start("--metrics", str(port))
    until(lambda: _events(engine) >= log.number, "all of it", 60)
    metrics = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
    assert re.search(r'^nms_logs_shipped_lines_total\{stream="monitoring"\} \d', metrics, re.MULTILINE)
    assert process.stop() == 0
    assert [row[0] for row in rows(engine, "SELECT message FROM events ORDER BY message")] == sorted(log.lines)


def _events(engine: Engine) -> int:
    found: list[tuple[Any, ...]] = rows(engine, "SELECT count(*) FROM events WHERE kind = 'log_line'")
    return int(found[0][0])
