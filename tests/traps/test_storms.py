"""Storms: told once, counted, and never in the way of anybody else."""

import socket
import threading
from pathlib import Path

import pytest

from nms_workers.errors import ConfigError
from nms_workers.services.snmp.client import SnmpClient
from nms_workers.services.snmp.target import SnmpTarget
from nms_workers.settings import Traps
from nms_workers.store.spool import Spool
from nms_workers.store.writer import Writer
from nms_workers.transport.datagrams import DatagramSocket
from nms_workers.traps.keeping import Keeper
from nms_workers.traps.receiver import LARGEST, Receiver
from nms_workers.traps.sources import Sources
from tests.conftest import StartServer
from tests.fleet.stores import wait_until
from tests.traps.conftest import COLD_START, INDEX_7, LINK_DOWN, LINK_UP, V2C, Receive, Receiving, Send


@pytest.fixture
def capture(send: Send) -> "Capture":
    return Capture(send)


class Capture:
    """What Net-SNMP sends, as bytes, to be sent again many times."""

    def __init__(self, send: Send) -> None:
        self._send = send

    def __call__(self, *rest: str, options: tuple[str, ...] = V2C) -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
            wire.bind(("127.0.0.1", 0))
            wire.settimeout(20)
            self._send(wire.getsockname()[1], options, *rest)
            return wire.recv(65_535)


