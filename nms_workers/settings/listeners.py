"""Sections of the processes that listen: traps, flows and logs."""

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    IPvAnyNetwork,
    model_validator,
)

from nms_workers.logs.streams import StreamName
from nms_workers.services.snmp.target import AuthProtocol, PrivProtocol, UserName
from nms_workers.settings.section import Duration, Name, Section
from nms_workers.transport.secret import Secret


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
    sources: Annotated[dict[Annotated[str, AfterValidator(_own_address)], Name], Field(max_length=100_000)] = Field(
        default_factory=dict
    )
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
    retention: dict[StreamName, Annotated[str, Field(pattern=r"^[1-9][0-9]{0,4}d$")]] = Field(default_factory=dict)
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
