"""Volumes: made and removed, backed up and brought back.

The engine itself packs and unpacks a volume, through a container that is never started and has the volume mounted (its
archive API), so owners, modes and times are kept. Containers that use the volume are held meanwhile. Who they are
stands in a label of that container before the first is held: whoever dies in the middle leaves it behind, and the next
run lets them go on.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from nms_workers.change import Change, about_to_change
from nms_workers.errors import ConfigError, Refused, TargetError
from nms_workers.services.docker import archive
from nms_workers.services.docker.acting import find, freeze, labelled, time_kept
from nms_workers.services.docker.client import DockerClient
from nms_workers.services.docker.connection import Engine
from nms_workers.services.docker.failures import NotThere
from nms_workers.services.docker.model import LABEL
from nms_workers.services.docker.target import Backups

Hold = Literal["pause", "stop", "none"]

_WAY_BACK = 60.0  # seconds that are kept for letting the containers go on
_HELPER = "nms-volume-"  # and the name of the volume
_HELD = "nms.held"
_PLACE = "/volume"
_PIECE = 1 << 20
_CLEARED = 3000  # seconds that removing what is in a volume may take, within the deadline of the job
_GRACE = 10  # seconds a container has to end


def ensure(client: DockerClient, volume: str, driver: str) -> Change:
    """Have a volume of this name."""
    found = _find(client, volume)
    if found is not None:
        if found.get("Driver") != driver:
            raise Refused(f"there is a volume {volume} of the driver {found.get('Driver')}", hint="choose another name")
        return Change(False, f"there is a volume {volume} already", {"exists": True}, _about(found))
    about_to_change({"exists": False})
    with client.engine() as api:
        api.create_volume(volume, driver=driver, labels={LABEL: "true"})
    return Change(True, f"volume {volume} made", {"exists": False}, _about(_there(client, volume)))


def remove(client: DockerClient, volume: str) -> Change:
    """Remove a volume that no container has, with what is in it."""
    found = _find(client, volume)
    if found is None:
        return Change(False, f"there is no volume {volume}", {"exists": False}, {"exists": False})
    if not labelled(client, found.get("Labels")):
        raise Refused(f"the volume {volume} is not ours: it lacks the label {LABEL}=true")
    about_to_change(_about(found))
    with client.engine() as api:
        api.remove_volume(volume)
    return Change(True, f"volume {volume} removed", _about(found) | {"exists": True}, {"exists": False})


def backup(client: DockerClient, volume: str, hold: Hold, *, own: bool) -> Change:
    """Write a backup of a volume to the folder of the settings, and drop those over `keep`."""
    backups = _settings(client)
    about = _about(_there(client, volume))
    before = about | {"backups": [one.name for one in archive.found(backups, volume)]}
    about_to_change(before)
    with _held(client, backups, volume, hold, own=own) as helper:
        path = _pack(client, backups, volume, helper)
    contents = archive.verify(backups, path) if _can_open(backups) else None
    dropped = archive.drop_old(backups, volume)
    after = _told(path) | {"dropped": dropped} | ({"entries": contents.entries} if contents else {})
    return Change(True, f"{volume} is backed up as {path.name}", before, after)


def restore(client: DockerClient, volume: str, name: str, *, own: bool) -> Change:
    """Put a volume back to a backup: what is in it now is backed up first, then replaced as a whole.

    The containers that use it are stopped meanwhile. A volume that is not there is made.

    Args:
        name: of the backup; empty: the newest.
    """
    backups = _settings(client)
    path = archive.chosen(backups, volume, name)
    contents = archive.verify(backups, path)
    there = _find(client, volume) is not None
    before: dict[str, Any] = {"exists": there}
    about_to_change(before)
    if not there:
        ensure(client, volume, "local")
    with _held(client, backups, volume, "stop", own=own) as helper:
        if there:
            before["backup"] = _pack(client, backups, volume, helper).name
            about_to_change(before)
            _clear(client, backups, volume)
        _unpack(client, backups, path, helper)
    archive.drop_old(backups, volume, but=path.name)
    after = {"exists": True, "from": path.name, "entries": contents.entries, "file_bytes": contents.file_bytes}
    return Change(True, f"{volume} is as in {path.name}", before, after)


def check(client: DockerClient, volume: str, name: str) -> Change:
    """Read a whole backup, and tell what is in it."""
    backups = _settings(client)
    path = archive.chosen(backups, volume, name)
    contents = archive.verify(backups, path)
    after = _told(path) | {"entries": contents.entries, "file_bytes": contents.file_bytes, "tar_bytes": contents.size}
    return Change(False, f"{path.name} is whole: {contents.entries} entries", {}, after)


def _pack(client: DockerClient, backups: Backups, volume: str, helper: str) -> Path:
    with client.engine() as api, api.body_of("GET", f"/containers/{helper}/archive", {"path": _PLACE}) as tar:
        return archive.write(backups, volume, tar)


def _unpack(client: DockerClient, backups: Backups, path: Path, helper: str) -> None:
    with archive.opened(backups, path) as tar, client.engine() as api:
        url = f"{api.base_url}/v{api.api_version}/containers/{helper}/archive"
        pieces = iter(lambda: tar.read(_PIECE), b"")
        kind = {"Content-Type": "application/x-tar"}
        api.put(url, params={"path": "/"}, data=pieces, headers=kind, timeout=_CLEARED)


def _clear(client: DockerClient, backups: Backups, volume: str) -> None:
    """Remove all that is in a volume: by a container of the helper's image, which sees nothing else and no network."""
    with client.engine() as api:
        host = api.create_host_config(
            binds=[f"{volume}:{_PLACE}"], network_mode="none", read_only=True, cap_drop=["ALL"],
            cap_add=["DAC_OVERRIDE", "FOWNER"],
        )  # fmt: skip
        command = ["find", _PLACE, "-mindepth", "1", "-maxdepth", "1", "-exec", "rm", "-rf", "{}", "+"]
        made = api.create_container(
            backups.image, entrypoint=command[:1], command=command[1:], user="0", host_config=host, healthcheck=_NONE
        )
        try:
            api.start(made["Id"])
            code = api.wait(made["Id"], timeout=_CLEARED).get("StatusCode")
            said = " ".join(one.text for one in client.get_service_logs(made["Id"], 3))
        except Refused as exc:
            exc.hint = exc.hint or _FIND
            raise
        finally:
            api.remove_container(made["Id"], force=True)
    if code:
        raise Refused(f"{volume} could not be cleared: {said[:300]}", hint=_FIND)


