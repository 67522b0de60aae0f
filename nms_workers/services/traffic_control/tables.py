"""The kernel's tables of interfaces, qdiscs, classes and filters, as plain values by the kernel's own names."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any, NamedTuple

from nms_workers.services.traffic_control.kernel import Message, Socket, dump

_UNKNOWN_SPEEDS = (0, 0xFFFF, 0xFFFFFFFF)  # megabits per second, as drivers say "I do not know"
_MAX_DEPTH = 8


class Row(NamedTuple):
    """One row of a table: the interface's name, the message as it came, and the same as plain values."""

    interface: str
    message: Message
    values: dict[str, Any]

    @property
    def kind(self) -> str:
        """`htb`, `u32`; of an interface `veth`, and empty for hardware."""
        return str(self.values.get("TCA_KIND") or self.values.get("IFLA_LINKINFO", {}).get("IFLA_INFO_KIND") or "")


def links(socket: Socket, wanted: Callable[[str], bool]) -> list[Row]:
    """The interfaces whose names are wanted, by index."""
    rows = [(row.get_attr("IFLA_IFNAME"), row) for row in dump(socket.get_links)]
    return [Row(name, row, plain(row)) for name, row in sorted(rows, key=lambda one: one[1]["index"]) if wanted(name)]


def qdiscs(socket: Socket, of: Iterable[Row]) -> list[Row]:
    """The qdiscs of these interfaces."""
    names = _names(of)
    return [Row(names[row["index"]], row, plain(row)) for row in dump(socket.get_qdiscs) if row["index"] in names]


def classes(socket: Socket, of: Iterable[Row]) -> Iterator[Row]:
    """The classes of these interfaces."""
    for index, name in _names(of).items():
        rows: list[Message] = dump(lambda index=index: socket.get_classes(index=index))  # type: ignore[misc]
        yield from (Row(name, row, plain(row)) for row in rows)


def filters(socket: Socket, on: Iterable[Row]) -> Iterator[Row]:
    """The filters that hang on these qdiscs; the tables that u32 keeps them in are none."""
    for one in on:
        index, handle = one.message["index"], one.message["handle"]
        if not handle:
            continue
        rows: list[Message] = dump(lambda i=index, h=handle: socket.get_filters(index=i, parent=h))  # type: ignore[misc]
        for row in rows:
            if row["handle"] & 0xFFF or (row["handle"] and row.get_attr("TCA_KIND") != "u32"):
                yield Row(one.interface, row, plain(row))


def actions(row: Row) -> Iterator[tuple[str, dict[str, Any]]]:
    """Kind and values of the actions of a filter."""
    for name, of_filter in row.values.get("TCA_OPTIONS", {}).items():
        if name.endswith("_ACT") and isinstance(of_filter, dict):
            for action in of_filter.values():
                yield action["TCA_ACT_KIND"], action


def speed(name: str) -> int | None:
    """Bits per second of an interface of the calling thread's namespace; None where its driver knows none."""
    from pyroute2.ethtool.ioctl import (  # noqa: PLC0415 - Linux only
        EthtoolError,
        IoctlEthtool,
    )

    with closing(IoctlEthtool(name)) as device:
        try:
            megabits = device.get_link_settings().speed
        except (EthtoolError, OSError):
            return None
    return None if megabits in _UNKNOWN_SPEEDS else megabits * 1_000_000


def _names(of: Iterable[Row]) -> Mapping[int, str]:
    return {row.message["index"]: row.interface for row in of}


def plain(message: Message, depth: int = 0) -> dict[str, Any]:
    """A message as nested mappings by the kernel's own names, fit for JSON; unknown attributes are left out."""
    values: dict[str, Any] = {
        name: value for name, value in message.items() if isinstance(value, int) and name != "header"
    }
    for name, value in message.get("attrs", ()):
        if isinstance(value, int | str):
            values[name] = value
        elif isinstance(value, dict) and name != "UNKNOWN" and depth < _MAX_DEPTH:
            values[name] = plain(value, depth + 1)
    return values
