"""Real exporters, and nfdump's reading of what they sent.

`python -m tests.services.flows.exporters` writes their datagrams into the corpus anew.
"""

import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.servers import ServerMissing
from tests.services.flows import packets

CORPUS = Path(__file__).with_name("corpus")
_SECONDS = 40.0
_TIMEOUTS = "tcp=1:maxlife=2:general=1:udp=1:icmp=1:expint=1"
_PMACCT = """daemonize: false
pcap_savefile: traffic.pcap
pcap_savefile_wait: 3
aggregate: src_host, dst_host, src_port, dst_port, proto, tos, tcpflags
plugins: {plugin}
{plugin}_receiver: 127.0.0.1:{port}
{more}
"""


def softflowd(*options: str) -> Callable[[Path, int], list[str]]:
    """softflowd reading the traffic from a file; `-a`: as if it were now."""

    def argv(folder: Path, port: int) -> list[str]:
        pid, file = folder / "pid", folder / "traffic.pcap"
        return [program("softflowd", "softflowd"), "-r", str(file), "-a", "-d", "-c", "none", "-p", str(pid),
                "-n", f"127.0.0.1:{port}", *options]  # fmt: skip

    return argv


def pmacct(plugin: str, *more: str) -> Callable[[Path, int], list[str]]:
    """pmacctd with one of its probes."""

    def argv(folder: Path, port: int) -> list[str]:
        (folder / "pmacctd.conf").write_text(_PMACCT.format(plugin=plugin, port=port, more="\n".join(more)))
        return [program("pmacctd", "pmacct"), "-f", "pmacctd.conf"]

    return argv


EXPORTERS: dict[str, Callable[[Path, int], list[str]]] = {
    "softflowd-v5": softflowd("-v", "5"),
    "softflowd-v9": softflowd("-v", "9"),
    "softflowd-v9-sampled": softflowd("-v", "9", "-s", "3"),
    "softflowd-ipfix": softflowd("-v", "10", "-6"),
    "softflowd-ipfix-sampled": softflowd("-v", "10", "-s", "3"),
    "softflowd-ipfix-milliseconds": softflowd("-v", "10", "-A", "milli"),
    "softflowd-ipfix-microseconds": softflowd("-v", "10", "-A", "micro"),
    "softflowd-ipfix-both-ways": softflowd("-v", "10", "-b"),
    "softflowd-ipfix-ethernet": softflowd("-v", "10", "-T", "ether"),
    "pmacct-v5": pmacct("nfprobe", "nfprobe_version: 5", f"nfprobe_timeouts: {_TIMEOUTS}"),
    "pmacct-v9": pmacct("nfprobe", "nfprobe_version: 9", f"nfprobe_timeouts: {_TIMEOUTS}"),
    "pmacct-ipfix": pmacct("nfprobe", "nfprobe_version: 10", f"nfprobe_timeouts: {_TIMEOUTS}"),
    "pmacct-sflow": pmacct("sfprobe", "sfprobe_agentip: 192.0.2.7", "sampling_rate: 4"),
    "pmacct-sflow-every-packet": pmacct("sfprobe", "sfprobe_agentip: 2001:db8::7"),
}


def program(name: str, package: str) -> str:
    """Where a program is; it comes from a Debian package."""
    found = shutil.which(name, path="/usr/bin:/usr/sbin")
    if found is None:
        raise ServerMissing(name, f"there is no {name}", f"apt-get install {package}")
    return found


def export(name: str, folder: Path) -> list[bytes]:
    """The datagrams that a real exporter makes of `packets.traffic()`."""
    packets.write(folder / "traffic.pcap", packets.traffic(), int(time.time()) - 5)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(0.1)
        argv = EXPORTERS[name](folder, receiver.getsockname()[1])
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(argv, cwd=folder, stdout=log, stderr=log)
        try:
            return _received(receiver, process)
        finally:
            process.kill()
            process.wait()


def _received(receiver: socket.socket, process: subprocess.Popen[bytes]) -> list[bytes]:
    """Everything that comes until the exporter ended by itself."""
    told: list[bytes] = []
    until = time.monotonic() + _SECONDS
    while time.monotonic() < until:
        ended = process.poll() is not None  # asked before the look: what it sent last has come by then
        try:
            told.append(receiver.recv(65_535))
        except TimeoutError:
            if ended:
                return told
    raise AssertionError(f"the exporter did not end within {_SECONDS:.0f} s")


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
            process.wait(_SECONDS)
    argv = [program("nfdump", "nfdump"), "-R", str(store), "-o", "json"]
    done = subprocess.run(argv, capture_output=True, timeout=_SECONDS, check=True, env={"TZ": "UTC"})
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
    until = time.monotonic() + _SECONDS
    while not condition():
        assert time.monotonic() < until, "nfdump's collector did not take what it was sent"
        time.sleep(0.002)


def pack(datagrams: list[bytes]) -> bytes:
    """Datagrams as a file of the corpus: each with its length before it, in two bytes."""
    return b"".join(len(datagram).to_bytes(2) + datagram for datagram in datagrams)


def unpack(data: bytes) -> list[bytes]:
    """What `pack` was given."""
    told: list[bytes] = []
    while data:
        size = int.from_bytes(data[:2])
        told.append(data[2 : 2 + size])
        data = data[2 + size :]
    return told


def main() -> None:
    """Write the datagrams of all exporters into the corpus."""
    for name in EXPORTERS:
        with tempfile.TemporaryDirectory() as folder:
            (CORPUS / f"{name}.bin").write_bytes(pack(export(name, Path(folder))))
            sys.stdout.write(f"{name}\n")


if __name__ == "__main__":
    main()
