"""Settings: `nms.toml` plus environment, checked with the line and the reason, secrets only by reference.

Environment variables override the file: `NMS_` + section + `__` + key, `NMS_WORKERS__POLL_THREADS=50`.
The URLs of PostgreSQL, Redis and the broker are secrets, since they may hold a password.
"""

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fnmatch import fnmatchcase
from ipaddress import IPv6Network, ip_address
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    PlainSerializer,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from nms_workers.errors import ConfigError
from nms_workers.logs.streams import StreamName
from nms_workers.service import LONGEST, SHORTEST, TargetSettings, seconds, service, services
from nms_workers.services.snmp.target import AuthProtocol, PrivProtocol, UserName
from nms_workers.transport.secret import Secret


def _duration(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a duration is a number and a unit: 500ms, 30s, 5m, 1h, 2d")  # noqa: TRY004 - pydantic's way
    try:
        return seconds(value) if isinstance(value, str) else value
    except ConfigError as exc:
        raise ValueError(str(exc)) from None


def _duration_text(value: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if value % length == 0:
            return f"{value // length:g}{unit}"
    return f"{Decimal(repr(value)).normalize():f}s"  # never with an exponent: it must be readable again


def _interval(value: float) -> float:
    if not SHORTEST <= value <= LONGEST:
        raise ValueError(f"an interval is from {_duration_text(SHORTEST)} to {_duration_text(LONGEST)}")
    return value


Duration = Annotated[
    float, BeforeValidator(_duration), Field(gt=0, le=100 * 365 * 86_400), PlainSerializer(_duration_text)
]
Interval = Annotated[Duration, AfterValidator(_interval)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:@/-]{0,99}$")]


class Section(BaseModel):
    """Base of the sections: unknown keys are refused, a wrong value is never repeated in the message."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Database(Section):
    """PostgreSQL: the history. Default: $NMS_DATABASE_URL, else the one that `nms-workers up` starts."""

    url: Secret | None = None


class Redis(Section):
    """Redis: latest state, locks, and the broker unless another is named. Default: $NMS_REDIS_URL, else as above."""

    url: Secret | None = None


class Broker(Section):
    """Where Celery's messages live: `redis://...`, or `amqp://...` for RabbitMQ with quorum queues."""

    url: Secret | None = None


class Workers(Section):
    """How much runs at once in one process of each class."""

    poll_threads: int = Field(default=20, ge=1, le=500)
    control_threads: int = Field(default=4, ge=1, le=50)
    action_processes: int = Field(default=2, ge=1, le=64)
    edge_processes: int = Field(default=2, ge=1, le=64)


class Retention(Section):
    """How long history is kept."""

    samples: Duration = 30 * 86_400.0
    rollups_5m: Duration = 180 * 86_400.0
    rollups_1h: Duration = 730 * 86_400.0
    events: Duration = 90 * 86_400.0
    flows: Duration = 86_400.0
    flow_rollups_1m: Duration = 2 * 86_400.0
    flow_rollups_5m: Duration = 30 * 86_400.0
    flow_rollups_1h: Duration = 400 * 86_400.0
    poll_runs: Duration = 86_400.0

    def by_table(self) -> dict[str, timedelta]:
        """The same by the name of the table."""
        tables = {"samples": "sample_blocks", "flows": "flow_blocks"}
        tables |= {f"flow_rollups_{level}": f"flow_rollup_blocks_{level}" for level in ("1m", "5m", "1h")}
        return {tables.get(name, name): timedelta(seconds=getattr(self, name)) for name in type(self).model_fields}


class Spool(Section):
    """Where finished polls wait for PostgreSQL: a folder shared by the workers of a host, and how much it may hold."""

    folder: Path | None = None
    max_bytes: int = Field(default=2_000_000_000, ge=1_000_000)


def _listen(text: str) -> str:
    host, colon, port = text.rpartition(":")
    try:
        address = ip_address(host.removeprefix("[").removesuffix("]") if host.startswith("[") else host)
        whole = bool(colon) and port.isascii() and port.isdecimal() and int(port) <= 65_535
    except ValueError:
        whole = False
    if not whole or (address.version == 6) != host.startswith("["):
        raise ValueError("write an address and a port: 0.0.0.0:1162 or [::]:1162")
    return f"[{address}]:{int(port)}" if address.version == 6 else f"{address}:{int(port)}"


def _own_address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise ValueError("write an address") from None


ListenAddress = Annotated[str, AfterValidator(_listen)]
EngineId = Annotated[str, Field(pattern=r"^([0-9a-f]{2}){5,32}$")]  # RFC 3411: 5 to 32 bytes


class TrapUser(Section):
    """A user of SNMP version 3 who sends notifications.

    Args:
        username, auth_protocol, auth_key, priv_protocol, priv_key: as of an SNMP target. What is sent at a lower level
            of security than this is refused.
        engine_ids: of the agents that send traps as this user, as hexadecimal digits; informs need none.
    """

    username: UserName
    auth_protocol: AuthProtocol | None = None
    auth_key: Secret | None = None
    priv_protocol: PrivProtocol | None = None
    priv_key: Secret | None = None
    key_expansion: Literal["cisco", "blumenthal"] = "cisco"
    engine_ids: Annotated[tuple[EngineId, ...], Field(max_length=10_000)] = ()

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.auth_protocol is None) != (self.auth_key is None):
            raise ValueError("auth_protocol and auth_key belong together")
        if (self.priv_protocol is None) != (self.priv_key is None):
            raise ValueError("priv_protocol and priv_key belong together")
        if self.priv_protocol and not self.auth_protocol:
            raise ValueError("encryption needs authentication: set auth_protocol and auth_key")
        return self


class Traps(Section):
    """SNMP traps and informs; `docs/traps.md` explains it.

    Args:
        listen: addresses and ports; none: nothing is received. Port 162 needs root.
        share: let a second receiver listen at the same addresses (SO_REUSEPORT).
        communities: believed from every target, beside the community of its own settings.
        users: of version 3.
        sources: further addresses of targets: address to the name of an SNMP target.
        names: files that name further notifications, in the form of ours.
        mibs: folders of MIB files, which name what these do not. They hold all modules that theirs import from.
        window: in which what a device says again is only counted.
        events_per_window: different notifications of one device that are told in a window.
        receive_buffer: bytes asked of the kernel for what waits to be read.
        v3_per_second: messages of version 3 that are checked in a second; each costs milliseconds.
        nice: how far the receiver stands back behind polls where both want the processor.
    """

    listen: Annotated[tuple[ListenAddress, ...], Field(max_length=16)] = ()
    share: bool = False
    communities: Annotated[tuple[Secret, ...], Field(max_length=1000)] = ()
    users: Annotated[tuple[TrapUser, ...], Field(max_length=1000)] = ()
    sources: Annotated[dict[Annotated[str, AfterValidator(_own_address)], Name], Field(max_length=100_000)] = {}
    names: Annotated[tuple[Path, ...], Field(max_length=100)] = ()
    mibs: Annotated[tuple[Path, ...], Field(max_length=100)] = ()
    window: Annotated[Duration, Field(le=86_400)] = 60.0
    events_per_window: int = Field(default=100, ge=1, le=10_000)
    receive_buffer: int = Field(default=16_777_216, ge=2304, le=1_073_741_824)
    v3_per_second: int = Field(default=100, ge=1, le=10_000)
    nice: int = Field(default=5, ge=0, le=19)

    @model_validator(mode="after")
    def _users_once(self) -> Self:
        names = [user.username for user in self.users]
        if len(set(names)) != len(names):
            raise ValueError("a user is named twice: write one with all its engine_ids")
        return self


class Flows(Section):
    """NetFlow, IPFIX and sFlow; `docs/flows.md` explains it.

    Args:
        listen: addresses and ports; every format is taken at each of them; none: nothing is received.
        processes: that receive side by side at these addresses (SO_REUSEPORT); what one exporter sends from one port
            always comes to the same of them.
        exporters: networks of those who may send; empty: anybody.
        max_exporters: that are told apart; what further ones send is counted and left out.
        receive_buffer: bytes asked of the kernel for what waits to be read.
        batch, batch_age: how many flows are written together at most, and how long the first of them waits for that.
        waiting: flows between receiving and writing; what comes when there is no room is counted and left out.
        spool_bytes: of the folder where flows wait for PostgreSQL; what finds no room is counted and left out.
        conversations: of one exporter and minute that the roll-ups name, and ports, pairs of AS and interfaces; the
            others are one sum.
        country, autonomous_systems: databases in MaxMind's format that name what an address belongs to.
        scan_ports: one source to that many ports of one destination within `detection_window` is a port scan.
        fan_out: one source to that many destinations within it is a fan-out.
        nice: how far the collector stands back behind polls where both want the processor.
    """

    listen: Annotated[tuple[ListenAddress, ...], Field(max_length=16)] = ()
    processes: int = Field(default=1, ge=1, le=32)
    exporters: Annotated[tuple[IPvAnyNetwork, ...], Field(max_length=10_000)] = ()
    max_exporters: int = Field(default=1000, ge=1, le=100_000)
    receive_buffer: int = Field(default=33_554_432, ge=2304, le=1_073_741_824)
    batch: int = Field(default=20_000, ge=1, le=1_000_000)
    batch_age: Annotated[Duration, Field(le=60)] = 1.0
    waiting: int = Field(default=500_000, ge=1000, le=100_000_000)
    spool_bytes: int = Field(default=2_000_000_000, ge=1_000_000)
    conversations: int = Field(default=10_000, ge=10, le=1_000_000)
    country: Path | None = None
    autonomous_systems: Path | None = None
    scan_ports: int = Field(default=200, ge=10, le=65_535)
    fan_out: int = Field(default=500, ge=10, le=1_000_000)
    detection_window: Annotated[Duration, Field(ge=10, le=3600)] = 60.0
    nice: int = Field(default=0, ge=0, le=19)


def _log_path(text: str) -> str:
    if not text.startswith("/") or "**" in text or not text.isprintable() or text.endswith("/"):
        raise ValueError("write an absolute path of files; * ? [...] stand for parts of a name, ** does not")
    return text


LogPath = Annotated[str, Field(max_length=4096), AfterValidator(_log_path)]
Kind = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
ContainerPattern = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.*?-]{1,128}$")]


