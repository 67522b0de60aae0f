"""What nobody uses any more, removed one by one: what goes is what was shown."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from nms_workers.change import Change, about_to_change
from nms_workers.errors import TargetError
from nms_workers.services.docker import networks
from nms_workers.services.docker.acting import is_own, labelled
from nms_workers.services.docker.client import DockerClient
from nms_workers.services.docker.failures import Conflict, NotThere
from nms_workers.services.docker.recreation import PREVIOUS

Kind = Literal["containers", "images", "volumes", "networks", "build_cache"]

_ENDED = {"created", "exited", "dead"}
_TOLD = 200  # of each kind that are named


def prune(client: DockerClient, kinds: Sequence[str], hours: float, *, dry_run: bool) -> Change:
    """Remove what is not used: ended containers, untagged images, volumes and networks without a container.

    Containers, volumes and networks only with our label, unless the settings say otherwise; never the fleet's own, nor
    what a recreation keeps to go back to.

    Args:
        hours: how old a container or an image must be.
    """
    due = {kind: list(_DUE[kind](client, hours)) for kind in sorted(set(kinds))}
    shown = {kind: [name for _, name in found][:_TOLD] for kind, found in due.items()}
    count = sum(map(len, due.values()))
    if not count or dry_run:
        message = f"{count} objects would go" if count else "nothing is unused"
        return Change(bool(count), message, shown, {kind: [] for kind in shown} if count else shown)
    about_to_change(shown)
    gone: dict[str, list[str]] = {kind: [] for kind in due}
    used: list[str] = []
    for kind, found in due.items():
        for key, name in found:
            try:
                _remove(client, kind, key)
                gone[kind].append(name)
            except NotThere:
                continue
            except Conflict:  # somebody took it meanwhile
                used.append(name)
            except TargetError as exc:
                exc.message += f"; {sum(map(len, gone.values()))} of {count} had gone before. Run this again to go on"
                raise
    number = sum(map(len, gone.values()))
    after = {"removed": {kind: names[:_TOLD] for kind, names in gone.items()}, "in_use": used[:_TOLD]}
    return Change(bool(number), f"{number} unused objects removed", shown, after)


def _containers(client: DockerClient, hours: float) -> Iterator[tuple[str, str]]:
    for one in client.get_containers():
        if one.state not in _ENDED or one.created > _before(hours) or one.name.endswith(PREVIOUS):
            continue
        if labelled(client, dict(one.labels or {})) and not is_own(client, client.get_container(one.id)):
            yield one.id, one.name


def _images(client: DockerClient, hours: float) -> Iterator[tuple[str, str]]:
    used = {one.image_id for one in client.get_containers()}
    for one in client.get_images():
        tags = [tag for tag in one.get("RepoTags") or () if not tag.startswith("<none>")]
        if not tags and one["Id"] not in used and int(one.get("Created") or 0) <= _before(hours):
            yield str(one["Id"]), str(one["Id"])[:19]


def _volumes(client: DockerClient, hours: float) -> Iterator[tuple[str, str]]:
    with client.engine() as api:
        found = (api.volumes(filters={"dangling": True}) or {}).get("Volumes") or []
    for one in found:
        if labelled(client, one.get("Labels")):
            yield str(one["Name"]), str(one["Name"])


def _networks(client: DockerClient, hours: float) -> Iterator[tuple[str, str]]:
    for one in networks.empty(client):
        yield str(one["Id"]), str(one.get("Name", ""))


def _build_cache(client: DockerClient, hours: float) -> Iterator[tuple[str, str]]:
    unused = [one for one in client.get_disk_usage().get("BuildCache") or () if not one.get("InUse")]
    if unused:
        yield "", f"build cache, {sum(one.get('Size') or 0 for one in unused)} bytes"


_DUE: dict[str, Callable[[DockerClient, float], Iterator[tuple[str, str]]]] = {
    "containers": _containers,
    "images": _images,
    "volumes": _volumes,
    "networks": _networks,
    "build_cache": _build_cache,
}


def _remove(client: DockerClient, kind: str, key: str) -> None:
    with client.engine() as api:
        match kind:
            case "containers":
                api.remove_container(key)
            case "images":
                api.remove_image(key)
            case "volumes":
                api.remove_volume(key)
            case "networks":
                api.remove_network(key)
            case "build_cache":
                api.prune_builds()


def _before(hours: float) -> Any:
    return time.time() - hours * 3600
