"""What the methods of `TrafficControlClient` return. Sizes are bytes, rates bytes per second, times seconds."""

from typing import Any

import msgspec


class Stats(msgspec.Struct, frozen=True):
    """What every qdisc and class counts, since it was made.

    Args:
        backlog, qlen: bytes and packets that wait now.
        bytes_per_second, packets_per_second: as the kernel's own estimator has them; None where none was asked for.
    """

    bytes: int
    packets: int
    drops: int
    overlimits: int
    requeues: int
    backlog: int
    qlen: int
    bytes_per_second: int | None
    packets_per_second: int | None


class Qdisc(msgspec.Struct, frozen=True):
    """One queueing discipline.

    Args:
        handle: as tc(8) writes it, `1:`; empty for one the kernel chose itself.
        parent: the class it queues for, `root` or `ingress`.
        options: its parameters as the kernel names and keeps them.
    """

    interface: str
    kind: str
    handle: str
    parent: str
    stats: Stats
    options: dict[str, Any]


class TrafficClass(msgspec.Struct, frozen=True):
    """One class of a qdisc: `handle` as tc(8) writes it, `1:10`, below `parent`."""

    interface: str
    kind: str
    handle: str
    parent: str
    stats: Stats
    options: dict[str, Any]


class Filter(msgspec.Struct, frozen=True):
    """One filter.

    Args:
        parent: what it hangs on: a qdisc, a class or `ingress`.
        preference: the lower, the earlier it is asked.
        ethertype: of the packets it is asked about, `0x0800` is IPv4, `0x0003` all.
        handle: eight hexadecimal digits.
        flowid: the class it leads to; empty for none.
        match: what it looks for, where it is one of ours; otherwise empty.
        actions: kinds of its actions.
    """

    interface: str
    kind: str
    parent: str
    preference: int
    ethertype: str
    handle: str
    flowid: str
    match: str
    actions: tuple[str, ...]
    options: dict[str, Any]


class Interface(msgspec.Struct, frozen=True):
    """One network interface.

    Args:
        kind: of a virtual one (`veth`, `ifb`, `bridge`); empty for hardware.
        state: `up`, `down`, `unknown`, ... by RFC 2863.
        up: it is switched on.
        speed: bits per second of the line; None where the driver knows none.
        mtu: bytes.
        counters: as the kernel names them in `rtnl_link_stats64`.
    """

    name: str
    index: int
    kind: str
    state: str
    up: bool
    carrier: bool
    speed: int | None
    mtu: int
    queue_length: int
    address: str
    alias: str
    counters: dict[str, int]
