"""Segments that really isolate, seen from inside the containers."""

import subprocess
from pathlib import Path

import docker
import psutil
import pytest

from nms_workers.errors import Refused
from nms_workers.services.docker.client import DockerClient
from tests.servers import DockerServer
from tests.services.docker.support import act, inside, make


def reaches(api: docker.APIClient, who: str, address: str) -> bool:
    return inside(api, who, "sh", "-c", f"echo x | nc -w 1 {address} 7")[0] == 0


def serve(api: docker.APIClient, name: str, network: str) -> str:
    """A container that listens on port 7 in one network; its address there."""
    options = {"network_mode": network}
    make(api, name, command=["nc", "-ll", "-p", "7", "-e", "cat"], host=options)
    return str(api.inspect_container(name)["NetworkSettings"]["Networks"][network]["IPAddress"])


def test_segments_isolate(client: DockerClient, plain: docker.APIClient) -> None:
    change = act(client, "ensure_network", network="nms-monitoring", subnet="10.213.1.0/24")
    assert (change.before, change.after["subnets"]) == ({"exists": False}, ["10.213.1.0/24"])
    assert not act(client, "ensure_network", network="nms-monitoring", subnet="10.213.1.0/24").changed
    act(client, "ensure_network", network="nms-security", internal=True)
    address = serve(plain, "server", "nms-security")
    serve(plain, "other", "nms-monitoring")
    assert reaches(plain, "server", address)
    assert not reaches(plain, "other", address)

    joined = act(client, "connect", container="other", network="nms-security", aliases=["second"])
    assert joined.after == {"networks": ["nms-monitoring", "nms-security"]}
    assert not act(client, "connect", container="other", network="nms-security").changed
    assert reaches(plain, "other", address)
    assert reaches(plain, "other", "server")
    assert inside(plain, "server", "ping", "-c", "1", "-W", "2", "second")[0] == 0

    assert act(client, "disconnect", container="other", network="nms-security").changed
    assert not act(client, "disconnect", container="other", network="nms-security").changed
    assert not reaches(plain, "other", address)


def outside(engine: DockerServer, api: docker.APIClient) -> str:
    """A container that listens beyond a router of the engine's network, as the world does; its address."""
    make(api, "world", command=["nc", "-ll", "-p", "7", "-e", "cat"], host={"network_mode": "none"})
    wanted = api.inspect_container("world")["State"]["Pid"]
    (pid,) = [one for one in psutil.Process(engine.pid).children(recursive=True) if _pid_there(one) == wanted]
    engine.inside("ip", "link", "add", "out0", "type", "veth", "peer", "name", "out1", "netns", str(pid.pid))
    engine.inside("ip", "address", "add", "10.213.9.1/24", "dev", "out0")
    engine.inside("ip", "link", "set", "out0", "up")
    enter = ["nsenter", f"--net=/proc/{pid.pid}/ns/net", "ip"]
    for words in ("address add 10.213.9.2/24 dev out1", "link set out1 up", "route add default via 10.213.9.1"):
        subprocess.run([*enter, *words.split()], check=True, timeout=10)
    return "10.213.9.2"


def _pid_there(process: psutil.Process) -> int:
    """The number a process has in the engine's own namespace."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    numbers = next(line for line in lines if line.startswith("NSpid:")).split()[1:]
    return int(numbers[1]) if len(numbers) > 1 else 0


def test_an_internal_network_has_no_way_out(
    client: DockerClient, plain: docker.APIClient, engine: DockerServer
) -> None:
    act(client, "ensure_network", network="inner", internal=True)
    act(client, "ensure_network", network="outer")
    world = outside(engine, plain)
    serve(plain, "in-outer", "outer")
    serve(plain, "in-inner", "inner")
    assert reaches(plain, "in-outer", world)
    assert not reaches(plain, "in-inner", world)


def test_another_network_of_that_name(client: DockerClient) -> None:
    act(client, "ensure_network", network="seg", subnet="10.213.2.0/24")
    with pytest.raises(Refused, match="internal is False, not True"):
        act(client, "ensure_network", network="seg", internal=True)
    with pytest.raises(Refused, match=r"subnets is \['10.213.2.0/24'\]"):
        act(client, "ensure_network", network="seg", subnet="10.213.3.0/24")


def test_a_network_is_removed_when_nobody_is_in_it(client: DockerClient, plain: docker.APIClient) -> None:
    act(client, "ensure_network", network="seg")
    serve(plain, "server", "seg")
    with pytest.raises(Refused, match=r"containers are in seg: server"):
        act(client, "remove_network", network="seg")
    plain.remove_container("server", force=True)
    assert act(client, "remove_network", network="seg").changed
    assert not act(client, "remove_network", network="seg").changed
    plain.create_network("foreign")
    for name in ("foreign", "bridge"):
        with pytest.raises(Refused, match="is not ours"):
            act(client, "remove_network", network=name)