class LogFiles(Section):
    """Log files of one service.

    Args:
        paths: with `*`; what they were renamed or copied to when they were rotated is found by itself.
        service: its kind, `suricata`: decides the stream, and which lines belong together.
        name: which of them, where there are several.
        stream: another than the kind's.
        joining: another rule than the kind's, of nms_workers/logs/joining.toml; `none` leaves every line alone.
        start: of a file that is there when its path is first looked at.
    """

    paths: Annotated[tuple[LogPath, ...], Field(min_length=1, max_length=1000)]
    service: Kind | None = None
    name: Name | None = None
    stream: StreamName | None = None
    joining: Kind | None = None
    start: Literal["beginning", "end"] = "beginning"


class Logs(Section):
    """Logs of containers and files; `docs/logs.md` explains it.

    Args:
        elasticsearch: the target of this service to ship them to; None: they are kept as events in PostgreSQL.
        retention: in Elasticsearch by stream, where it is not 30, 90 and 180 days.
        docker: targets of the service `docker` whose containers are followed: those labelled `nms.service=true` or
            `nms.logs=true` ...
        containers: ... and those of these names, with `*`.
        files: see there.
        own: the fleet's own logs too, in <data>/logs.
        line_bytes, entry_lines, entry_bytes: what is longer is cut, or told in several parts.
        join_for: so long a line is waited for that may belong to the one before.
        lines_per_second: of one source; what says more is read more slowly.
        bulk_lines, bulk_bytes: what is sent at once.
        waiting_bytes: when so much waits to be sent, nothing more is read.
        max_files, max_containers: how many are followed.
        dead_letter_bytes: of each of the two files that keep what was refused for what it is.
    """

    elasticsearch: Name | None = None
    retention: dict[StreamName, Annotated[str, Field(pattern=r"^[1-9][0-9]{0,4}d$")]] = {}
    docker: Annotated[tuple[Name, ...], Field(max_length=100)] = ()
    containers: Annotated[tuple[ContainerPattern, ...], Field(max_length=1000)] = ()
    files: Annotated[tuple[LogFiles, ...], Field(max_length=1000)] = ()
    own: bool = False
    line_bytes: int = Field(default=16_000, ge=100, le=1_000_000)
    entry_lines: int = Field(default=500, ge=1, le=10_000)
    entry_bytes: int = Field(default=64_000, ge=1_000, le=4_000_000)
    join_for: Annotated[Duration, Field(le=60)] = 1.0
    lines_per_second: int = Field(default=10_000, ge=1, le=10_000_000)
    bulk_lines: int = Field(default=1_000, ge=1, le=50_000)
    bulk_bytes: int = Field(default=5_000_000, ge=10_000, le=50_000_000)
    waiting_bytes: int = Field(default=32_000_000, ge=100_000, le=1_000_000_000)
    max_files: int = Field(default=1_000, ge=1, le=10_000)
    max_containers: int = Field(default=100, ge=1, le=1_000)
    dead_letter_bytes: int = Field(default=10_000_000, ge=10_000, le=1_000_000_000)

    @property
    def any(self) -> bool:
        """Whether there is anything to ship."""
        return bool(self.docker or self.files or self.own)


