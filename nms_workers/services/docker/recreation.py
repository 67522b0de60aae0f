"""A container made anew from another image, the same in everything else; the old one is back when it does not come up.

The old container is renamed and stopped, never changed. It is removed when the new one is up, and only then. Who died
in the middle leaves it under its other name, and the next run puts it back first.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from docker.auth import resolve_repository_name

from nms_workers.change import Change, about_to_change
from nms_workers.errors import NmsError, Refused
from nms_workers.services.docker.acting import await_up, find, time_kept
from nms_workers.services.docker.client import DockerClient
from nms_workers.services.docker.failures import NotThere
from nms_workers.services.docker.model import Container

PREVIOUS = "-nms-previous"  # what the old container's name ends with meanwhile

_INSTEAD = "nms.instead-of"  # the label of the new one: the id of the old one
_NAMED = "nms.image"  # the label of the new one: what its image is called, where it was made from an id
_HEALTHY = 120.0  # seconds
_WAY_BACK = 60.0  # seconds that are kept for putting the old one back

_OF_THE_IMAGE = ("Cmd", "Entrypoint", "WorkingDir", "User", "Healthcheck", "StopSignal", "Shell", "OnBuild")
_MERGED = ("Labels", "Volumes", "ExposedPorts")
_PLACE = ("IPAMConfig", "Links", "Aliases", "DriverOpts")
_PULLED = 4 << 20  # bytes of what the engine tells while it pulls


def pull_and_recreate(  # noqa: PLR0913 - the arguments of the job
    client: DockerClient, name: str, *, own: bool, image: str, pull: bool, healthy: float, grace: int
) -> Change:
    """Pull the image of a container, and make the container anew when it is another one.

    Args:
        image: another image; empty: the one it was made with.
        pull: False takes the image that the engine has.
        healthy: seconds the new one may take until its health check is content.
        grace: seconds the old one has to end.
    """
    _put_back(client, name)
    old = find(client, name, own=own)
    wanted = image or old.labels.get(_NAMED) or old.config.image
    if pull:
        _pull(client, wanted)
    with client.engine() as api:
        new_id = str(api.inspect_image(wanted)["Id"])  # type: ignore[no-untyped-call]
    before = _about(old)
    if new_id == old.image:
        return Change(False, f"{old.name} is made of the newest {wanted} already", before, before)
    return _recreate(client, old, wanted, wanted, healthy, grace)


def restore_image(client: DockerClient, name: str, before: Mapping[str, Any], *, own: bool, grace: int) -> Change:
    """Make a container anew from the image it had before `pull_and_recreate`."""
    _put_back(client, name)
    old = find(client, name, own=own)
    wanted = str(before.get("image_id", ""))
    if old.image == wanted:
        return Change(False, f"{old.name} is made of that image already", _about(old), _about(old))
    return _recreate(client, old, wanted, str(before.get("image") or wanted), _HEALTHY, grace)


def _recreate(  # noqa: PLR0913, PLR0917 - what the two actions have in common
    client: DockerClient, old: Container, image: str, named: str, healthy: float, grace: int
) -> Change:
    raw = client.inspect(old.id)
    if raw["HostConfig"].get("AutoRemove"):
        hint = "make it without --rm, or recreate it by hand"
        raise Refused(f"{old.name} is removed by the engine when it ends, so there would be no way back", hint=hint)
    body, places = _made_from(client, raw, image)
    body["Labels"] |= {_INSTEAD: old.id, _NAMED: named}
    before = _about(old)
    about_to_change(before)
    try:
        with time_kept(_WAY_BACK), client.engine() as api:
            api.rename(old.id, old.name + PREVIOUS)
            api.stop(old.id, timeout=grace)
            key = str(api.create_container_from_config(body, old.name)["Id"])  # type: ignore[no-untyped-call]
            for network, place in places.items():
                api.ask("POST", f"/networks/{network}/connect", {"Container": key, "EndpointConfig": place})
            if old.state.running:
                api.start(key)
            new = await_up(client, key, healthy=healthy) if old.state.running else client.get_container(key)
    except NmsError as exc:
        _put_back(client, old.name, start=old.state.running)
        restored = client.get_container(old.name)
        raise Refused(f"{old.name} is back as it was ({restored.state.status}), because {exc.message}") from exc
    with client.engine() as api:
        api.remove_container(old.id, force=True)
    return Change(True, f"{old.name} is made anew from {image}", before, _about(new))


def _put_back(client: DockerClient, name: str, *, start: bool = True) -> None:
    """When the old container is there under its other name: remove what was made in its place, and put it back."""
    try:
        old = client.get_container(name + PREVIOUS)
    except NotThere:
        return
    with client.engine() as api:
        try:
            new = client.get_container(name)
        except NotThere:
            new = None  # it had not come so far
        if new is not None and new.labels.get(_INSTEAD) != old.id:
            hint = "remove the one that is not wanted, by hand"
            raise Refused(f"{name} was not made in place of {old.name}, and both are there", hint=hint)
        if new is not None:
            api.remove_container(new.id, force=True)
        api.rename(old.id, name)
        if start:
            api.start(old.id)


def _made_from(
    client: DockerClient, raw: Mapping[str, Any], image: str
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """What the engine makes the new container from, and the networks it is put into afterwards."""
    with client.engine() as api:
        of_image = api.inspect_image(raw["Image"]).get("Config") or {}  # type: ignore[no-untyped-call]
    config = _own(raw["Config"], of_image) | {"Image": image}
    if str(config.get("Hostname", "")) == str(raw["Id"])[:12]:
        config.pop("Hostname")
    host = dict(raw["HostConfig"])
    host["Binds"] = [*(host.get("Binds") or ()), *_unnamed(raw)] or None
    mode = str(host.get("NetworkMode") or "default")
    places = {
        name: {key: one.get(key) for key in _PLACE} | {"Aliases": _aliases(one, str(raw["Id"]))}
        for name, one in (raw["NetworkSettings"].get("Networks") or {}).items()
    }
    if mode.startswith("container:") or mode in {"none", "host"}:
        return config | {"HostConfig": host}, {}
    first = "bridge" if mode == "default" else mode
    joined = {first: places.pop(first)} if first in places else {}
    if first == "bridge":
        joined = {}  # takes no aliases, and needs none
    return config | {"HostConfig": host, "NetworkingConfig": {"EndpointsConfig": joined}}, places


def _own(config: Mapping[str, Any], image: Mapping[str, Any]) -> dict[str, Any]:
    """What was given when the container was made, without what came from its image: the new image has its own."""
    own = dict(config)
    for name in _OF_THE_IMAGE:
        if own.get(name) == image.get(name):
            own.pop(name, None)
    defaults = set(image.get("Env") or ())
    own["Env"] = [one for one in own.get("Env") or () if one not in defaults]
    for name in _MERGED:
        theirs = image.get(name) or {}
        own[name] = {key: value for key, value in (own.get(name) or {}).items() if theirs.get(key, ...) != value}
    return own


def _unnamed(raw: Mapping[str, Any]) -> list[str]:
    """Volumes that the engine made for the container, so that the new one gets the same."""
    known = {str(one).split(":")[1] for one in raw["HostConfig"].get("Binds") or () if ":" in str(one)}
    known |= {str(one.get("Target")) for one in raw["HostConfig"].get("Mounts") or ()}
    return [
        f"{one['Name']}:{one['Destination']}" + ("" if one.get("RW", True) else ":ro")
        for one in raw.get("Mounts") or ()
        if one.get("Type") == "volume" and one.get("Destination") not in known
    ]


def _aliases(place: Mapping[str, Any], container: str) -> list[str]:
    return [one for one in place.get("Aliases") or () if one != container[:12]]


class _Progress(msgspec.Struct):
    error: str = ""


def _pull(client: DockerClient, image: str) -> None:
    repository, tag = _split(image)
    with client.engine() as api:
        login = client.target.registries.get(resolve_repository_name(repository)[0])
        auth = {"username": login.username, "password": login.password.reveal()} if login else None
        told = api.pull(repository, tag=tag, auth_config=auth)
    for line in str(told)[-_PULLED:].splitlines():
        try:
            error = msgspec.json.decode(line.encode(), type=_Progress).error
        except (msgspec.DecodeError, msgspec.ValidationError):
            continue
        if error:
            raise Refused(f"{image} could not be pulled: {error[:300]}", hint="check its name, and registries")


def _split(image: str) -> tuple[str, str]:
    """Repository and tag, or digest: a colon before the last slash is that of a port."""
    if "@" in image:
        repository, _, digest = image.partition("@")
        return repository, digest
    head, slash, last = image.rpartition("/")
    name, _, tag = last.partition(":")
    return head + slash + name, tag or "latest"


def _about(container: Container) -> dict[str, Any]:
    return {
        "container": container.name,
        "id": container.id,
        "image": container.config.image,
        "image_id": container.image,
        "state": container.state.status,
        "networks": sorted(container.networks),
    }
