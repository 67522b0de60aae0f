"""How many flows a second of processor time is enough for: from the datagram on a loopback socket to the committed row.

Counted is the processor time of the collector's whole process and of the whole database server; that of the generator
is not. The peer is nfcapd (and sfcapd) of nfdump, which writes the same datagrams to files of its own: no database.
"""

import multiprocessing
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from pathlib import Path

import psutil
from sqlalchemy import Engine, text

from nms_workers.bench.flow_datagrams import FORMATS, START_SECONDS, Traffic, send
from nms_workers.errors import NmsError
from nms_workers.fleet.inventory import Target
from nms_workers.flows.enrichment import Known
from nms_workers.flows.keeping import Keeper
from nms_workers.flows.receiver import Collector
from nms_workers.flows.telling import Teller
from nms_workers.services.flows.detection import Thresholds
from nms_workers.settings import Flows
from nms_workers.store.engine import make_engine
from nms_workers.store.flow_writer import FlowWriter
from nms_workers.store.migrations import upgrade
from nms_workers.store.spool import Spool
from nms_workers.store.writer import Writer

DISTINCT = 2_000  # datagrams of a format, sent again and again
_WRITE_SECONDS = 120.0
_VIEW = Target(1, "flows", "bench", {}, {})  # so that scans are looked for, as in a fleet
_PEERS = {"v5": "nfcapd", "v9": "nfcapd", "ipfix": "nfcapd", "sflow": "sfcapd"}


class BenchError(NmsError):
    """The measurement cannot be made here."""


