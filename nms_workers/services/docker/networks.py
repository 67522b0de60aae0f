"""Networks: segments that containers are put into, and taken out of."""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from nms_workers.change import Change, about_to_change
from nms_workers.errors import Refused
from nms_workers.services.docker.acting import find, labelled
from nms_workers.services.docker.client import DockerClient
from nms_workers.services.docker.model import LABEL

_BUILT_IN = {"bridge", "host", "none"}


def ensure(
    client: DockerClient, network: str, *, internal: bool, subnet: IPv4Network | IPv6Network | None, driver: str
) -> Change:
    """Have a network of this name, `internal`: without a way out of it.

    Raises:
        Refused: there is one of this name that is another.
    """
    wanted = {"driver": driver, "internal": internal} | ({"subnets": [str(subnet)]} if subnet else {})
    found = _find(client, network)
    if found is not None:
        now = _about(found)
        if differ := sorted(name for name, value in wanted.items() if now[name] != value):
            said = ", ".join(f"{name} is {now[name]}, not {wanted[name]}" for name in differ)
            raise Refused(f"there is another network {network}: {said}", hint="choose another name, or remove it first")
        return Change(False, f"there is a network {network} already", {"exists": True}, now)
    about_to_change({"exists": False})
    ranges = {"Config": [{"Subnet": str(subnet)}]} if subnet else None
    body = {"Name": network, "CheckDuplicate": True, "Driver": driver, "Internal": internal, "Labels": {LABEL: "true"}}
    with client.engine() as api:
        api.ask("POST", "/networks/create", body | ({"IPAM": ranges} if ranges else {}))
    made = _find(client, network)
    if made is None:
        raise Refused(f"the engine made no network {network}", hint="look at its own log")
    return Change(True, f"network {network} made", {"exists": False}, _about(made))


def remove(client: DockerClient, network: str) -> Change:
    """Remove a network that nobody is in."""
    found = _find(client, network)
    if found is None:
        return Change(False, f"there is no network {network}", {"exists": False}, {"exists": False})
    if network in _BUILT_IN or not labelled(client, found.get("Labels")):
        raise Refused(f"the network {network} is not ours: it lacks the label {LABEL}=true")
    if inside := _inside(client, network):
        raise Refused(f"containers are in {network}: {', '.join(inside[:10])}", hint="disconnect them first")
    about_to_change(_about(found))
    with client.engine() as api:
        api.remove_network(str(found["Id"]))
    return Change(True, f"network {network} removed", _about(found) | {"exists": True}, {"exists": False})


def connect(client: DockerClient, name: str, network: str, aliases: Sequence[str], *, own: bool) -> Change:
    """Put a container into a network too."""
    container = find(client, name, own=own)
    before = {"networks": sorted(container.networks)}
    if network in container.networks:
        return Change(False, f"{container.name} is in {network} already", before, before)
    found = _there(client, network)
    about_to_change(before)
    with client.engine() as api:
        api.connect_container_to_network(container.id, str(found["Id"]), aliases=list(aliases))
    after = {"networks": sorted(client.get_container(container.id).networks)}
    if network not in after["networks"]:
        raise Refused(f"{container.name} did not get into {network}", hint="look at the engine's own log")
    return Change(True, f"{container.name} is in {network}", before, after)


def disconnect(client: DockerClient, name: str, network: str, *, own: bool) -> Change:
    """Take a container out of a network."""
    container = find(client, name, own=own)
    before = {"networks": sorted(container.networks)}
    if network not in container.networks:
        return Change(False, f"{container.name} is not in {network}", before, before)
    about_to_change(before | {"aliases": list(container.networks[network].aliases or ())})
    with client.engine() as api:
        api.disconnect_container_from_network(container.id, str(_there(client, network)["Id"]))
    after = {"networks": sorted(client.get_container(container.id).networks)}
    if network in after["networks"]:
        raise Refused(f"{container.name} is still in {network}", hint="look at the engine's own log")
    return Change(True, f"{container.name} is out of {network}", before, after)


def empty(client: DockerClient) -> list[dict[str, Any]]:
    """Networks of ours that no container is in, running or not."""
    used = {name for one in client.get_containers() for name in one.networks}
    found = [one for one in client.get_networks() if one.get("Name") not in _BUILT_IN | used]
    return [one for one in found if labelled(client, one.get("Labels"))]


def _find(client: DockerClient, network: str) -> dict[str, Any] | None:
    return next((one for one in client.get_networks() if network in {one.get("Name"), one.get("Id")}), None)


def _there(client: DockerClient, network: str) -> dict[str, Any]:
    found = _find(client, network)
    if found is None:
        raise Refused(f"there is no network {network}", hint="ensure_network makes it")
    return found


def _inside(client: DockerClient, network: str) -> list[str]:
    return [one.name for one in client.get_containers() if network in one.networks]


def _about(network: dict[str, Any]) -> dict[str, Any]:
    ranges = [str(one.get("Subnet", "")) for one in (network.get("IPAM") or {}).get("Config") or ()]
    return {"id": network.get("Id"), "driver": network.get("Driver"), "internal": network.get("Internal"),
            "subnets": ranges}  # fmt: skip
