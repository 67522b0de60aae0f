"""How many traps of version 2c a second of the receiver's processor is enough for: received, decoded, told or counted.

The receiver is the real one with the real spool and writer; it alone runs in this process. The sender is a process of
its own. Each device has an address of 127.0.0.0/8, and its links go down again and again.
"""

import multiprocessing
import socket
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from pyasn1.codec.ber import decoder, encoder
from pysnmp.proto.api import v2c
from sqlalchemy import text

from nms_workers.errors import NmsError
from nms_workers.fleet.inventory import Target
from nms_workers.settings import Traps
from nms_workers.store.engine import make_engine
from nms_workers.store.migrations import upgrade
from nms_workers.store.spool import Spool
from nms_workers.store.writer import Writer
from nms_workers.transport.datagrams import Address
from nms_workers.traps.keeping import Keeper
from nms_workers.traps.receiver import Receiver
from nms_workers.traps.sources import Sources

LINKS = 10  # of each device
_COMMUNITY = b"bench"
_UPTIME = 0x12345678  # a number that is found again in the bytes: each trap has one of its own
_BURST_SECONDS = 0.002
_COMPARED = 500  # decoded by pysnmp
_START_SECONDS = 60.0
_ADD = text("INSERT INTO targets (service, name, source, state) VALUES ('snmp', :name, 'bench', 'active') RETURNING id")


class BenchError(NmsError):
    """The measurement cannot be made here."""


def run(url: str, *, traps: int = 200_000, rate: int = 20_000, devices: int = 100) -> dict[str, float | int]:
    """Send traps at a rate and measure what becomes of them.

    Args:
        url: of a PostgreSQL whose schema we may make and fill.
        traps: how many.
        rate: of them a second.
        devices: that send them.

    Returns:
        `received`, `told`, `counted` (the same was told in this window), `dropped` (by the kernel),
        `received_per_second`, `traps_per_cpu_second` of the receiver's whole process, `events` in the database, and
        `pysnmp_decodes_per_cpu_second`, which is decoding alone.

    Raises:
        BenchError: the sender died.
    """
    datagrams = [_trap(link) for link in range(1, LINKS + 1)]
    with tempfile.TemporaryDirectory(prefix="nms-workers-bench-") as folder:
        upgrade(url)
        writer = Writer(Spool(Path(folder) / "spool"), url)
        writer.start()
        known = Sources(_targets(url, devices), frozenset((_COMMUNITY,)))
        settings = Traps(listen=("127.0.0.1:0",), nice=0)
        receiver = Receiver(settings, lambda: known, Keeper(writer, "bench:1"), Path(folder) / "traps")
        receiving = threading.Thread(target=receiver.run)
        context = multiprocessing.get_context("spawn")
        begin = context.Event()
        port = receiver.sockets[0].port
        sender = context.Process(target=_send, args=(begin, port, datagrams, (traps, rate, devices)), daemon=True)
        sender.start()
        receiving.start()
        cpu, wall = time.process_time(), time.perf_counter()
        begin.set()
        sender.join(_START_SECONDS + 4 * traps / rate)
        took = time.perf_counter() - wall
        dropped = receiver.sockets[0].new_drops()
        receiver.stop()
        receiving.join()
        writer.close(60)
        used = time.process_time() - cpu
    if sender.exitcode != 0:
        raise BenchError(f"the sender of traps ended with {sender.exitcode}", hint="send fewer of them")
    told = receiver.tallies
    received = sum(told.values())
    return {
        "received": received,
        "told": told.get("told", 0),
        "counted": told.get("counted", 0),
        "dropped": max(dropped, traps - received),
        "events": _events(url),
        "received_per_second": round(received / took),
        "traps_per_cpu_second": round(received / used),
        "pysnmp_decodes_per_cpu_second": _pysnmp(datagrams[0]),
    }


def _trap(link: int) -> bytes:
    """A linkDown as routers send it: five variables, 122 bytes."""
    pdu = v2c.SNMPv2TrapPDU()
    v2c.apiPDU.set_defaults(pdu)
    variables = [
        ((1, 3, 6, 1, 2, 1, 1, 3, 0), v2c.TimeTicks(_UPTIME)),
        ((1, 3, 6, 1, 6, 3, 1, 1, 4, 1, 0), v2c.ObjectIdentifier((1, 3, 6, 1, 6, 3, 1, 1, 5, 3))),
        *(((1, 3, 6, 1, 2, 1, 2, 2, 1, column, link), v2c.Integer32(2)) for column in (1, 7, 8)),
    ]
    v2c.apiPDU.set_varbinds(pdu, variables)
    message = v2c.Message()
    v2c.apiMessage.set_defaults(message)
    v2c.apiMessage.set_community(message, _COMMUNITY)
    v2c.apiMessage.set_pdu(message, pdu)
    return bytes(encoder.encode(message))


def _targets(url: str, devices: int) -> dict[Address, Target]:
    engine = make_engine(url)
    with engine.begin() as connection:
        names = [f"device{number}" for number in range(devices)]
        ids = [connection.execute(_ADD, {"name": name}).scalar_one() for name in names]
    engine.dispose()
    return {
        socket.inet_aton(_address(number)): Target(one, "snmp", name, {}, {})
        for number, (one, name) in enumerate(zip(ids, names, strict=True))
    }


def _address(number: int) -> str:
    return f"127.1.{number // 250}.{number % 250 + 1}"


def _send(begin: "threading.Event", port: int, datagrams: Sequence[bytes], numbers: tuple[int, int, int]) -> None:
    """The process of the sender: in bursts, each so late that the rate is kept. `numbers` are of `run`."""
    traps, rate, devices = numbers
    wires = []
    for number in range(devices):
        wire = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        wire.bind((_address(number), 0))
        wire.connect(("127.0.0.1", port))
        wires.append(wire)
    places = [datagram.index(_UPTIME.to_bytes(4)) for datagram in datagrams]
    made = [bytearray(datagram) for datagram in datagrams]
    begin.wait(_START_SECONDS)
    began, sent = time.perf_counter(), 0
    while sent < traps:
        due = min(traps, int((time.perf_counter() - began) * rate))
        for number in range(sent, due):
            which = number // devices % len(made)
            made[which][places[which] : places[which] + 4] = (_UPTIME + number).to_bytes(4)
            wires[number % devices].send(made[which])
        sent = max(sent, due)
        time.sleep(_BURST_SECONDS)
    for wire in wires:
        wire.close()


def _events(url: str) -> int:
    engine = make_engine(url)
    with engine.connect() as connection:
        count: int = connection.execute(
            text("SELECT count(*) FROM events e JOIN targets t ON t.id = e.target_id WHERE t.source = 'bench'")
        ).scalar_one()
    engine.dispose()
    return count


def _pysnmp(datagram: bytes) -> int:
    began = time.process_time()
    for _ in range(_COMPARED):
        message, _ = decoder.decode(datagram, asn1Spec=v2c.Message())
        v2c.apiPDU.get_varbinds(v2c.apiMessage.get_pdu(message))
    return round(_COMPARED / (time.process_time() - began))
