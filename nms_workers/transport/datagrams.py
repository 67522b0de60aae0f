"""UDP sockets of our receivers: many datagrams in one system call, and the kernel's own count of those it dropped.

`recvmmsg(2)` is called without letting go of the interpreter: to let go for each datagram would mean to wait, each
time, until another thread of the process has had its turn.
"""

import ctypes
import logging
import os
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from nms_workers.errors import ConfigError

log = logging.getLogger(__name__)

BATCH = 64
_SO_RCVBUFFORCE, _SO_MEMINFO, _MEMINFO = 33, 55, struct.Struct("9I")  # linux/sock_diag.h: the last one is the drops
_MSG_DONTWAIT, _MSG_TRUNC = 0x40, 0x20

Address = bytes  # packed: 4 bytes of IPv4, 16 of IPv6


class Datagram(NamedTuple):
    """What came: the contents, who sent it, and the same as the kernel has it, with the port, for an answer."""

    data: bytes
    address: Address
    name: bytes
    socket: "DatagramSocket"

    @property
    def port(self) -> int:
        """The sender's."""
        return int.from_bytes(self.name[2:4])

    def answer(self, data: bytes) -> bool:
        """Send something back. Whether the kernel took it."""
        return self.socket.send(data, self.name)


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.POINTER(_Vector)),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    _fields_ = (("header", _Header), ("length", ctypes.c_uint))


class DatagramSocket:
    """A bound UDP socket.

    Args:
        address: where to listen: `0.0.0.0:1162`, `[::]:1162`; port 0: a free one.
        receive_buffer: bytes asked of the kernel for datagrams that wait.
        of: what is received, for people: `traps`. It is also the section of the settings.
        largest: bytes of a datagram; a larger one is counted and left out.
        share: let a second process listen at the same address (SO_REUSEPORT).

    Raises:
        ConfigError: the address cannot be listened at; the hint says what to do.
    """

    def __init__(self, address: str, receive_buffer: int, *, of: str, largest: int, share: bool = False) -> None:
        if sys.platform != "linux":
            raise ConfigError(f"a receiver of {of} needs Linux", hint="it uses recvmmsg(2) and SO_MEMINFO")
        self.truncated = 0  # datagrams that were larger than `largest`
        self._largest = largest
        self._drops_before = 0
        host, _, port = address.rpartition(":")
        self._socket = _bound(host.strip("[]"), int(port), of, share=share)
        self._ask_for_buffer(receive_buffer)
        self.receive_buffer: int = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
        bound = self._socket.getsockname()
        self.port: int = bound[1]
        self.address = f"[{bound[0]}]:{bound[1]}" if ":" in bound[0] else f"{bound[0]}:{bound[1]}"
        self._make_room()

    def fileno(self) -> int:
        """For `select`."""
        return self._socket.fileno()

    def close(self) -> None:
        """Let go of the address. What waits unread is lost, and counted by nobody."""
        self._socket.close()

    def receive(self) -> list[Datagram]:
        """The datagrams that wait, at most `BATCH`; one that is larger than `largest` is counted and left out."""
        received = self._recvmmsg(self.fileno(), self._messages, BATCH, _MSG_DONTWAIT, None)
        return list(self._taken(received))

    def send(self, contents: bytes, name: bytes) -> bool:
        """Send to the sender of a datagram. Whether the kernel took it."""
        try:
            self._socket.sendto(contents, socket.MSG_DONTWAIT, _for_python(name))
        except OSError:
            return False
        return True

    def new_drops(self) -> int:
        """Datagrams that the kernel dropped since the last call: the buffer was full (or a checksum was wrong).

        It is the number that SO_RXQ_OVFL sends along with datagrams and that /proc/net/udp shows, asked for directly.
        """
        told = self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
        drops: int = _MEMINFO.unpack(told)[-1]
        new = (drops - self._drops_before) % (1 << 32)
        self._drops_before = drops
        return new

    def _ask_for_buffer(self, size: int) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        if self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) < 2 * size:
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)  # root may go beyond rmem_max
            except PermissionError:
                return  # whoever opened us compares `receive_buffer` with what was wanted, and says so

    def _make_room(self) -> None:
        """The buffers and the structures that `recvmmsg` fills. They must live as long as the socket."""
        self._recvmmsg = ctypes.PyDLL(None).recvmmsg
        self._bodies = ctypes.create_string_buffer(BATCH * self._largest)
        self._names = ctypes.create_string_buffer(BATCH * _NAME_ROOM)
        self._vectors = (_Vector * BATCH)()
        self._messages = (_Message * BATCH)()
        for number, (vector, message) in enumerate(zip(self._vectors, self._messages, strict=True)):
            vector.base = ctypes.addressof(self._bodies) + number * self._largest
            vector.length = self._largest
            message.header.name = ctypes.addressof(self._names) + number * _NAME_ROOM
            message.header.name_length = _NAME_ROOM
            message.header.vectors = ctypes.pointer(vector)
            message.header.vector_count = 1
        self._body_view = memoryview(self._bodies).cast("B")
        self._name_view = memoryview(self._names).cast("B")
        self._told = memoryview(self._messages).cast("B")

    def _taken(self, count: int) -> Iterator[Datagram]:
        for number in range(count):
            header = number * _STRIDE
            (length,) = _NUMBER(self._told, header + _LENGTH_AT)
            if _NUMBER(self._told, header + _FLAGS_AT)[0] & _MSG_TRUNC:
                self.truncated += 1
                continue
            at, name_at = number * self._largest, number * _NAME_ROOM
            name = bytes(self._name_view[name_at : name_at + _NAME_ROOM])
            yield Datagram(bytes(self._body_view[at : at + length]), _address(name), name, self)


