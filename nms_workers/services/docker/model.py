"""What an engine tells of its objects, as far as we look at it. https://docs.docker.com/reference/api/engine/"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

LABEL = "nms.service"


class Version(msgspec.Struct, frozen=True):
    """The engine and the API that it is spoken to with."""

    version: str
    api: str
    product: str = "Docker"


class Network(msgspec.Struct, frozen=True, rename="pascal"):
    """A container's place in a network."""

    ip_address: str | None = msgspec.field(name="IPAddress", default="")
    network_id: str | None = msgspec.field(name="NetworkID", default="")
    aliases: tuple[str, ...] | None = ()


class NetworkSettings(msgspec.Struct, frozen=True, rename="pascal"):
    """All places of a container in networks, and its ports by `8080/tcp`."""

    networks: Mapping[str, Network] | None = None
    ports: Mapping[str, Any] | None = None


class Summary(msgspec.Struct, frozen=True, rename="pascal"):
    """A container as the list has it. `created` is in seconds of the epoch."""

    id: str = msgspec.field(name="Id")
    image: str
    image_id: str = msgspec.field(name="ImageID")
    state: str
    status: str
    created: int
    names: tuple[str, ...] | None = ()
    labels: Mapping[str, str] | None = None
    network_settings: NetworkSettings = NetworkSettings()

    @property
    def networks(self) -> Mapping[str, Network]:
        """Its networks by name."""
        return self.network_settings.networks or {}

    @property
    def name(self) -> str:
        """Its own name, without the slash and without those by which others link to it."""
        own = [one.lstrip("/") for one in self.names or () if one.count("/") == 1]
        return own[0] if own else self.id[:12]


class Health(msgspec.Struct, frozen=True, rename="pascal"):
    """What the health check of a container says: `starting`, `healthy`, `unhealthy`; `none` without one."""

    status: str = "none"
    failing_streak: int = 0
    log: tuple[Mapping[str, Any], ...] | None = ()


class State(msgspec.Struct, frozen=True, rename="pascal"):
    """`status`: `created running paused restarting removing exited dead`."""

    status: str
    running: bool = False
    paused: bool = False
    restarting: bool = False
    oom_killed: bool = msgspec.field(name="OOMKilled", default=False)
    dead: bool = False
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    started_at: str = ""
    finished_at: str = ""
    health: Health | None = None


class Config(msgspec.Struct, frozen=True, rename="pascal"):
    """What a container was made with."""

    image: str = ""
    labels: Mapping[str, str] | None = None
    tty: bool = False


class Mount(msgspec.Struct, frozen=True, rename="pascal"):
    """Something mounted in a container: `bind volume tmpfs`; `name` of a volume."""

    type: str = ""
    name: str = ""
    source: str = ""
    destination: str = ""
    rw: bool = msgspec.field(name="RW", default=True)


class Limits(msgspec.Struct, frozen=True, rename="pascal"):
    """Limits of a container: bytes, billionths of a CPU, processes; 0 or None: none."""

    memory: int = 0
    memory_swap: int = 0
    nano_cpus: int = 0
    cpu_quota: int = 0
    cpu_period: int = 0
    pids_limit: int | None = None
    cgroup: str = ""

    @property
    def cpus(self) -> float:
        """CPUs it may use, however that was said; 0: all."""
        if self.nano_cpus:
            return self.nano_cpus / 1e9
        return self.cpu_quota / (self.cpu_period or 100_000) if self.cpu_quota > 0 else 0.0


class Container(msgspec.Struct, frozen=True, rename="pascal"):
    """A container as inspected."""

    id: str = msgspec.field(name="Id")
    slashed: str = msgspec.field(name="Name")
    created: datetime
    image: str
    state: State
    config: Config
    limits: Limits = msgspec.field(name="HostConfig")
    network_settings: NetworkSettings
    restart_count: int = 0
    mounts: tuple[Mount, ...] | None = ()

    @property
    def name(self) -> str:
        """Its name."""
        return self.slashed.lstrip("/")

    @property
    def labels(self) -> Mapping[str, str]:
        """Its labels."""
        return self.config.labels or {}

    @property
    def health(self) -> Health:
        """What its health check says."""
        return self.state.health or Health()

    @property
    def networks(self) -> Mapping[str, Network]:
        """Its networks by name."""
        return self.network_settings.networks or {}


class Actor(msgspec.Struct, frozen=True, rename="pascal"):
    """What an event is about."""

    id: str = msgspec.field(name="ID", default="")
    attributes: Mapping[str, str] = {}


class EngineEvent(msgspec.Struct, frozen=True, rename="pascal"):
    """Something that happened at the engine. `at` is in nanoseconds of the epoch."""

    type: str = ""
    action: str = ""
    actor: Actor = Actor()
    at: int = msgspec.field(name="timeNano", default=0)

    @property
    def name(self) -> str:
        """Of what it is about."""
        return self.actor.attributes.get("name") or self.actor.id[:64]


class LogLine(msgspec.Struct, frozen=True):
    """One line that a container wrote.

    Args:
        at: when, in nanoseconds of the epoch; 0: the engine does not tell.
        stream: `stdout` or `stderr`; a container with a terminal has the first only.
        text: without its line feed.
        cut: it was longer than we take.
    """

    at: int
    stream: str
    text: str
    cut: bool = False


class FoundService(msgspec.Struct, frozen=True):
    """A container that offers a service of ours, by its labels.

    Args:
        name, type, port: of `nms.service.name`, `.type`, `.port`; the name of the container where none is given.
        addresses: by network.
        settings: of `nms.service.target.*` or `nms.target.*`.
    """

    container_id: str
    container: str
    name: str
    type: str
    port: int | None
    addresses: Mapping[str, str]
    settings: Mapping[str, str]


class ServiceHealth(msgspec.Struct, frozen=True):
    """How a container is: `healthy` is None where it has no health check and runs."""

    container: str
    state: str
    health: str
    failing_streak: int
    restarts: int
    healthy: bool | None
    output: str = ""