def pour(receiving: Receiving, *datagrams: bytes, times: int = 1) -> None:
    """Send these, never more than fit into the receive buffer at once."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        wire.connect(("127.0.0.1", receiving.port))
        sent = sum(receiving.receiver.tallies.values())
        for _ in range(times):
            for datagram in datagrams:
                wire.send(datagram)
                sent += 1
                if sent % 500 == 0:
                    wait_until(lambda: sum(receiving.receiver.tallies.values()) >= sent - 100)  # noqa: B023 - called here
        wait_until(lambda: sum(receiving.receiver.tallies.values()) >= sent)


def test_what_is_said_again_is_told_once_and_counted(receive: Receive, capture: Capture) -> None:
    receiving = receive()

    pour(receiving, capture("", COLD_START), times=1000)

    assert receiving.receiver.tallies == {"told": 1, "counted": 999}
    receiving.stop()  # which ends the window
    first, again = receiving.events()
    assert (first["kind"], again["kind"]) == ("coldStart", "trap_repeated")
    assert again["message"] == "999 times more in 60 s: coldStart"
    assert again["attributes"] == {"repeated": "coldStart", "trap": COLD_START, "count": 999}


def test_a_window_ends_by_itself(receive: Receive, capture: Capture) -> None:
    receiving = receive(window="1s")

    pour(receiving, capture("", COLD_START), times=3)

    wait_until(lambda: [one["kind"] for one in receiving.events()] == ["coldStart", "trap_repeated"])


@pytest.mark.parametrize("last", ["up", "down"])
def test_a_link_that_flaps_ends_as_it_is(receive: Receive, capture: Capture, last: str) -> None:
    receiving = receive()
    down, up = capture("", LINK_DOWN, *INDEX_7), capture("", LINK_UP, *INDEX_7)

    pour(receiving, down, up, times=50)
    if last == "down":
        pour(receiving, down)

    receiving.stop()
    assert receiving.firing() == (["linkDown 7"] if last == "down" else [])
    assert sum(one["kind"] == "linkDown" for one in receiving.events()) == (3 if last == "down" else 2)


def test_a_device_that_says_ever_new_things_is_bounded_and_others_are_heard(receive: Receive, capture: Capture) -> None:
    receiving = receive({"noisy": "127.0.0.1", "quiet": "192.0.2.7"}, events_per_window=5)
    noise = [capture("", LINK_DOWN, f"1.3.6.1.2.1.2.2.1.1.{port}", "i", str(port)) for port in range(1, 9)]
    quiet = capture("", COLD_START, "1.3.6.1.6.3.18.1.3.0", "a", "192.0.2.7")

    pour(receiving, *noise, quiet)

    assert receiving.receiver.tallies == {"told": 6, "over_limit": 3}
    receiving.stop()
    told = receiving.events()
    assert [one["kind"] for one in told if one["target"] == "quiet"] == ["coldStart"]
    (storm,) = [one for one in told if one["kind"] == "trap_storm"]
    assert storm["message"] == "3 more notifications in 60 s, the last one linkDown"


def test_of_strangers_and_liars_nothing_is_kept(receive: Receive, capture: Capture, send: Send) -> None:
    receiving = receive({"elsewhere": "192.0.2.7"})

    pour(receiving, capture("", COLD_START))
    pour(receiving, capture("", COLD_START, options=("-v2c", "-c", "guessed")))
    unanswered = send(receiving.port, (*V2C, "-t", "0.2", "-r", "0"), "", COLD_START, command="snmpinform", check=False)

    receiving.wait(unknown_source=2, wrong_community=1)
    assert unanswered.returncode != 0  # what is not kept is not acknowledged
    receiving.stop()
    assert receiving.events() == []


def test_a_datagram_that_is_too_large_is_counted(receive: Receive) -> None:
    receiving = receive()

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        wire.sendto(bytes(LARGEST + 1), ("127.0.0.1", receiving.port))

    receiving.wait(too_large=1)


def test_what_the_kernel_drops_is_counted_as_it_counts_itself() -> None:
    small = DatagramSocket("127.0.0.1:0", 2304, of="traps", largest=LARGEST)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
            for _ in range(200):
                wire.sendto(bytes(100), ("127.0.0.1", small.port))
        received = len(small.receive())
        inode = str(Path(f"/proc/self/fd/{small.fileno()}").readlink()).strip("socket:[]")
        lines = Path("/proc/net/udp").read_text().splitlines()
        (shown,) = [int(line.split()[-1]) for line in lines if line.split()[9] == inode]

        drops = small.new_drops()

        assert 0 < received < 200
        assert drops == 200 - received == shown
        assert small.new_drops() == 0
    finally:
        small.close()


def test_a_port_in_use_is_said_and_two_may_share_it() -> None:
    first = DatagramSocket("127.0.0.1:0", 4096, of="traps", largest=LARGEST, share=True)
    second = DatagramSocket(f"127.0.0.1:{first.port}", 4096, of="traps", largest=LARGEST, share=True)
    try:
        with pytest.raises(ConfigError, match=rf"127\.0\.0\.1 port {first.port}: Address already in use .*share"):
            DatagramSocket(f"127.0.0.1:{first.port}", 4096, of="traps", largest=LARGEST)
    finally:
        first.close()
        second.close()


def test_without_an_address_there_is_no_receiver(tmp_path: Path, database_url: str) -> None:
    writer = Writer(Spool(tmp_path), database_url)
    with pytest.raises(ConfigError, match=r"no address to listen at .*traps\.listen"):
        Receiver(Traps(), Sources, Keeper(writer, "test:1"), tmp_path)


@pytest.mark.real("snmpd")
def test_polls_go_on_under_a_storm(receive: Receive, capture: Capture, start_server: StartServer) -> None:
    receiving = receive()
    agent = start_server("snmpd")
    datagram, over = capture("", COLD_START), threading.Event()

    def storm() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
            while not over.is_set():
                wire.sendto(datagram, ("127.0.0.1", receiving.port))

    sender = threading.Thread(target=storm)
    sender.start()
    try:
        receiving.wait(counted=1000)
        target = SnmpTarget.model_validate({"host": agent.host, "port": agent.port, "community": "env:TEST_PUBLIC"})
        names = [SnmpClient(target).get_system_info()["location"] for _ in range(3)]
        counted = receiving.receiver.tallies["counted"]
        receiving.wait(counted=counted + 1000)
    finally:
        over.set()
        sender.join()

    assert names == ["a rack of the tests"] * 3