_NAME_ROOM = 28  # sizeof(struct sockaddr_in6)
_STRIDE = ctypes.sizeof(_Message)
_LENGTH_AT = _Message.length.offset
_FLAGS_AT = _Header.flags.offset
_NUMBER = struct.Struct("=I").unpack_from
_FAMILY = struct.Struct("=H").unpack_from
_MAPPED = bytes(10) + b"\xff\xff"


def _address(name: bytes) -> Address:
    if _FAMILY(name)[0] == socket.AF_INET:
        return name[4:8]
    return name[20:24] if name[8:20] == _MAPPED else name[8:24]


def _for_python(name: bytes) -> tuple[str, int] | tuple[str, int, int, int]:
    port = int.from_bytes(name[2:4])
    if _FAMILY(name)[0] == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, name[4:8]), port
    scope = int.from_bytes(name[24:28], sys.byteorder)
    return socket.inet_ntop(socket.AF_INET6, name[8:24]), port, 0, scope


def _bound(host: str, port: int, of: str, *, share: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if share:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind((host, port))
    except OSError as exc:
        made.close()
        hint = f"is another receiver running? {of}.share = true lets two of ours listen at once"
        if isinstance(exc, PermissionError):
            hint = "ports below 1024 need root or CAP_NET_BIND_SERVICE: listen above, and redirect this one to there"
        raise ConfigError(
            f"{of} cannot be received at {host} port {port}: {os.strerror(exc.errno or 0)}", hint=hint
        ) from None
    return made


def listen(
    addresses: Sequence[str], receive_buffer: int, *, of: str, largest: int, share: bool = False
) -> list[DatagramSocket]:
    """A socket at each of these addresses; all, or none and an error. The arguments are those of `DatagramSocket`.

    Raises:
        ConfigError: one cannot be listened at.
    """
    made: list[DatagramSocket] = []
    try:
        for address in addresses:
            one = DatagramSocket(address, receive_buffer, of=of, largest=largest, share=share)
            made.append(one)
            log.info("%s are received at %s, with room for %d bytes", of, one.address, one.receive_buffer)
            if one.receive_buffer < receive_buffer:
                log.warning(
                    "the kernel gives %d of %d bytes for %s that wait at %s: raise net.core.rmem_max by sysctl",
                    one.receive_buffer, receive_buffer, of, one.address,
                )  # fmt: skip
    except ConfigError:
        for one in made:
            one.close()
        raise
    return made