class Web(Section):
    """Where Flower listens, and the metrics that processes are told to serve (`--metrics PORT`)."""

    host: str = "127.0.0.1"
    flower_port: int = Field(default=5555, ge=0, le=65_535)
    flower_auth: Secret | None = None
    metrics_host: str = "127.0.0.1"


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


TargetPattern = Annotated[str, Field(pattern=r"^(type|name|engine):[A-Za-z0-9_.:@/*?-]{1,100}$")]
NetworkPattern = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.*?-]{1,100}$")]
TargetPatterns = Annotated[tuple[TargetPattern, ...], Field(max_length=1000)]


def picks(patterns: Iterable[str], **facts: str) -> bool:
    """Whether one of these patterns (`type:redis`, `name:web-*`) fits what is known of a target by that word."""
    split = (pattern.partition(":") for pattern in patterns)
    return any(fact in facts and fnmatchcase(facts[fact], wanted) for fact, _, wanted in split)


class DockerDiscovery(Section):
    """Containers that say by their labels what they are become targets; `docs/discovery.md` explains it.

    Args:
        engines: names of docker targets of these settings; none: all of them.
        approve: those that become targets at once, by `type:`, `name:` or `engine:`; the others wait for a person.
        address: where they are reached: at their address in a network that the fleet shares, or at a published port.
        networks: of Docker, whose addresses are taken, the first that fits; patterns with `*`. None: any.
        published_at: the host of published ports that are bound to every address; default: where the engine is.
        resync: how often everything is looked at though no event came.
        max_targets: of one engine; what is over it is told and left out.
    """

    engines: Annotated[tuple[Name, ...], Field(max_length=1000)] = ()
    approve: TargetPatterns = ()
    address: Literal["container", "published"] = "container"
    networks: Annotated[tuple[NetworkPattern, ...], Field(max_length=100)] = ()
    published_at: Annotated[str, Field(pattern=r"^[A-Za-z0-9.:-]{1,253}$")] | None = None
    resync: Annotated[Duration, Field(ge=1, le=86_400)] = 300.0
    max_targets: int = Field(default=1000, ge=1, le=100_000)


