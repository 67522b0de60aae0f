"""One engine for the tests of the stack: our image built on it, and the whole of docker-compose.yml running."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from fcntl import LOCK_EX, flock
from pathlib import Path

import docker
import pytest

from nms_workers import __version__
from tests.servers import ServerMissing, create, program
from tests.servers.docker import DockerServer
from tests.stack import images, vendors
from tests.stack.compose import PROFILES, ROOT, Compose, make_secrets
from tests.stack.stack import Stack

IMAGE = f"nms-workers:{__version__}"
BASE = "nms-test/python:1"
PLANTED = "a-secret-of-the-builder"
_DOWNLOAD_SECONDS = 600.0
_COMMENTED = re.compile(r"^# (?=\[|\w+ = )", re.MULTILINE)  # a section or a setting, not a sentence


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


@pytest.fixture(scope="module")
def stack(
    api: docker.APIClient, engine: DockerServer, image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """Every profile, running: every container is healthy by its own health check."""
    folder = tmp_path_factory.mktemp("stack")
    compose = prepared(engine, folder)
    services = compose.config(*PROFILES)["services"]
    images.postgres(api, services["postgres"]["image"], program("postgresql-15"))
    images.redis(api, services["redis"]["image"])
    vendors.make(api, {name: one["image"] for name, one in services.items()})
    stack = Stack(compose, api, folder / "secrets")
    try:
        stack.up()
        yield stack
    finally:
        compose.run("down", "--volumes", "--timeout=20", seconds=240)
    assert not api.containers(all=True), "down leaves nothing"
    assert not api.volumes()["Volumes"]


def prepared(engine: DockerServer, folder: Path) -> Compose:
    """Secrets, `deploy/nms.toml` with all that is commented out there, and what is mounted in a test."""
    make_secrets(folder / "secrets")
    settings = folder / "nms.toml"
    settings.write_text(_COMMENTED.sub("", (ROOT / "deploy" / "nms.toml").read_text()))
    override = folder / "override.json"
    override.write_text(json.dumps(vendors.override()))
    env = {
        "NMS_VERSION": __version__,
        "NMS_CONFIG_FILE": str(settings),
        "NMS_DOCKER_SOCKET": str(engine.socket),
        "DOCKER_GID": str(engine.socket.stat().st_gid),
        "COMPOSE_PROFILES": ",".join(PROFILES),
    }
    return Compose(folder, folder / "secrets", env, engine.url, override)