def run(url: str, *, flows: int = 1_000_000, rate: int = 150_000) -> dict[str, object]:
    """Send flows of each format at a rate and measure what they cost.

    Args:
        url: of a PostgreSQL on this machine whose schema we may make and fill.
        flows: of each format; of sFlow a fifth.
        rate: of them a second; of sFlow a fifth.

    Returns:
        By format: `flows_per_cpu_second`, `collector_flows_per_cpu_second` (without the database),
        `stored` and `lost` (on the way, of those sent), `peer_flows_per_cpu_second`; and `peer`, what it is.

    Raises:
        BenchError: the generator died, or the server does not run on this machine.
    """
    upgrade(url)
    ours: dict[str, dict[str, int]] = {}
    peers: dict[str, int] = {}
    for name, make in FORMATS.items():
        traffic = make(DISTINCT)
        share = 5 if name == "sflow" else 1
        count, pace = max(1, flows // share // traffic.records), max(1, rate // share // traffic.records)
        ours[name] = _ours(url, traffic, count, pace)
        if shutil.which(_PEERS[name]):
            peers[name] = _peer(_PEERS[name], traffic, count, pace)
    columns = ("flows_per_cpu_second", "collector_flows_per_cpu_second", "stored", "lost")
    return {
        **{column: {name: measured[column] for name, measured in ours.items()} for column in columns},
        "peer": _version() if peers else "nfcapd is not installed",
        "peer_flows_per_cpu_second": peers,
    }


def _ours(url: str, traffic: Traffic, count: int, pace: int) -> dict[str, int]:
    engine = make_engine(url)
    with tempfile.TemporaryDirectory(prefix="nms-workers-bench-") as name:
        folder = Path(name)
        store = FlowWriter(folder / "flows", url)
        writer = Writer(Spool(folder / "spool"), url)
        settings = Flows(listen=("127.0.0.1:0",))
        teller = Teller(writer, "bench:1", 1, Thresholds(settings.scan_ports, settings.fan_out, 60.0))
        known = Known(views=tuple((ip_network(one), _VIEW) for one in ("0.0.0.0/0", "::/0")))
        collector = Collector(settings, lambda: known, Keeper(settings, store, teller), folder)
        before = _stored(engine)
        store.start()
        receiving = threading.Thread(target=collector.run)
        receiving.start()
        with _sender(collector.sockets[0].port, traffic, count, pace) as begin_and_wait:
            database, own = _database_seconds(engine), time.process_time()
            begin_and_wait()
            collector.stop()
            receiving.join()
            whole = store.flush(_WRITE_SECONDS)
            own = time.process_time() - own
            database = _database_seconds(engine) - database  # while the connection is open: its process can be asked
            store.close(1)
            if not whole:
                raise BenchError(f"PostgreSQL did not take the flows in {_WRITE_SECONDS:g} s", hint="send fewer")
        stored = _stored(engine) - before
    engine.dispose()
    return {
        "flows_per_cpu_second": round(stored / (own + database)),
        "collector_flows_per_cpu_second": round(stored / own),
        "stored": stored,
        "lost": count * traffic.records - stored,
    }


def _peer(program: str, traffic: Traffic, count: int, pace: int) -> int:
    """Flows a second of processor time of a collector of nfdump."""
    with tempfile.TemporaryDirectory(prefix="nms-workers-bench-") as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        argv = [program, "-w", folder, "-p", str(port), "-b", "127.0.0.1", "-t", "3600", "-B", "16777216"]
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _wait_for_socket(psutil.Process(process.pid))
            with _sender(port, traffic, count, pace) as begin_and_wait:
                begin_and_wait()
            process.terminate()
            used = _seconds(process)
        finally:
            process.kill()
            process.wait()
        listed = subprocess.run(
            ["nfdump", "-R", folder, "-I"],  # noqa: S607 - of the package that we have just found on the path
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
    stored = next(int(line.split(":")[1]) for line in listed.stdout.splitlines() if line.startswith("Flows:"))
    return round(stored / used)


def _seconds(process: "subprocess.Popen[bytes]") -> float:
    """The processor time that a process that is ending has taken, to the microsecond."""
    limit = threading.Timer(START_SECONDS, process.kill)
    limit.start()
    _, status, usage = os.wait4(process.pid, 0)
    limit.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


def _wait_for_socket(peer: psutil.Process) -> None:
    ends = time.monotonic() + START_SECONDS
    while not peer.net_connections("udp"):
        if time.monotonic() > ends:
            raise BenchError("the peer does not listen", hint="run it by hand and see what it says")
        time.sleep(0.01)


@contextmanager
def _sender(port: int, traffic: Traffic, count: int, pace: int) -> Iterator[Callable[[], None]]:
    """A process that waits until it is told to send `count` datagrams, `pace` of them a second."""
    context = multiprocessing.get_context("spawn")
    begin, ready = context.Event(), context.Event()
    sender = context.Process(target=send, args=(ready, begin, port, traffic, (count, pace)), daemon=True)
    sender.start()

    def begin_and_wait() -> None:
        begin.set()
        sender.join(START_SECONDS + 4 * count / pace)
        if sender.exitcode != 0:
            raise BenchError(f"the generator ended with {sender.exitcode}", hint="send fewer flows")

    try:
        if not ready.wait(START_SECONDS):
            raise BenchError("the generator does not start", hint="is the machine very busy?")
        yield begin_and_wait
    finally:
        sender.kill()
        sender.join()


def _database_seconds(engine: Engine) -> float:
    """The processor time of the whole server, processes that ended included."""
    with engine.connect() as connection:
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    try:
        server = psutil.Process(pid).parent()
        if server is None:
            raise psutil.NoSuchProcess(pid)
        own = sum(server.cpu_times()[:4])  # user and system, of its own and of those of its children that ended
        return float(own + sum(sum(one.cpu_times()[:2]) for one in server.children(recursive=True)))
    except psutil.Error:
        raise BenchError("the server's processes are not on this machine", hint="leave --url out") from None


def _stored(engine: Engine) -> int:
    with engine.connect() as connection:
        count: int = connection.execute(text("SELECT coalesce(sum(flows), 0) FROM flow_blocks")).scalar_one()
    return count


def _version() -> str:
    told = subprocess.run(["nfcapd", "-V"], capture_output=True, text=True, timeout=10, check=False)  # noqa: S607
    return (told.stdout or told.stderr).strip().splitlines()[0]
