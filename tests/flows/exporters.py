"""Real exporters, which read a capture and end; and real collectors of nfdump, which are fed the same datagrams."""

import os
import re
import signal
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.fleet.stores import wait_until
from tests.flows.packets import CONVERSATIONS, IPV6, Conversation, octets, packets, write_capture
from tests.servers.server import which

LAYER_2 = 18  # bytes of Ethernet around a packet, the check sequence included: sFlow counts them
_FIRST_SECONDS, _QUIET_SECONDS = 30.0, 3.0


@dataclass(frozen=True)
class Export:
    """What an exporter sent of packets that are known."""

    datagrams: tuple[bytes, ...]
    flows: int
    octets: int
    packets: int


def softflowd(folder: Path, version: int) -> Export:
    """NetFlow 5 or 9, or IPFIX (10), of softflowd. Version 5 knows no IPv6."""
    some = CONVERSATIONS if version == 5 else (*CONVERSATIONS, *IPV6)
    write_capture(folder / "capture", (*CONVERSATIONS, *IPV6))
    with _listener() as wire:
        process = subprocess.Popen(
            [
                which("softflowd", "softflowd"), "-r", str(folder / "capture"), "-v", str(version),
                "-n", _address(wire), "-d", "-T", "full", "-p", str(folder / "pid"), "-c", "none",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            datagrams = _all(wire)
        finally:
            process.kill()
            process.wait()
    return Export(datagrams, len(some), octets(some), packets(some))


def pmacct(folder: Path, plugin: str, *lines: str) -> Export:
    """What a plugin of pmacct makes of the capture: nfprobe (NetFlow, IPFIX) or sfprobe (sFlow, every packet)."""
    some = (*CONVERSATIONS, *IPV6) if "nfprobe_version: 5" not in lines else CONVERSATIONS
    write_capture(folder / "capture", (*CONVERSATIONS, *IPV6))
    with _listener() as wire:
        conf = [
            "daemonize: false",
            f"pcap_savefile: {folder / 'capture'}",
            "pcap_savefile_wait: 5",
            f"plugins: {plugin}",
            "aggregate: src_host,dst_host,src_port,dst_port,proto,tos",
            f"{plugin}_receiver: {_address(wire)}",
            *lines,
        ]
        (folder / "conf").write_text("\n".join(conf) + "\n")
        process = subprocess.Popen(
            [which("pmacctd", "pmacct"), "-f", str(folder / "conf")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            datagrams = _all(wire)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its plugins are processes of their own
            process.wait()
    if plugin == "nfprobe":
        return Export(datagrams, len(some), octets(some), packets(some))
    # what it had not filled a datagram with is not sent: the first packets are there, each a flow of its own
    sent = [one for one in some for _ in range(one.count)]
    there = sent[: sum(int.from_bytes(one[24:28]) for one in datagrams)]
    return Export(datagrams, len(there), sum(one.size + LAYER_2 for one in there), len(there))


NFPROBE = "nfprobe_timeouts: tcp=1:maxlife=2:general=1:udp=1:icmp=1:expint=1"
EXPORTERS = {
    "softflowd-v5": lambda folder: softflowd(folder, 5),
    "softflowd-v9": lambda folder: softflowd(folder, 9),
    "softflowd-ipfix": lambda folder: softflowd(folder, 10),
    "pmacct-v5": lambda folder: pmacct(folder, "nfprobe", "nfprobe_version: 5", NFPROBE),
    "pmacct-v9": lambda folder: pmacct(folder, "nfprobe", "nfprobe_version: 9", NFPROBE),
    "pmacct-ipfix": lambda folder: pmacct(folder, "nfprobe", "nfprobe_version: 10", NFPROBE),
    "pmacct-sflow": lambda folder: pmacct(folder, "sfprobe", "sfprobe_agentip: 192.0.2.99", "sampling_rate: 1"),
}


def nfdump_totals(folder: Path, datagrams: Sequence[bytes], program: str) -> tuple[int, int, int]:
    """Flows, octets and packets that nfcapd, or sfcapd, stores of these datagrams."""
    with _listener() as wire:
        port = wire.getsockname()[1]
    folder.mkdir()
    argv = [
        which(program, "nfdump"),
        "-w",
        str(folder),
        "-p",
        str(port),
        "-b",
        "127.0.0.1",
        "-t",
        "3600",
        "-B",
        "4194304",
    ]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: _waiting(port) is not None)
        send(port, datagrams)
        wait_until(lambda: _waiting(port) == 0)
    finally:
        process.terminate()
        process.wait(30)
    said = subprocess.run(
        [which("nfdump", "nfdump"), "-R", str(folder), "-I"], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    flows, octets_, packets_ = (
        int(re.search(rf"^{name}: (\d+)", said, re.MULTILINE)[1])  # type: ignore[index]
        for name in ("Flows", "Bytes", "Packets")
    )
    return flows, octets_, packets_


def send(port: int, datagrams: Sequence[bytes], *, address: str = "127.0.0.1", from_port: int = 0) -> int:
    """Send these from one socket; returns its port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        wire.bind((address, from_port))
        for one in datagrams:
            wire.sendto(one, ("127.0.0.1", port))
        own: int = wire.getsockname()[1]
    return own


def _waiting(port: int) -> int | None:
    """Bytes that wait at a UDP port of 127.0.0.1 to be read; None: nobody listens."""
    for line in Path("/proc/net/udp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1] == f"0100007F:{port:04X}":
            return int(fields[4].split(":")[1], 16)
    return None


def _listener() -> socket.socket:
    wire = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    wire.bind(("127.0.0.1", 0))
    return wire


def _address(wire: socket.socket) -> str:
    return f"127.0.0.1:{wire.getsockname()[1]}"


def _all(wire: socket.socket) -> tuple[bytes, ...]:
    """What comes, until nothing came for a while."""
    came: list[bytes] = []
    wire.settimeout(_FIRST_SECONDS)
    with suppress(TimeoutError):
        while True:
            came.append(wire.recv(65_535))
            wire.settimeout(_QUIET_SECONDS)
    return tuple(came)


__all__ = ["EXPORTERS", "Conversation", "Export", "nfdump_totals", "send"]
