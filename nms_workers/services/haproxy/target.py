"""The settings of one HAProxy, and what its objects may be called."""

from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Any, Literal, Self, cast
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from nms_workers.transport.http import HttpSettings

# HAProxy takes no other names of proxies and servers; a first dot would be another place in a URL.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_:-][A-Za-z0-9_.:-]{0,254}$")]
Port = Annotated[int, Field(ge=1, le=65_535)]
Weight = Annotated[int, Field(ge=0, le=256)] | Annotated[str, Field(pattern=r"^([0-9]{1,2}|100)%$")]
State = Literal["ready", "drain", "maint"]


def _without_interface(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise ValueError("an address of one interface (fe80::1%eth0) is none that HAProxy takes")
    return address


ServerAddress = Annotated[IPv4Address | IPv6Address, AfterValidator(_without_interface)]


def _socket(text: str) -> str:
    if text.startswith("/") and text.isprintable():
        return text
    parts = urlsplit(text)
    plain = parts.scheme == "tcp" and parts.hostname and parts.port and text.isprintable()
    if not plain or "@" in parts.netloc or parts.path or parts.query or parts.fragment:
        raise ValueError("write an absolute path, or tcp://host:port")
    return text


class DataPlane(HttpSettings):
    """HAProxy's Data Plane API, version 2 or 3, which stands beside it.

    Args:
        url: without `/v2` and `/v3`: the newest it has is taken.
        username, password: of a user of its `userlist`.
        reload_timeout: seconds a reload may take, from when it was asked for.
    """

    reload_timeout: PositiveFloat = 60.0

    @model_validator(mode="after")
    def _one(self) -> Self:
        """A transaction lives in one API alone."""
        if self.urls:
            raise ValueError("write url: the Data Plane API of this one HAProxy")
        return self


class HaproxyTarget(HttpSettings):
    """One HAProxy process, by one or more of three ways. What can be read by the socket is read there.

    Args:
        url: of the statistics page, `http://host:8404/stats`. It gives the statistics and nothing else.
        stats_query: where its `stats uri` has a query: `stats` for the default, `/haproxy?stats`.
        stats_format: what the page is read as. JSON is ten times as long and says the same, but cannot be read where
            the name of a listener holds a quote.
        username, password: of `stats auth`.
        socket: the `stats socket`, as its path or as `tcp://host:port`. Changes want `level admin`. With `nbproc` (up
            to HAProxy 2.4) each process has a socket of its own, and is a target of its own.
        socket_timeout: seconds for one whole answer of the socket.
        dataplane: settings of the Data Plane API: `url`, `username`, `password` and all else of HTTP. It makes changes
            that last beyond a restart.
        max_objects: frontends, backends, servers and listeners whose numbers are kept, in this order. Each has up to 65
            series, a frontend of HAProxy 3 twice as many, so raise it together with the target's `max_series`.
        max_tables: sticky tables that are read.
        table_entries: keys of each sticky table that are read; 0 for none.
        max_certificates: certificate files that are looked at.
        certificate_days: an event fires when a certificate ends in less.
    """

    stats_query: str = Field(default="", pattern=r"^[A-Za-z0-9_.~/-]*$")
    stats_format: Literal["csv", "json"] = "csv"
    socket: Annotated[str, AfterValidator(_socket)] | None = None
    socket_timeout: PositiveFloat = 10.0
    dataplane: DataPlane | None = None
    max_objects: PositiveInt = 150
    max_tables: PositiveInt = 100
    table_entries: NonNegativeInt = 0
    max_certificates: PositiveInt = 500
    certificate_days: PositiveInt = 21

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        """As in all that is spoken to over HTTP, when there is a page to speak to."""
        if self.urls:
            raise ValueError("a target is one process with its own counters: write url, and a target for each process")
        if not (self.url or self.socket or self.dataplane):
            raise ValueError("set url, socket or dataplane")
        if self.url:
            return cast("Self", cast("Any", super())._fits_together())
        return self
