"""Volumes backed up, destroyed and brought back: compared by content, owner, mode and time."""

import io
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import pyrage
import pytest
import zstandard

from nms_workers.errors import ConfigError, ParseError, Refused
from nms_workers.services.docker.client import DockerClient
from tests.servers import DockerServer
from tests.servers.docker import IMAGE
from tests.servers.server import which
from tests.services.docker.conftest import Connect
from tests.services.docker.support import act, inside, make

FILL = (
    "cd /data; mkdir -p deep/er; echo hello > deep/er/file; head -c 3000000 /dev/urandom > big; ln -s big link; "
    "chmod 640 big; chown 1234:4321 big deep; chmod 1770 deep; ln big hard; mkfifo pipe; "
    "touch -d '2020-02-02 02:02' big; chown 33:44 .; chmod 2751 ."
)
LOOK = "cd /data; find . | sort | xargs stat -c '%n %F %a %u %g %h %Y %N'; find . -type f | sort | xargs sha256sum"

Backing = Callable[..., DockerClient]


@pytest.fixture
def backing(connect: Connect, engine: DockerServer, tmp_path: Path) -> Backing:
    """`backing(**backups)`: a client that writes backups to `tmp_path`."""

    def make_one(**more: Any) -> DockerClient:
        return connect(url=engine.url, backups={"folder": str(tmp_path), "image": IMAGE} | more)

    return make_one


def looks(api: docker.APIClient, volume: str) -> str:
    """Everything in a volume, as a container sees it."""
    made = api.create_container(
        IMAGE, ["sh", "-c", LOOK], host_config=api.create_host_config(binds=[f"{volume}:/data"])
    )
    api.start(made["Id"])
    assert api.wait(made["Id"])["StatusCode"] == 0
    text = api.logs(made["Id"], stderr=False).decode()
    api.remove_container(made["Id"])
    return str(text)


def filled(api: docker.APIClient) -> str:
    """The volume `data` with all kinds of files, in use by the running container `app`."""
    make(api, "app", host={"binds": ["data:/data"]})
    assert inside(api, "app", "sh", "-c", FILL) == (0, "")
    return looks(api, "data")


def newest(folder: Path) -> Path:
    return max(one for one in (folder / "data").iterdir() if one.suffix in {".zst", ".age"})


def sums(folder: Path, *arguments: str) -> str:
    """What sha256sum says."""
    argv = [which("sha256sum", "docker"), *arguments]
    return subprocess.run(argv, cwd=folder, capture_output=True, check=True, text=True, timeout=60).stdout


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    key = pyrage.x25519.Identity.generate()
    monkeypatch.setenv("TEST_AGE_KEY", f"# created: today\n{key}\n")
    return {"recipient": str(key.to_public()), "identity": "env:TEST_AGE_KEY"}


@pytest.mark.parametrize("encrypted", [False, True], ids=["in clear", "encrypted"])
def test_there_and_back(
    backing: Backing, plain: docker.APIClient, pair: dict[str, str], tmp_path: Path, encrypted: bool
) -> None:
    before = filled(plain)
    client = backing(**pair if encrypted else {})
    change = act(client, "backup_volume", volume="data")
    path = newest(tmp_path)
    assert (change.changed, change.after["backup"]) == (True, path.name)
    assert sums(path.parent, "-c", f"{path.name}.sha256") == f"{path.name}: OK\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert (b"hello" in path.read_bytes()[:100], path.suffix) == (False, ".age" if encrypted else ".zst")

    plain.remove_container("app", force=True)
    plain.remove_volume("data")
    told = act(client, "restore_volume", volume="data")
    assert (told.before, told.after["from"]) == ({"exists": False}, path.name)
    assert looks(plain, "data") == before
    assert plain.containers(all=True) == []


