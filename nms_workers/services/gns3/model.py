"""What GNS3 tells of its objects, in the words of both API versions.

Source: https://apiv3.gns3.net and https://gns3-server.readthedocs.io/en/stable/api/v2/controller.html
"""

from typing import Any
from uuid import UUID

from msgspec import Struct


class Version(Struct, frozen=True):
    """The server's version; `api` is 2 or 3."""

    version: str
    api: int = 0


class Capabilities(Struct, frozen=True):
    """What a compute can do; all empty until the controller has spoken to it."""

    version: str | None = None
    platform: str | None = None
    node_types: tuple[str, ...] = ()
    cpus: int | None = None
    memory: int | None = None  # bytes
    disk_size: int | None = None  # bytes


class Compute(Struct, frozen=True):
    """A server that runs nodes. `connected` is None where the server does not say (version 3 lists)."""

    compute_id: str
    name: str
    host: str = ""
    port: int | None = None
    connected: bool | None = None
    cpu_usage_percent: float | None = None
    memory_usage_percent: float | None = None
    last_error: str | None = None
    capabilities: Capabilities | None = None


class Load(Struct, frozen=True):
    """How busy a compute is: bytes and percent. `load_average_percent` is over 1, 5 and 15 minutes, 100 is all CPUs."""

    memory_total: float
    memory_free: float
    memory_used: float
    swap_total: float
    swap_free: float
    swap_used: float
    cpu_usage_percent: float
    memory_usage_percent: float
    swap_usage_percent: float
    disk_usage_percent: float
    load_average_percent: tuple[float, float, float]


class Statistics(Struct, frozen=True):
    """The load of one compute."""

    compute_id: str
    compute_name: str
    statistics: Load


class Project(Struct, frozen=True):
    """A lab. `status` is `opened` or `closed`."""

    project_id: UUID
    name: str
    status: str
    auto_start: bool = False
    auto_open: bool = False
    auto_close: bool = True


class ProjectStats(Struct, frozen=True):
    """What an open project holds; a closed one counts as empty, but for its snapshots."""

    nodes: int
    links: int
    drawings: int
    snapshots: int


class Port(Struct, frozen=True):
    """An interface of a node. GNS3 keeps no counters of them."""

    name: str
    adapter_number: int
    port_number: int
    short_name: str = ""
    link_type: str = "ethernet"
    mac_address: str | None = None
    data_link_types: dict[str, str] = {}


class Node(Struct, frozen=True):
    """A device of a lab. `status` is `started`, `stopped` or `suspended`; a closed project tells none, nor ports."""

    node_id: UUID
    name: str
    node_type: str
    compute_id: str
    status: str | None = None
    console: int | None = None
    console_type: str | None = None
    console_host: str | None = None
    template_id: UUID | None = None
    ports: tuple[Port, ...] | None = None


class LinkEnd(Struct, frozen=True):
    """One end of a link."""

    node_id: UUID
    adapter_number: int
    port_number: int


class Link(Struct, frozen=True):
    """A cable between two ports."""

    link_id: UUID
    nodes: tuple[LinkEnd, ...]
    link_type: str | None = None
    capturing: bool | None = None
    capture_file_name: str | None = None
    suspend: bool | None = None
    filters: dict[str, Any] | None = None


class Template(Struct, frozen=True):
    """What nodes are made from."""

    template_id: UUID
    name: str
    template_type: str
    category: str | None = None
    builtin: bool = False
    compute_id: str | None = None


class Snapshot(Struct, frozen=True):
    """A kept state of a project; `created_at` is seconds since 1970. Version 3 gives new ids at each opening."""

    snapshot_id: UUID
    name: str
    created_at: int