class Discovery(Section):
    """What is found without being written down. SNMP agents: see the setting `discovery` of an SNMP target."""

    docker: DockerDiscovery | None = None


class Checks(Section):
    """What tells whether a target is healthy; all of it must be well.

    Args:
        poll: how its newest polls ended; when none ended since the last look, whether its port opens.
        tcp: whether its port opens; a number: this port.
        http: a path below the target's URL, asked with its credentials, that must answer with 2xx; or a whole URL.
        docker: the health that its container has of its own, where it is one.
        command: a program and its arguments on the host of the control worker, which must end with 0. Only where
            `health.commands` allows it.
    """

    poll: bool = True
    tcp: bool | Annotated[int, Field(ge=1, le=65_535, strict=True)] = False
    http: Annotated[str, Field(pattern=r"^(https?://[^\s@]+|/[^\s]*)$", max_length=1000)] | None = None
    docker: bool = True
    command: Annotated[tuple[Annotated[str, Field(max_length=1000)], ...], Field(max_length=50)] = ()


class Repair(Section):
    """Unhealthy containers are restarted, never more often than this.

    Args:
        allow: beside those with the label `nms.restart=true`.
        attempts, within: so many restarts of one target in this time; then it is given up, until it is healthy again.
        backoff: before the second attempt; twice as long before each one after it.
        per_minute: restarts of all targets together.
    """

    allow: TargetPatterns = ()
    attempts: int = Field(default=5, ge=1, le=100)
    within: Annotated[Duration, Field(le=7 * 86_400)] = 3600.0
    backoff: Annotated[Duration, Field(le=86_400)] = 30.0
    per_minute: int = Field(default=3, ge=1, le=1000)


