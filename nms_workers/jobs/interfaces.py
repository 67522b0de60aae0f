"""Which interfaces of this host the fleet and the world are reached through: a change of one can cut us all off."""

import errno
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, Connection, select

from nms_workers.errors import NmsError
from nms_workers.jobs.protected import fleet
from nms_workers.jobs.wish import Wish
from nms_workers.queues import host_name
from nms_workers.settings import Settings
from nms_workers.store.schema import targets

if TYPE_CHECKING:
    from pyroute2 import IPRoute

_OURS = Path("/proc/self/ns/net")
_NAMED = Path("/run/netns")  # ip-netns(8)
_UNICAST = 1  # RTN_UNICAST of rtnetlink(7); not a default that is blackhole or unreachable
_NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


def here(connection: Connection, wish: Wish) -> bool:
    """Whether the interfaces of the target are those of this process: its host, its network namespace.

    When a job is submitted, its target may be beside a worker elsewhere: that worker looks, right before it runs.
    """
    if wish.job is None and worker_of(connection, wish) not in {None, host_name()}:
        return False
    settings = connection.scalar(select(targets.c.settings).where(*_of(wish)))
    netns = str((settings or {}).get("netns") or "")
    if not netns:
        return True
    try:
        return (_NAMED / netns).samefile(_OURS)  # an absolute path stays as it is
    except OSError:
        return False  # not on this host; the action itself says so


def worker_of(connection: Connection, wish: Wish) -> str | None:
    """The worker beside the target; None: any."""
    found: str | None = connection.scalar(select(targets.c.worker).where(*_of(wish)))
    return found


def _of(wish: Wish) -> tuple[ColumnElement[bool], ...]:
    return targets.c.service == wish.service, targets.c.name == wish.target


def needed(settings: Settings) -> dict[str, str]:
    """The interfaces that guards keep from being changed, and where each leads. Linux only.

    They are those of the kernel's own routes to PostgreSQL, Redis and the broker (`fleet`) and of every default route
    (`gateways`), and those these stand on: of a VLAN its parent, of a bridge or bond its ports.

    Raises:
        NmsError: where the fleet's servers are, or the way to one, cannot be found.
    """
    if not sys.platform.startswith("linux"):
        return {}
    from pyroute2 import IPRoute  # noqa: PLC0415 - takes most of a second, and few actions need it

    found: dict[int, str] = {}
    with IPRoute() as netlink:
        if "fleet" in settings.guards.find:
            for one in fleet(settings):
                for index in _way(netlink, str(one.network.network_address)):
                    found.setdefault(index, one.whose)
        if "gateways" in settings.guards.find:
            for index in _defaults(netlink):
                found.setdefault(index, "a default gateway of this host")
        return _with_lower(netlink, found)


def _way(netlink: "IPRoute", address: str) -> Iterator[int]:
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415

    try:
        for route in netlink.route("get", dst=address):
            if (index := route.get_attr("RTA_OIF")) is not None:
                yield int(index)
    except NetlinkError as exc:
        if exc.code not in _NO_ROUTE:  # these: it is not reached from here at all
            raise NmsError(f"the kernel does not tell by which interface {address} is reached: {exc}") from exc


def _defaults(netlink: "IPRoute") -> Iterator[int]:
    for route in netlink.get_routes():
        if route["dst_len"] == 0 and route["type"] == _UNICAST:
            hops = route.get_attr("RTA_MULTIPATH") or ()
            indexes = (route.get_attr("RTA_OIF"), *(hop["oif"] for hop in hops))
            yield from (int(index) for index in indexes if index)


def _with_lower(netlink: "IPRoute", found: dict[int, str]) -> dict[str, str]:
    """By name, and with what they stand on."""
    links = {link["index"]: link for link in netlink.get_links()}
    todo = [index for index in found if index in links]
    while todo:
        upper = todo.pop()
        ports = [index for index, link in links.items() if link.get_attr("IFLA_MASTER") == upper]
        elsewhere = links[upper].get_attr("IFLA_LINK_NETNSID") is not None
        parent = None if elsewhere else links[upper].get_attr("IFLA_LINK")
        for index in (*ports, parent):
            if index in links and index not in found:
                found[index] = found[upper]
                todo.append(index)
    return {links[index].get_attr("IFLA_IFNAME"): why for index, why in found.items() if index in links}
