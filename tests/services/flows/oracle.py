"""nfdump's reading of the same datagrams."""

import json
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nms_workers.services.flows.record import FLOW
from tests.services.flows.exporters import SECONDS, program
from tests.services.flows.support import read, values


def same_as_nfdump(
    datagrams: list[bytes], folder: Path, *, times: bool = True, icmp: bool = True, sflow: bool = False
) -> None:
    """Both read the same flows, with the same times to a millisecond; and nothing was left out.

    Args:
        times, icmp: False: nfdump does not read those of this exporter.
        sflow: nfdump then gives what is multiplied by the sampling interval, and the time of receipt.
    """
    theirs = [_row(flow, times=times, icmp=icmp) for flow in nfdump(datagrams, folder, sflow=sflow)]
    told = read(datagrams, received=_export_time(datagrams[0]))
    ours = [_own_row(flow, "_scaled" if sflow else "", times=times, icmp=icmp) for flow in told.flows]
    assert Counter(ours) == Counter(theirs)
    assert len(ours) > 10
    assert not told.problems
    assert sum(loss.lost + loss.late + loss.restarts for loss in told.losses) == 0


def _export_time(data: bytes) -> int:
    at = 4 if data[1] == 10 else 8
    return int.from_bytes(data[at : at + 4]) * 1_000_000


def _row(flow: dict[str, Any], *, times: bool, icmp: bool) -> tuple[Any, ...]:
    flags = sum(1 << 7 - index for index, letter in enumerate(flow.get("tcp_flags", "")) if letter != ".")
    ports = (flow.get("src_port", 0), flow.get("dst_port", 0))
    # sorted: nfdump 1.7.1 gives the uptimes of IPFIX as last and first
    ends = sorted(int(np.datetime64(flow[name], "ms").astype("i8")) for name in ("first", "last")) if times else ()
    source, destination = (flow.get(f"{end}4_addr") or flow.get(f"{end}6_addr") for end in ("src", "dst"))
    if flow["proto"] in {1, 58}:
        ports = (0, flow["icmp_type"] << 8 | flow["icmp_code"] if icmp else 0)
    return (source, destination, *ports, flow["proto"], flags, flow["src_tos"], flow["in_packets"], flow["in_bytes"],
            *ends)  # fmt: skip


def _own_row(flow: np.void, which: str, *, times: bool, icmp: bool) -> tuple[Any, ...]:
    told = {**dict.fromkeys(FLOW.names or (), 0), **values(flow)}
    ports = (told["source_port"], told["destination_port"])
    if told["protocol"] in {1, 58}:
        ports = (0, told["icmp_type_code"] if icmp else 0)
    ends = (told["flow_start"] // 1000, told["flow_end"] // 1000) if times else ()
    return (told["source_address"], told["destination_address"], *ports, told["protocol"], told["tcp_control_bits"],
            told["class_of_service"], told[f"packets{which}"], told[f"octets{which}"], *ends)  # fmt: skip


def nfdump(datagrams: list[bytes], folder: Path, *, sflow: bool = False) -> list[dict[str, Any]]:
    """The flows that nfdump reads from these datagrams, as its JSON has them."""
    store = folder / "nfdump"
    store.mkdir()
    name, package = ("sfcapd", "nfdump-sflow") if sflow else ("nfcapd", "nfdump")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("127.0.0.1", 0))
        port = _free_port()
        argv = [program(name, package), "-w", str(store), "-p", str(port), "-b", "127.0.0.1", "-t", "3600"]
        with (folder / "capd.log").open("wb") as log:
            process = subprocess.Popen(argv, stdout=log, stderr=log)
        try:
            _wait(lambda: _waiting(port) == 0)  # it listens
            for datagram in datagrams:
                sender.sendto(datagram, ("127.0.0.1", port))
                _wait(lambda: _waiting(port) == 0)  # and has taken this one
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(SECONDS)
    argv = [program("nfdump", "nfdump"), "-R", str(store), "-o", "json"]
    done = subprocess.run(argv, capture_output=True, timeout=SECONDS, check=True, env={"TZ": "UTC"})
    return list(json.loads(done.stdout))


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _waiting(port: int) -> int | None:
    """Bytes in the receive queue of a UDP port of this machine; None: nobody listens."""
    for line in Path("/proc/net/udp").read_text().splitlines()[1:]:
        words = line.split()
        if words[1].endswith(f":{port:04X}"):
            return int(words[4].split(":")[1], 16)
    return None


def _wait(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < until, "nfdump's collector did not take what it was sent"
        time.sleep(0.002)