class Health(Section):
    """Whether targets are healthy, and what is done when they are not; `docs/health.md` explains it.

    Args:
        every: how often all targets are looked at.
        failures, successes: in a row, before a target is unhealthy, or healthy again.
        timeout: seconds of one check.
        checks: by kind of service, where a target does not say it itself.
        commands: whether checks may run programs.
    """

    every: Interval = 30.0
    failures: int = Field(default=3, ge=1, le=100)
    successes: int = Field(default=2, ge=1, le=100)
    timeout: Annotated[Duration, Field(le=30)] = 5.0
    checks: dict[str, Checks] = {}
    commands: bool = False
    repair: Repair = Repair()


class TargetConfig(BaseModel):
    """One target. The keys below are the fleet's; every other key is a setting of the target's service."""

    model_config = ConfigDict(extra="allow", frozen=True, hide_input_in_errors=True)

    service: str
    name: Name
    every: dict[str, Interval] = {}
    skip: list[str] = []
    paused: bool = False
    max_series: int = Field(default=10_000, ge=1)
    worker: Name | None = None
    health: Checks | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """The service's own settings, as written."""
        return dict(self.__pydantic_extra__ or {})

    def validated(self) -> TargetSettings:
        """The service's own settings, checked."""
        return service(self.service).Target.model_validate(self.settings)


WRITTEN_BY_UP = "up.toml"


