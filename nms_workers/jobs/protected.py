"""The addresses no action may cut off: those everybody needs, and those found to be ours or our targets'."""

import logging
import re
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from threading import Lock
from urllib.parse import parse_qs, urlsplit

import psutil
from cachetools import TTLCache, cached
from pydantic import BaseModel, ValidationError
from sqlalchemy import Connection, func, select

from nms_workers.errors import ConfigError, NmsError
from nms_workers.jobs.names import Addresses, Names
from nms_workers.jobs.reach import Carrier, Network, meet, reach, written
from nms_workers.service import service, services
from nms_workers.settings import Settings
from nms_workers.store.schema import targets
from nms_workers.transport.deadline import remaining
from nms_workers.transport.secret import Secret

log = logging.getLogger(__name__)

NAMES_LIMIT = 2.0  # seconds to resolve all names
HOST_KEPT = 10.0  # seconds: interfaces and routes of a host seldom change
TARGETS_KEPT = 600.0  # seconds; a changed target is seen at once

ALWAYS = {
    "0.0.0.0/8": "unspecified (RFC 1122)",
    "127.0.0.0/8": "loopback (RFC 1122)",
    "169.254.0.0/16": "link-local (RFC 3927)",
    "224.0.0.0/4": "multicast (RFC 5771)",
    "255.255.255.255/32": "broadcast (RFC 919)",
    "::/128": "unspecified (RFC 4291)",
    "::1/128": "loopback (RFC 4291)",
    "fe80::/10": "link-local (RFC 4291)",
    "ff00::/8": "multicast (RFC 4291)",
    "64:ff9b:1::/48": "local NAT64 (RFC 8215): which IPv4 address it carries cannot be told",
    "2001::/32": "Teredo (RFC 4380): the IPv4 addresses it carries are disguised",
}
RESOLVER_FILES = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
HOST_KEYS = {
    *("address", "addresses", "endpoint", "endpoints", "host", "hosts", "hostname", "nodes", "peers", "proxy"),
    *("sentinels", "server", "servers", "uri", "url", "urls"),
}  # the last word of the name of a setting that says where a target is
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?\Z")


@dataclass(frozen=True)
class Protected:
    """A network that no action may cut off, and whose it is."""

    network: Network
    whose: str

    def __str__(self) -> str:
        return f"{written(self.network)}, {self.whose}"


def hit(cut: Network, protected: Iterable[Protected], carriers: Sequence[Carrier] = ()) -> Iterator[Protected]:
    """Those that cutting off this network would touch, in whatever disguise; `carriers` are some more of these."""
    touched = list(reach(cut, carriers))
    return (one for one in protected if any(meet(a, b) for b in reach(one.network, carriers) for a in touched))


def protected(connection: Connection, settings: Settings) -> Iterator[Protected]:
    """Everything that is protected here and now.

    Raises:
        NmsError: it cannot be told where the broker, PostgreSQL or Redis is.
        ConfigError: one of their URLs cannot be read.
    """
    yield from _ALWAYS
    yield from (Protected(network, "protected by the settings") for network in settings.guards.protected)
    for name in settings.guards.find:
        yield from _FINDERS[name](connection, settings)


_ALWAYS = tuple(Protected(ip_network(text), whose) for text, whose in ALWAYS.items())
_NAMES = Names()


def _interfaces(_: Connection, __: Settings) -> Iterable[Protected]:
    return _own_addresses()


@cached(TTLCache(1, HOST_KEPT), lock=Lock())
def _own_addresses() -> list[Protected]:
    return [
        one
        for interface, addresses in psutil.net_if_addrs().items()
        for address in addresses
        if address.family in (socket.AF_INET, socket.AF_INET6)
        for one in _literal(address.address, f"this host's own ({interface})")
    ]


def _gateways(_: Connection, __: Settings) -> Iterable[Protected]:
    return _default_gateways()


@cached(TTLCache(1, HOST_KEPT), lock=Lock())
def _default_gateways() -> list[Protected]:
    """Of every routing table and every path. `/proc/net/route` knows the main table and one path only."""
    if not sys.platform.startswith("linux"):
        return []
    from pyroute2 import IPRoute  # noqa: PLC0415 - takes most of a second, and only actions that cut off need it

    found = []
    with IPRoute() as netlink:
        for route in netlink.get_routes():
            if route["dst_len"] == 0:
                hops = [route, *(route.get_attr("RTA_MULTIPATH") or ())]
                found += [hop.get_attr("RTA_GATEWAY") for hop in hops]
                found += [via["addr"] for hop in hops if (via := hop.get_attr("RTA_VIA"))]
    return [one for text in found if text for one in _literal(text, "a default gateway of this host")]


def _resolvers(_: Connection, __: Settings) -> Iterator[Protected]:
    for file in RESOLVER_FILES:
        try:
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()[:1000]
        except OSError:
            continue  # the second is systemd-resolved's, which most hosts do not run
        for words in map(str.split, lines):
            if words[:1] == ["nameserver"]:
                yield from _literal("".join(words[1:2]), "a name server of this host")


def _fleet(_: Connection, settings: Settings) -> Iterator[Protected]:
    return fleet(settings)