def test_what_is_in_the_way_is_replaced_and_kept(backing: Backing, plain: docker.APIClient) -> None:
    before = filled(plain)
    client = backing()
    act(client, "backup_volume", volume="data")
    inside(plain, "app", "sh", "-c", "rm -r /data/deep; echo new > /data/new; echo more >> /data/big")
    between = looks(plain, "data")
    started = plain.inspect_container("app")["State"]["StartedAt"]
    told = act(client, "restore_volume", volume="data")
    assert looks(plain, "data") == before
    state = plain.inspect_container("app")["State"]
    assert state["Running"]
    assert state["StartedAt"] > started  # it was stopped meanwhile
    act(client, "restore_previous", volume="data", before=told.before)
    assert looks(plain, "data") == between


def test_a_backup_is_of_one_moment(backing: Backing, plain: docker.APIClient, tmp_path: Path) -> None:
    """Two files that are always written together are alike in a backup made while they are written."""
    write = "i=0; while :; do i=$((i+1)); echo $i > /data/a; echo $i > /data/b; done"
    make(plain, "app", command=["sh", "-c", write], host={"binds": ["data:/data"]})
    make(plain, "big", host={"binds": ["data:/data"]})
    inside(plain, "big", "sh", "-c", "head -c 5000000 /dev/zero > /data/aa")  # packed between the two
    client = backing()
    act(client, "backup_volume", volume="data")
    with (
        newest(tmp_path).open("rb") as file,
        zstandard.ZstdDecompressor().stream_reader(file) as clear,
        tarfile.open(fileobj=io.BytesIO(clear.read())) as tar,
    ):
        numbers = [int(tar.extractfile(name).read() or 0) for name in ("volume/a", "volume/b")]  # type: ignore[union-attr]
    assert numbers[0] - numbers[1] in {0, 1} or 0 in numbers
    assert not plain.inspect_container("app")["State"]["Paused"]
    assert plain.inspect_container("app")["State"]["Running"]


def test_containers_are_held_as_chosen(backing: Backing, plain: docker.APIClient) -> None:
    filled(plain)
    client, seen = backing(), list[str]()
    for hold in ("pause", "stop", "none"):
        since = client.now()
        act(client, "backup_volume", volume="data", hold=hold)
        happened = [one.action for one in client.events(since, client.now()) if one.name == "app"]
        seen.append(next((one for one in happened if one in {"pause", "stop"}), "none"))
        assert plain.inspect_container("app")["State"]["Status"] == "running"
    assert seen == ["pause", "stop", "none"]


def test_a_container_without_our_label_is_not_held(backing: Backing, plain: docker.APIClient, tmp_path: Path) -> None:
    make(plain, "foreign", labels={}, host={"binds": ["data:/data"]})
    with pytest.raises(Refused, match="foreign does not carry the label"):
        act(backing(), "backup_volume", volume="data")
    assert not (tmp_path / "data").exists()
    assert act(backing(), "backup_volume", volume="data", hold="none").changed
    assert not plain.containers(all=True, filters={"name": "nms-volume"})


def test_who_died_while_containers_were_paused(backing: Backing, plain: docker.APIClient) -> None:
    filled(plain)
    key = plain.inspect_container("app")["Id"]
    held = {"nms.held": f'{{"how": "pause", "containers": ["{key}"]}}'}
    plain.create_container(IMAGE, "true", name="nms-volume-data", labels=held)
    plain.pause(key)
    act(backing(), "backup_volume", volume="data")
    assert plain.inspect_container("app")["State"]["Status"] == "running"
    assert not plain.containers(all=True, filters={"name": "nms-volume"})


def test_the_newest_are_kept(backing: Backing, plain: docker.APIClient, tmp_path: Path) -> None:
    filled(plain)
    client = backing(keep=2)
    made = [act(client, "backup_volume", volume="data").after["backup"] for _ in range(3)]
    last = act(client, "backup_volume", volume="data")
    assert last.after["dropped"] == [made[1]]
    left = {one.name for one in (tmp_path / "data").iterdir()}
    assert left == {name + end for name in (made[2], last.after["backup"]) for end in ("", ".sha256")}


