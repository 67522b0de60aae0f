"""Network namespaces of the tests' own: two hosts joined by a veth pair, `left` and `right`."""

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nms_workers.services.traffic_control.client import TrafficControlClient
from nms_workers.services.traffic_control.target import TrafficControlTarget
from tests.servers import ServerMissing

_PACKAGES = {"tc": "iproute2", "iperf3": "iperf3", "linux.uml": "user-mode-linux", "insmod": "kmod"}
_LIMIT = 30.0  # seconds for one command
_MACS = {"left": "02:00:00:00:00:01", "right": "02:00:00:00:00:02"}
_PAIR = ("link", "add", "left", "address", _MACS["left"], "type", "veth", "peer", "right", "address", _MACS["right"])

_SEND = """
import socket, sys
address, port, packets, dscp = sys.argv[1], *map(int, sys.argv[2:])
six = ":" in address
sender = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
level, option = (socket.IPPROTO_IPV6, socket.IPV6_TCLASS) if six else (socket.IPPROTO_IP, socket.IP_TOS)
sender.setsockopt(level, option, dscp << 2)
for _ in range(packets):
    sender.sendto(bytes(72), (address, port))
"""


@dataclass(frozen=True)
class Lab:
    """Two namespaces; the interface `left` of the first is joined to `right` of the second."""

    near: str
    far: str

    far_address = "10.99.0.2"
    far_address_6 = "fd99::2"

    def client(self, **settings: Any) -> TrafficControlClient:
        """Our client of the near namespace."""
        return TrafficControlClient(TrafficControlTarget(netns=self.near, **settings))

    def tc(self, *words: str) -> str:
        """What iproute2's tc says in the near namespace: the other opinion on what the kernel has."""
        return run("tc", "-netns", self.near, *words)

    def rules(self, name: str = "left") -> str:
        """Every qdisc, class and filter of an interface as tc shows them, without counters."""
        shown = [self.tc("qdisc", "show", "dev", name), self.tc("class", "show", "dev", name)]
        shown += [self.tc("filter", "show", "dev", name, *on) for on in ((), ("ingress",))]
        links = json.loads(run("ip", "-netns", self.near, "-json", "link", "show"))
        text = "\n".join([*shown, *sorted(link["ifname"] for link in links)])
        return re.sub(r"direct_packets_stat \d+ ", "", text)

    def send(self, address: str, port: int, *, packets: int = 1, dscp: int = 0) -> None:
        """UDP packets of 100 bytes from near to far."""
        run(*inside(self.near, sys.executable, "-c", _SEND, address, str(port), str(packets), str(dscp)))

    def sent(self, handle: str, name: str = "left") -> int:
        """Packets that a class has sent, by what our client reads."""
        return next(c.stats.packets for c in self.client().get_classes(name) if c.handle == handle)

    def rate(self, *, reverse: bool = False, seconds: int = 3) -> float:
        """Megabits per second that TCP gets from near to far, or the other way, by iperf3.

        What the buckets and queues take at first is not counted.
        """
        need("iperf3")
        server = subprocess.Popen(
            inside(self.far, "iperf3", "--server", "--one-off", "--forceflush"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert server.stdout is not None
        try:
            while "listening" not in (line := server.stdout.readline()):
                assert line, "iperf3 ended before it listened"
            client = ["iperf3", "--client", self.far_address, "--json", "--omit", "1", "--time", str(seconds)]
            said = run(*inside(self.near, *client, *(["--reverse"] if reverse else [])))
        finally:
            server.terminate()
            server.communicate(timeout=_LIMIT)
        return float(json.loads(said)["end"]["sum_received"]["bits_per_second"]) / 1e6


def need(program: str) -> None:
    """
    Raises:
        ServerMissing: a program or the right to make namespaces.
    """
    if os.geteuid() != 0:
        raise ServerMissing("network namespaces", "making them takes root", "sudo make test")
    if shutil.which(program) is None:
        raise ServerMissing(program, f"there is no {program}", f"apt-get install {_PACKAGES[program]}")


def inside(netns: str, *command: str) -> list[str]:
    """The command line that runs a program in a namespace."""
    return ["ip", "netns", "exec", netns, *command]


def run(*command: str) -> str:
    """What a command says; an AssertionError with its last words when it fails."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_LIMIT)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout


def await_true(condition: Callable[[], bool], seconds: float = _LIMIT) -> None:
    """Return when the condition is true; an AssertionError when it does not become so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.02)


@contextmanager
def lab() -> Iterator[Lab]:
    """Two joined hosts with IPv4 and IPv6 addresses; gone afterwards."""
    need("tc")
    name = f"nms-{secrets.token_hex(4)}"
    made = Lab(f"{name}-near", f"{name}-far")
    try:
        for netns in (made.near, made.far):
            run("ip", "netns", "add", netns)
        run("ip", "-netns", made.near, *_PAIR, "netns", made.far)
        for netns, link, host in ((made.near, "left", 1), (made.far, "right", 2)):
            run("ip", "-netns", netns, "address", "add", f"10.99.0.{host}/24", "dev", link)
            run("ip", "-netns", netns, "address", "add", f"fd99::{host}/64", "dev", link, "nodad")
            run("ip", "-netns", netns, "link", "set", link, "up")
        for netns, link, address in ((made.near, "left", made.far_address), (made.far, "right", "10.99.0.1")):
            # known for good: where packets are lost on purpose, a lost ARP answer would lose all of them
            other = _MACS["left" if link == "right" else "right"]
            run("ip", "-netns", netns, "neighbour", "add", address, "lladdr", other, "dev", link, "nud", "permanent")
        yield made
    finally:
        for netns in (made.near, made.far):
            if Path("/var/run/netns", netns).exists():
                run("ip", "netns", "delete", netns)
