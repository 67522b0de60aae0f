"""Network namespaces of the tests' own: two hosts joined by a veth pair, `left` and `right`."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from nms_workers.services.traffic_control.client import TrafficControlClient
from nms_workers.services.traffic_control.target import TrafficControlTarget

_LIMIT = 30.0  # seconds for one command


@dataclass(frozen=True)
class Lab:
    """Two namespaces; the interface `left` of the first is joined to `right` of the second."""

    near: str
    far: str

    near_address = "10.99.0.1"
    far_address = "10.99.0.2"

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
        return "\n".join([*shown, *sorted(link["ifname"] for link in links)])

    def rate(self, *, reverse: bool = False, seconds: int = 3, dscp: int = 0, port: int = 5201) -> float:
        """Megabits per second that TCP gets from near to far, or the other way, by iperf3.

        What the buckets and queues take at first is not counted.
        """
        server = subprocess.Popen(
            inside(self.far, "iperf3", "--server", "--one-off", "--port", str(port), "--forceflush"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            assert server.stdout is not None
            while "listening" not in (line := server.stdout.readline()):
                assert line, "iperf3 ended before it listened"
            more = ["--reverse"] if reverse else []
            more += ["--dscp", str(dscp)] if dscp else []
            said = run(
                *inside(self.near, "iperf3", "--client", self.far_address, "--json", "--omit", "1"),
                *("--time", str(seconds), "--port", str(port)),
                *more,
            )
        finally:
            server.terminate()
            server.communicate(timeout=_LIMIT)
        return float(json.loads(said)["end"]["sum_received"]["bits_per_second"]) / 1e6


def inside(netns: str, *command: str) -> list[str]:
    """The command line that runs a program in a namespace."""
    return ["ip", "netns", "exec", netns, *command]


def run(*command: str) -> str:
    """What a command says; an AssertionError with its last words when it fails."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_LIMIT)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout


@contextmanager
def lab(name: str) -> Iterator[Lab]:
    """Two joined hosts with IPv4 and IPv6 addresses; gone afterwards."""
    made = Lab(f"nms-{os.getpid()}-{name}-a", f"nms-{os.getpid()}-{name}-b")
    try:
        for netns in (made.near, made.far):
            run("ip", "netns", "add", netns)
        run("ip", "-netns", made.near, "link", "add", "left", "type", "veth", "peer", "right", "netns", made.far)
        for netns, link, address in ((made.near, "left", made.near_address), (made.far, "right", made.far_address)):
            run("ip", "-netns", netns, "address", "add", f"{address}/24", "dev", link)
            run("ip", "-netns", netns, "link", "set", link, "up")
        yield made
    finally:
        for netns in (made.near, made.far):
            subprocess.run(["ip", "netns", "delete", netns], check=False, capture_output=True, timeout=_LIMIT)
