"""Real exporters, from Debian, and what they send.

`python -m tests.services.flows.exporters` writes their datagrams into the corpus anew.
"""

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.servers import ServerMissing
from tests.services.flows import packets

CORPUS = Path(__file__).with_name("corpus")
SECONDS = 40.0
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
    "pmacct-sflow-every-packet": pmacct("sfprobe", "sfprobe_agentip: 192.0.2.8"),
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
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        ended = process.poll() is not None  # asked before the look: what it sent last has come by then
        try:
            told.append(receiver.recv(65_535))
        except TimeoutError:
            if ended:
                return told
    raise AssertionError(f"the exporter did not end within {SECONDS:.0f} s")


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
