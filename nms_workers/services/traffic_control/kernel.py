"""Speaks netlink to the kernel, in any network namespace, and puts its errors in words.

pyroute2 itself enters a namespace by forking, which a process of many threads must not do. A thread of ours enters it
instead, opens the socket there and ends with the request; the namespace of every other thread stays as it was.
"""

import ctypes
import errno
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from nms_workers.errors import AuthError, ParseError, Refused, TargetError, Timeout, Unreachable
from nms_workers.services.traffic_control.target import TrafficControlTarget
from nms_workers.transport.deadline import remaining

if TYPE_CHECKING:
    from pyroute2 import IPRoute

Socket: TypeAlias = "IPRoute"
Message: TypeAlias = Any  # pyroute2's messages are not typed

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_TRIES = 4  # a dump during which somebody else changed the tables is told apart by the kernel, and read again
_NAMED = "/var/run/netns/"

_REFUSALS = {
    errno.ENODEV: ("there is no such interface any more", ""),
    errno.ENOENT: ("the kernel does not know this kind, or what it should hang on is gone", "modprobe its module"),
    errno.EOPNOTSUPP: ("the kernel or the driver cannot do that", "modprobe its module"),
    errno.EEXIST: ("something else is in this place", "look with `tc qdisc show`"),
    errno.EINVAL: ("the kernel takes this for invalid", ""),
    errno.EBUSY: ("it is in use", ""),
}


class KernelSaidNo(Refused):
    """The kernel refused; `code` is its errno."""

    def __init__(self, code: int) -> None:
        message, hint = _REFUSALS.get(code, (os.strerror(code), ""))
        super().__init__(message, hint=hint)
        self.code = code


def no_interface(name: str) -> Refused:
    """The refusal for an interface that is not there."""
    return Refused(f"there is no interface {name}", hint="list them with `ip -br link`, and check the target's netns")


def ask(target: TrafficControlTarget, work: Callable[[Socket], T]) -> T:
    """What `work` returns, given a netlink socket in the target's namespace.

    Raises:
        Refused: no such namespace, or the kernel says no (`KernelSaidNo`); this is no Linux.
        AuthError: we lack CAP_NET_ADMIN (to change) or CAP_SYS_ADMIN (to enter a namespace).
        Timeout: it took longer than the target's `timeout` or the deadline of the run.
        ParseError: the kernel's answer could not be read.
        Unreachable: no netlink socket can be opened.
    """
    if sys.platform != "linux":
        raise Refused("traffic control is read by netlink, which only Linux has", hint="let a Linux worker poll it")
    answer: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            _enter(target.netns)
            answer.append(_work(work))
        except BaseException as exc:  # noqa: BLE001 - raised again below, in the thread that asked
            failure.append(exc)

    limit = remaining(target.timeout)
    thread = threading.Thread(target=run, name="traffic_control", daemon=True)
    thread.start()
    thread.join(limit)
    if thread.is_alive():
        raise Timeout(f"the kernel did not answer in {limit:.1f} s", hint="another program may hold the routing lock")
    if failure:
        raise failure[0]
    return answer[0]


def _work(work: Callable[[Socket], T]) -> T:
    from pyroute2 import IPRoute  # noqa: PLC0415 - Linux only, and slow to import
    from pyroute2.netlink.exceptions import (  # noqa: PLC0415
        NetlinkDecodeError,
        NetlinkDumpInterrupted,
        NetlinkError,
    )

    _compile_tables()
    try:
        with IPRoute(groups=0) as socket:
            return work(socket)
    except NetlinkDumpInterrupted as exc:
        raise Unreachable("the tables change faster than they can be read", hint="poll less often") from exc
    except NetlinkDecodeError as exc:
        raise ParseError(f"an answer of the kernel could not be read: {exc.exception}") from exc
    except NetlinkError as exc:
        raise _explained(exc.code) from exc
    except OSError as exc:
        raise Unreachable(f"no netlink socket: {exc.strerror}") from exc


@cache
def _compile_tables() -> None:
    """pyroute2 decodes by the table of a base class that was used before its subclass: htb would have no counters."""
    from pyroute2.netlink.rtnl.tcmsg import common, plugins  # noqa: F401, PLC0415 - Linux only; plugins has subclasses

    for subclass in common.stats2.__subclasses__():
        subclass().compile_nla_table()


def dump(read: Callable[[], Iterable[Message]]) -> list[Message]:
    """Every row of a table; read again when somebody changed it meanwhile, which the kernel tells.

    Raises:
        pyroute2.netlink.exceptions.NetlinkError: put in words by `ask`.
    """
    from pyroute2.netlink.exceptions import NetlinkDumpInterrupted  # noqa: PLC0415

    for _ in range(_TRIES - 1):
        with suppress(NetlinkDumpInterrupted):
            return list(read())
    return list(read())


@contextmanager
def instead_of(code: int, refusal: Refused) -> Iterator[None]:
    """Inside, the kernel's errno `code` is this refusal, which can say more."""
    try:
        yield
    except Exception as exc:
        if getattr(exc, "code", None) != code:
            raise
        raise refusal from exc


def _explained(code: int) -> TargetError:
    if code in (errno.EPERM, errno.EACCES):
        return AuthError("the kernel permits no change", hint="run the worker as root or with CAP_NET_ADMIN")
    return KernelSaidNo(code)


def _enter(netns: str) -> None:
    """Let the calling thread enter a namespace; an empty name stays."""
    if not netns:
        return
    path = netns if netns.startswith("/") else _NAMED + netns
    try:
        namespace = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise _namespace_refused(netns, exc.errno or 0) from exc
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(namespace, _CLONE_NEWNET):
            raise _namespace_refused(netns, ctypes.get_errno())
    finally:
        os.close(namespace)


def _namespace_refused(netns: str, code: int) -> TargetError:
    if code in (errno.EPERM, errno.EACCES):
        return AuthError(
            f"the network namespace {netns} must not be entered", hint="run the worker as root or with CAP_SYS_ADMIN"
        )
    if code in (errno.ENOENT, errno.ENOTDIR):
        return Refused(f"there is no network namespace {netns}", hint="list them with `ip netns list`")
    return Refused(f"{netns} is no network namespace: {os.strerror(code)}")