_FIND = "does backups.image have the commands find and rm?"
_NONE = {"test": ["NONE"]}


@contextmanager
def _held(client: DockerClient, backups: Backups, volume: str, hold: Hold, *, own: bool) -> Iterator[str]:
    """The helper, with the volume mounted, while the running containers that use it are held.

    Raises:
        Refused: one of them may not be acted on.
    """
    name = _HELPER + volume
    with client.engine() as api:
        _let_go(api, name)
        using = [] if hold == "none" else _running(client, volume)
        for one in using:
            find(client, one, own=own)
        labels = {_HELD: json.dumps({"how": hold, "containers": using})}
        host = api.create_host_config(binds=[f"{volume}:{_PLACE}"], network_mode="none")
        made = api.create_container(backups.image, command=["true"], name=name, labels=labels, host_config=host)
        try:
            with time_kept(_WAY_BACK):
                for one in using:
                    freeze(api, one) if hold == "pause" else api.stop(one, timeout=_GRACE)
                yield str(made["Id"])
        finally:
            _let_go(api, name)


def _let_go(api: Engine, helper: str) -> None:
    """Let those go on that a helper of this name says are held, and remove it."""
    try:
        config = api.inspect_container(helper)["Config"]
    except NotThere:
        return
    held: Mapping[str, Any] = json.loads((config.get("Labels") or {}).get(_HELD) or "{}")
    left: list[str] = []
    for one in held.get("containers", ()):
        try:
            _go_on(api, one, held["how"])
        except NotThere:
            continue  # somebody removed it meanwhile
        except TargetError as exc:
            left.append(f"{one[:12]} ({exc.message})")
    if left:  # the helper stays, so that the next run tries again
        raise Refused(f"containers are still held: {', '.join(left)}", hint="start or unpause them")
    api.remove_container(helper, force=True)


def _go_on(api: Engine, container: str, how: str) -> None:
    state = api.inspect_container(container)["State"]
    if how == "pause" and state["Paused"]:
        api.unpause(container)
    elif how == "stop" and not state["Running"]:
        api.start(container)


def _running(client: DockerClient, volume: str) -> list[str]:
    """Ids of the running containers that use a volume and are not paused by somebody else."""
    with client.engine() as api:
        found = api.containers(filters={"volume": volume, "status": "running"})
    exact = [one for one in found if any(mount.get("Name") == volume for mount in one.get("Mounts") or ())]
    return sorted(str(one["Id"]) for one in exact)


def _can_open(backups: Backups) -> bool:
    """Whether what we write can be read again here: who only encrypts may lack the secret key on purpose."""
    return backups.recipient is None or backups.identity is not None


def _settings(client: DockerClient) -> Backups:
    if client.target.backups is None:
        raise ConfigError("there is no place for backups", hint="set backups.folder and backups.image of the target")
    return client.target.backups


def _find(client: DockerClient, volume: str) -> dict[str, Any] | None:
    return next((one for one in client.get_volumes() if one.get("Name") == volume), None)


def _there(client: DockerClient, volume: str) -> dict[str, Any]:
    found = _find(client, volume)
    if found is None:
        some = ", ".join(sorted(str(one.get("Name")) for one in client.get_volumes())[:10])
        raise NotThere(f"there is no volume {volume}", hint=f"there are: {some}" if some else "there is none yet")
    return found


def _about(volume: Mapping[str, Any]) -> dict[str, Any]:
    return {"volume": volume.get("Name"), "driver": volume.get("Driver"), "created": volume.get("CreatedAt")}


def _told(path: Path) -> dict[str, Any]:
    return {"backup": path.name, "bytes": path.stat().st_size, "sha256": archive.digest(path)}
