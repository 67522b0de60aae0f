"""The settings of one ntopng."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from nms_workers.transport.http import HttpSettings

Family = Literal["flow", "host", "interface", "mac", "network", "system", "user"]
InterfaceName = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f]{1,255}$")]

_FAMILIES: tuple[Family, ...] = ("flow", "host", "interface", "mac", "network", "system", "user")


class NtopngTarget(HttpSettings):
    """One ntopng, 5 or later (REST API v2).

    Give it a user of its own: ntopng keeps the page size of the last request as that user's preference.

    Args:
        token, token_scheme: a token of an ntopng user, sent as `Authorization: Token ...`.
        username, password: HTTP basic, in place of a token.
        interfaces: names or ids of the interfaces that are read; none: all that ntopng watches.
        hosts: which hosts are told: `all`, those of local networks, or the others.
        max_interfaces: how many interfaces are read; more are told, and left out.
        max_hosts: how many hosts of each interface are told, those with the most traffic; each costs one request.
        max_flows: how many active flows of each interface are told, those with the most throughput.
        max_protocols: how many applications and protocols of each interface get series, the greatest first.
        max_alerts: how many alerts of each family and interface one poll takes.
        alert_families: whose alerts are told.
        alert_history: seconds that a first look at past alerts goes back.
    """

    token_scheme: str = Field(default="Token", pattern=r"^[A-Za-z0-9-]+$")
    interfaces: tuple[InterfaceName, ...] = Field(default=(), max_length=1000)
    hosts: Literal["all", "local", "remote"] = "all"
    max_interfaces: PositiveInt = 64
    max_hosts: NonNegativeInt = Field(default=20, le=1000)
    max_flows: NonNegativeInt = Field(default=100, le=5000)
    max_protocols: PositiveInt = 200
    max_alerts: PositiveInt = Field(default=500, le=5000)
    alert_families: tuple[Family, ...] = _FAMILIES
    alert_history: PositiveInt = 3600