def test_verify(backing: Backing, plain: docker.APIClient, pair: dict[str, str], tmp_path: Path) -> None:
    filled(plain)
    client = backing(**pair)
    act(client, "backup_volume", volume="data")
    told = act(client, "verify_backup", volume="data")
    assert (told.changed, told.after["entries"]) == (False, 8)
    assert told.after["file_bytes"] >= 3_000_006

    path = newest(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100] + bytes(100))
    with pytest.raises(ParseError, match="is not what was written: its SHA-256 is another"):
        act(client, "verify_backup", volume="data")
    with pytest.raises(ParseError, match="SHA-256"):
        act(client, "restore_volume", volume="data")
    path.write_bytes(whole)
    with pytest.raises(ConfigError, match=r"is encrypted \(set backups\.identity"):
        act(backing(), "verify_backup", volume="data")


def test_another_key(
    backing: Backing, plain: docker.APIClient, pair: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = filled(plain)
    client = backing(**pair)
    act(client, "backup_volume", volume="data")
    monkeypatch.setenv("TEST_AGE_KEY", str(pyrage.x25519.Identity.generate()))
    with pytest.raises(ConfigError, match="does not open with our key"):
        act(client, "restore_volume", volume="data")
    monkeypatch.setenv("TEST_AGE_KEY", "AGE-SECRET-KEY-nonsense")
    with pytest.raises(ConfigError, match="holds no secret key of age") as error:
        act(client, "verify_backup", volume="data")
    assert "nonsense" not in str(error.value)
    assert looks(plain, "data") == before


def test_a_damaged_backup_whose_checksum_fits(backing: Backing, plain: docker.APIClient, tmp_path: Path) -> None:
    filled(plain)
    client = backing()
    act(client, "backup_volume", volume="data")
    path = newest(tmp_path)
    path.write_bytes(path.read_bytes()[:-1000])
    path.with_name(path.name + ".sha256").write_text(sums(path.parent, path.name))
    with pytest.raises(ParseError, match="is damaged"):
        act(client, "verify_backup", volume="data")


def test_a_volume_that_is_too_big(backing: Backing, plain: docker.APIClient, tmp_path: Path) -> None:
    filled(plain)
    with pytest.raises(Refused, match=r"bigger than backups\.max_bytes"):
        act(backing(max_bytes=1_000_000), "backup_volume", volume="data")
    assert list((tmp_path / "data").iterdir()) == []
    assert plain.inspect_container("app")["State"]["Status"] == "running"


def test_what_is_not_there(backing: Backing, connect: Connect, engine: DockerServer, plain: docker.APIClient) -> None:
    with pytest.raises(Refused, match="there is no volume nothing"):
        act(backing(), "backup_volume", volume="nothing")
    plain.create_volume("data")
    with pytest.raises(Refused, match="there is no backup at all of data"):
        act(backing(), "restore_volume", volume="data")
    with pytest.raises(ConfigError, match="there is no place for backups"):
        act(connect(url=engine.url), "backup_volume", volume="data")
    with pytest.raises(Refused, match="backup"):
        act(backing(), "verify_backup", volume="data", backup="../../etc/passwd")


def test_volumes_are_made_and_removed(client: DockerClient, plain: docker.APIClient) -> None:
    assert act(client, "ensure_volume", volume="data").before == {"exists": False}
    assert not act(client, "ensure_volume", volume="data").changed
    with pytest.raises(Refused, match="of the driver local"):
        act(client, "ensure_volume", volume="data", driver="other")
    make(plain, "app", host={"binds": ["data:/data"]})
    with pytest.raises(Refused, match="volume is in use"):
        act(client, "remove_volume", volume="data")
    plain.remove_container("app", force=True)
    assert act(client, "remove_volume", volume="data").changed
    assert not act(client, "remove_volume", volume="data").changed
    plain.create_volume("foreign")
    with pytest.raises(Refused, match="is not ours"):
        act(client, "remove_volume", volume="foreign")