def fleet(settings: Settings) -> Iterator[Protected]:
    """The addresses of PostgreSQL, Redis and the broker.

    Raises:
        NmsError: one cannot be found.
        ConfigError: a URL cannot be read.
    """
    places = {
        "PostgreSQL": settings.database_url(),
        "Redis": settings.redis_url(),
        "the broker": settings.broker_url(),
    }
    hosts = [(host, f"{which} of the fleet") for which, url in places.items() for host in hosts_of(url)]
    for host, whose, addresses in _resolved(hosts):
        if not addresses:
            raise NmsError(
                f"the address of {host}, {whose}, cannot be found, so nobody can tell whether it would be cut off",
                hint="mend the name resolution of this host, or write addresses in place of names",
            )
        yield from (_found(address, f"{whose} ({host})") for address in addresses)


def _targets(connection: Connection, _: Settings) -> Iterator[Protected]:
    for host, whose, addresses in _resolved(_target_hosts(connection)):
        # One that nobody knows the address of stops nothing: with the name server down, cutting off may be the remedy.
        yield from (_found(address, f"{whose} ({host})") for address in addresses or ())


_FINDERS: Mapping[str, Callable[[Connection, Settings], Iterable[Protected]]] = {
    "interfaces": _interfaces,
    "gateways": _gateways,
    "resolvers": _resolvers,
    "fleet": _fleet,
    "targets": _targets,
}


@lru_cache(20_000)  # thousands of targets, the same for every job
def _found(address: IPv4Address | IPv6Address, whose: str) -> Protected:
    return Protected(ip_network(address), whose)


def _literal(text: str, whose: str) -> Iterator[Protected]:
    try:
        yield Protected(ip_network(text.partition("%")[0]), whose)
    except ValueError:
        log.warning("%r, %s, is not an address: it is not protected", text, whose)


def _resolved(hosts: list[tuple[str, str]]) -> Iterator[tuple[str, str, Addresses | None]]:
    found = _NAMES.addresses((host for host, _ in hosts), remaining(NAMES_LIMIT))
    return ((host, whose, found.get(host)) for host, whose in hosts)


def hosts_of(url: str) -> list[str]:
    """The hosts of a URL, also of several joined by `;` (kombu) or `,` (libpq); a Unix socket has none.

    Raises:
        ConfigError: it cannot be read. The message does not repeat it: it may hold a password.
    """
    found: list[str] = []
    for one in url.split(";"):
        try:
            parts = urlsplit(one)
            query = parse_qs(parts.query)
        except ValueError:
            raise ConfigError("a URL among the settings cannot be read", hint="scheme://host:port/path") from None
        named = query.get("host", []) + query.get("hostaddr", [])  # libpq, connection URIs
        found += map(_host, ",".join([parts.netloc.rpartition("@")[2], *named]).split(","))
    return [host for host in dict.fromkeys(found) if host]


def _host(place: str) -> str:
    """The host of `host`, `host:port`, `address`, `[address]:port`; empty where there is none."""
    if place.startswith("["):
        return place[1:].partition("]")[0].partition("%")[0]
    if _is_address(place):
        return place.partition("%")[0]
    host = place.partition(":")[0]
    return host if _HOST.match(host) else ""


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _target_hosts(connection: Connection) -> list[tuple[str, str]]:
    """Each host that a target's settings name, and whose it is."""
    there = targets.c.state.in_(("active", "paused"))
    version = connection.execute(select(func.count(), func.max(targets.c.updated_at)).where(there)).one()
    return _hosts_of_targets(connection, tuple(version))


@cached(TTLCache(4, TARGETS_KEPT), key=lambda connection, version: (connection.engine.url, version), lock=Lock())
def _hosts_of_targets(connection: Connection, _: tuple[object, ...]) -> list[tuple[str, str]]:
    there = targets.c.state.in_(("active", "paused"))
    rows = connection.execute(select(targets.c.service, targets.c.name, targets.c.settings).where(there))
    return [
        (host, f"the target {row.service}/{row.name}")
        for row in rows
        for host in dict.fromkeys(_settings_hosts(row.service, row.settings))
    ]


def _settings_hosts(service_name: str, settings: Mapping[str, object]) -> Iterator[str]:
    """The hosts that the settings of one target name, defaults included."""
    if service_name not in services():
        yield from _hosts_in(settings, "")
        return
    try:
        checked = service(service_name).Target.model_validate(settings)
    except ValidationError:  # written for another version of the service
        yield from _hosts_in(settings, "")
    else:
        yield from _hosts_in(checked, "")


def _hosts_in(value: object, key: str) -> Iterator[str]:
    """Addresses and URLs wherever they stand; names where the setting is called as in `HOST_KEYS`."""
    says_where = key.rpartition("_")[2].lower() in HOST_KEYS
    match value:
        case BaseModel():
            yield from _hosts_in(dict(value), key)
        case Mapping():
            for name, inner in value.items():
                yield from _hosts_in(inner, str(name))
        case list() | tuple() | set() | frozenset():
            for inner in value:
                yield from _hosts_in(inner, key)
        case Secret() if says_where:  # a URL that holds a password; no other secret is read here
            with suppress(ConfigError):  # it may be readable only beside the target, where this is looked at again
                yield from _hosts_in(value.reveal(), key)
        case str() if "://" in value:
            yield from hosts_of(value)
        case str() if says_where or _is_address(value):
            yield from filter(None, [_host(value)])
        case IPv4Address() | IPv6Address():
            yield str(value)
        case _:
            pass