def data_home() -> Path:
    """`$XDG_DATA_HOME/nms-workers`."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "nms-workers"


class Settings(BaseSettings):
    """Everything that can be set. `Settings.load` reads it."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix="NMS_", env_nested_delimiter="__", extra="forbid", frozen=True, hide_input_in_errors=True
    )

    data: Path = Field(default_factory=data_home)
    database: Database = Database()
    redis: Redis = Redis()
    broker: Broker = Broker()
    workers: Workers = Workers()
    retention: Retention = Retention()
    spool: Spool = Spool()
    web: Web = Web()
    guards: Guards = Guards()
    traps: Traps = Traps()
    flows: Flows = Flows()
    discovery: Discovery = Discovery()
    health: Health = Health()
    logs: Logs = Logs()
    every: dict[str, Interval] = {}
    targets: list[TargetConfig] = []

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment comes before the file."""
        return env_settings, init_settings

    @property
    def spool_folder(self) -> Path:
        """Where finished polls wait for PostgreSQL."""
        return self.spool.folder or self.data / "spool"

    def database_url(self) -> str:
        """PostgreSQL's URL, password included."""
        return self._url(self.database.url, "NMS_DATABASE_URL", "postgres")

    def redis_url(self) -> str:
        """Redis' URL, password included."""
        return self._url(self.redis.url, "NMS_REDIS_URL", "redis")

    def broker_url(self) -> str:
        """The broker's URL, password included."""
        return self.broker.url.reveal() if self.broker.url else self.redis_url()

    def _url(self, named: Secret | None, variable: str, embedded: str) -> str:
        if named:
            return named.reveal()
        if variable in os.environ:
            return os.environ[variable]
        try:
            return Secret(f"file:{self.data / embedded / 'url'}").reveal()
        except ConfigError:
            raise ConfigError(
                f"where is {embedded}? {variable} is not set and `nms-workers up` never ran with {self.data}",
                hint=f"start `nms-workers up`, or set {variable}",
            ) from None

    @classmethod
    def load(cls, path: Path | None) -> "Settings":
        """Read and check the settings.

        Args:
            path: the TOML file; None: built-in defaults and environment only.

        Raises:
            ConfigError: every fault with its line and the reason, without values that might be secrets.
        """
        text = ""
        if path is not None:
            try:
                text = path.read_text(encoding="utf-8")
                values = tomllib.loads(text)
            except (OSError, UnicodeDecodeError) as exc:
                raise ConfigError(f"{path} cannot be read: {getattr(exc, 'strerror', exc)}") from None
            except tomllib.TOMLDecodeError as exc:
                raise ConfigError(f"{path} is not TOML: {exc}") from None
        else:
            values = {}
        lines = _lines(text)
        private = [((key,), "there is no such setting") for key in values if key.startswith("_")]
        if private:  # to pydantic-settings these are options of its own
            raise ConfigError(_faults(path, lines, private))
        try:
            settings = cls(**values)
        except ValidationError as exc:
            raise ConfigError(_faults(path, lines, _errors(exc))) from None
        except SettingsError as exc:
            hint = "a whole section is JSON; one key is NMS_<SECTION>__<KEY>"
            raise ConfigError(f"environment: {exc}", hint=hint) from None
        checks = (
            _target_faults(settings),
            _guard_faults(settings.guards),
            _found_faults(settings),
            _log_faults(settings),
        )
        if faults := [*chain.from_iterable(checks)]:
            raise ConfigError(_faults(path, lines, faults))
        return settings


def config_path() -> Path | None:
    """The settings file in force; None: there is none.

    `$NMS_CONFIG`, else `nms.toml` here, else in `$XDG_CONFIG_HOME/nms-workers`, else what `nms-workers up` wrote.
    """
    if named := os.environ.get("NMS_CONFIG"):
        return Path(named)
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "nms-workers" / "nms.toml"
    data = Path(os.environ.get("NMS_DATA") or data_home())
    return next((path for path in (Path("nms.toml"), home, data / WRITTEN_BY_UP) if path.is_file()), None)


Fault = tuple[tuple[str | int, ...], str]


def _errors(exc: ValidationError) -> list[Fault]:
    return [(error["loc"], error["msg"].removeprefix("Value error, ")) for error in exc.errors(include_input=False)]


def _target_faults(settings: Settings) -> Iterable[Fault]:
    """What is wrong with targets and intervals that only their services can tell."""
    known = {f"{kind}.{name}" for kind, one in services().items() for name in one.polls()}
    for poll in settings.every.keys() - known:
        yield ("every", poll), f"there is no poll {poll!r}; known: {', '.join(sorted(known))}"
    seen = set()
    for index, target in enumerate(settings.targets):
        here: tuple[str | int, ...] = ("targets", index)
        if (target.service, target.name) in seen:
            yield (*here, "name"), f"two {target.service} targets are named {target.name!r}"
        seen.add((target.service, target.name))
        if r"\u0000" in target.model_dump_json():  # PostgreSQL has no place for it
            yield here, "a setting holds the character NUL"
        try:
            polls = service(target.service).polls()
        except ConfigError as exc:
            yield (*here, "service"), str(exc)
            continue
        for key, names in (("every", target.every), ("skip", target.skip)):
            for poll in set(names) - polls.keys():
                yield (*here, key), f"{target.service} has no poll {poll!r}; it has {', '.join(polls)}"
        try:
            target.validated()
        except ValidationError as exc:
            yield from (((*here, *where), why) for where, why in _errors(exc))


