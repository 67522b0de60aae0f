"""What a job may not touch, and when."""

from collections.abc import Iterable
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from ipaddress import IPv6Network
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import (
    AfterValidator,
    AwareDatetime,
    Field,
    IPvAnyNetwork,
    model_validator,
)

from nms_workers.settings.section import Duration, Section


def matches(patterns: Iterable[str], service_action: str, target: str = "") -> bool:
    """Whether one of these patterns names the action, written `service.action`, at this target."""
    split = (pattern.partition("@") for pattern in patterns)
    return any(fnmatchcase(service_action, one) and (not at or fnmatchcase(target, where)) for one, at, where in split)


_ACTION = r"(\*|(\*|[A-Za-z][A-Za-z0-9_-]*)\.(\*|[A-Za-z_][A-Za-z0-9_]*))"


ActionPattern = Annotated[str, Field(pattern=rf"^{_ACTION}$")]


ActionPatterns = Annotated[tuple[ActionPattern, ...], Field(max_length=100)]


TargetedPattern = Annotated[str, Field(pattern=rf"^{_ACTION}(@[A-Za-z0-9_.:@/*-]{{1,100}})?$")]


TargetedPatterns = Annotated[tuple[TargetedPattern, ...], Field(max_length=100)]


class Limit(Section):
    """At most so many jobs in any `within`, counted for each requester, or for each action whoever asks."""

    per: Literal["requester", "action"]
    jobs: int = Field(ge=1, le=1_000_000)
    within: Annotated[Duration, Field(le=7 * 86_400)]
    actions: ActionPatterns = ("*",)


class Window(Section):
    """A time in which actions may run, or must not.

    Args:
        rule: `only`: these actions run in windows that say so, and at no other time; `never`: not in this one.
        cron: minute, hour, day of month, month, day of week (crontab(5)), in `zone`: each time a window opens.
        lasts: for how long it is open then.
        zone: a name of the IANA time zone database.
        since, until: in place of the four above: one window, from then (included) until then (not included).
    """

    rule: Literal["only", "never"]
    actions: TargetedPatterns = ("*",)
    cron: str | None = Field(default=None, max_length=200)
    lasts: Annotated[Duration, Field(le=366 * 86_400)] | None = None
    zone: str = Field(default="UTC", max_length=100)
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        given = [name for name in ("cron", "lasts", "since", "until") if getattr(self, name) is not None]
        if given not in (["cron", "lasts"], ["since", "until"]):
            raise ValueError("write either cron and lasts, or since and until")
        if self.since and self.until and self.since >= self.until:
            raise ValueError("it ends before it begins")
        if self.cron is not None:
            _check_cron(self.cron, self.zone)
        return self


def _check_cron(cron: str, zone: str) -> None:
    try:
        place = ZoneInfo(zone)
    except (ValueError, KeyError, OSError):
        raise ValueError(f"there is no time zone {zone!r}: write one as Europe/Berlin") from None
    try:
        comes = len(cron.split()) == 5 and next(CronSim(cron, datetime.now(UTC).astimezone(place)), None)
    except CronSimError as exc:
        raise ValueError(f"{cron!r} is not a time as crontab(5) writes it: {exc}") from None
    if not comes:
        raise ValueError(f"{cron!r} has not five fields, or never comes")


def _nat64(prefix: IPv6Network) -> IPv6Network:
    if prefix.prefixlen not in (32, 40, 48, 56, 64, 96):
        raise ValueError("a NAT64 prefix is /32, /40, /48, /56, /64 or /96 (RFC 6052)")
    return prefix


Nat64Prefix = Annotated[IPv6Network, AfterValidator(_nat64)]


InterfacePattern = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.@+*-]{1,15}$")]


Finder = Literal["interfaces", "gateways", "resolvers", "fleet", "targets"]


class Guards(Section):
    """What is looked at before a job may touch anything; `docs/guards.md` explains it.

    Args:
        protected: networks that no action may cut off, neither whole nor in part.
        find: whose addresses are found and protected too: this host's own, its default gateways and name servers, the
            broker, PostgreSQL and Redis (`fleet`), every target.
        widest_ipv4, widest_ipv6: the shortest prefix length an action may cut off.
        nat64: NAT64 prefixes of the provider's own, whose addresses carry IPv4 ones (RFC 6052).
        free_interfaces: interfaces that may be shaped, limited and cleared though the fleet is reached through them;
            names with `*`.
        allow, deny: actions that may run, `service.action` or `service.action@target`, with `*`; deny comes first.
    """

    protected: Annotated[tuple[IPvAnyNetwork, ...], Field(max_length=10_000)] = ()
    find: tuple[Finder, ...] = ("interfaces", "gateways", "resolvers", "fleet", "targets")
    widest_ipv4: int = Field(default=24, ge=0, le=32)
    widest_ipv6: int = Field(default=64, ge=0, le=128)
    nat64: Annotated[tuple[Nat64Prefix, ...], Field(max_length=100)] = ()
    free_interfaces: Annotated[tuple[InterfacePattern, ...], Field(max_length=100)] = ()
    allow: TargetedPatterns = ("*",)
    deny: TargetedPatterns = ()
    limits: Annotated[tuple[Limit, ...], Field(max_length=100)] = (
        Limit(per="requester", jobs=2_000, within=600.0),
        Limit(per="action", jobs=5_000, within=600.0),
    )
    windows: Annotated[tuple[Window, ...], Field(max_length=100)] = ()