def _found_faults(settings: Settings) -> Iterable[Fault]:
    """Names of kinds and engines that there are not."""
    for kind in settings.health.checks.keys() - services().keys():
        yield ("health", "checks", kind), f"there is no service {kind!r}; known: {', '.join(services())}"
    engines = {target.name for target in settings.targets if target.service == "docker"}
    if settings.discovery.docker is not None:
        for name in set(settings.discovery.docker.engines) - engines:
            yield ("discovery", "docker", "engines"), f"no docker target is named {name!r}"


def _guard_faults(guards: Guards) -> Iterable[Fault]:
    """Patterns that name no action: a slip of the pen in `deny` would protect nothing."""
    known = [f"{kind}.{name}" for kind, one in services().items() for name in one.actions()]
    places: list[tuple[tuple[str | int, ...], tuple[str, ...]]] = [
        (("allow",), guards.allow),
        (("deny",), guards.deny),
        *((("limits", number, "actions"), one.actions) for number, one in enumerate(guards.limits)),
        *((("windows", number, "actions"), one.actions) for number, one in enumerate(guards.windows)),
    ]
    for where, patterns in places:
        for pattern in patterns:
            action = pattern.partition("@")[0]
            if action != "*" and not any(matches((action,), one) for one in known):
                yield ("guards", *where), f"no action is named {pattern!r}; `nms-workers services` lists them"


def _log_faults(settings: Settings) -> Iterable[Fault]:
    """Targets that the section `logs` names and that are not there."""
    known = {(target.service, target.name) for target in settings.targets}
    named = [("docker", name) for name in settings.logs.docker]
    named += [("elasticsearch", settings.logs.elasticsearch)] if settings.logs.elasticsearch else []
    for kind, name in named:
        if (kind, name) not in known:
            yield ("logs", kind), f"there is no target of the service {kind} with the name {name!r}"


def _faults(path: Path | None, lines: Mapping[tuple[str | int, ...], int], faults: Iterable[Fault]) -> str:
    told = []
    environment = {name.upper() for name in os.environ}
    for where, why in faults:
        paths = [where[:end] for end in range(len(where), 0, -1)]
        line = next((lines[one] for one in paths if one in lines), None)
        variables = ("NMS_" + "__".join(map(str, one)).upper() for one in paths)
        source = next((name for name in variables if name in environment), None)  # it comes before the file
        source = source or (f"{path}:{line}" if line else str(path) if path else "environment")
        told.append((line or 0, f"{source}: {'.'.join(str(part) for part in where)}: {why}"))
    return "\n".join(text for _, text in sorted(told))


_HEADER = re.compile(r"\s*(\[\[?)\s*([^\]]+?)\s*\]")
_KEY = re.compile(r"\s*([A-Za-z0-9_\"'.-]+)\s*=")


def _lines(text: str) -> dict[tuple[str | int, ...], int]:
    """The line of every table and key, by its path as pydantic names it. tomllib does not keep positions."""
    found: dict[tuple[str | int, ...], int] = {}
    counts: dict[str, int] = {}
    table: tuple[str | int, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            name = header[2].replace('"', "").replace("'", "")
            table = tuple(name.split("."))
            if header[1] == "[[":
                counts[name] = counts.get(name, -1) + 1
                table = (*table, counts[name])
            elif table[0] in counts:  # a sub-table of the last element of an array
                table = (table[0], counts[str(table[0])], *table[1:])
            found.setdefault(table, number)
        elif key := _KEY.match(line):
            parts = key[1].replace('"', "").replace("'", "").split(".")
            found.setdefault((*table, *parts), number)
            found.setdefault((*table, key[1].strip("\"'")), number)
    return found
