"""Answers of Elasticsearch that are small enough to have a shape, with the fields that are used.

Source: https://www.elastic.co/docs/api/doc/elasticsearch. Times are milliseconds since 1970 unless they say otherwise.
"""

from itertools import takewhile
from typing import Annotated, Any

from msgspec import Meta, Struct, field


class Version(Struct, frozen=True):
    """Of the cluster. `distribution` is told by OpenSearch alone."""

    number: Annotated[str, Meta(pattern=r"^[0-9]+\.[0-9]+")]
    build_flavor: str = "default"
    distribution: str = ""

    @property
    def release(self) -> tuple[int, int]:
        """Major and minor, to compare by."""
        major, minor = self.number.split(".")[:2]
        return int(major), int("".join(takewhile(str.isdigit, minor)))


class Root(Struct, frozen=True):
    """What a cluster says of itself."""

    cluster_name: str
    version: Version
    tagline: str
    cluster_uuid: str = ""


class Impact(Struct, frozen=True):
    """What an indicator that is not green does to the cluster; `severity` 1 is the worst."""

    description: str
    severity: int = 0


class Diagnosis(Struct, frozen=True):
    """Why an indicator is not green, and what to do."""

    cause: str
    action: str
    help_url: str = ""


class Indicator(Struct, frozen=True):
    """One indicator of the health report. `status` is `green`, `yellow`, `red` or `unknown`."""

    status: str
    symptom: str = ""
    impacts: tuple[Impact, ...] = ()
    diagnosis: tuple[Diagnosis, ...] = ()
    details: dict[str, Any] = {}


class HealthReport(Struct, frozen=True):
    """The health report; a single indicator's answer has no status of its own."""

    indicators: dict[str, Indicator]
    status: str = "unknown"


class CatNode(Struct, frozen=True):
    """One line of `_cat/nodes`."""

    id: str
    name: str
    version: str = ""
    jdk: str = ""
    master: str = "-"


class CatIndex(Struct, frozen=True):
    """One line of `_cat/indices`; a closed or red index has no numbers."""

    index: str
    status: str
    health: str = ""
    uuid: str = ""
    pri: str = "0"
    rep: str = "0"
    docs_count: str | None = field(default=None, name="docs.count")
    docs_deleted: str | None = field(default=None, name="docs.deleted")
    store_size: str | None = field(default=None, name="store.size")
    pri_store_size: str | None = field(default=None, name="pri.store.size")

    @property
    def bytes(self) -> int:
        """Size with all copies; 0 where none is told."""
        return int(self.store_size or 0)


class CatShard(Struct, frozen=True):
    """One line of `_cat/shards`; `prirep` is `p` or `r`."""

    index: str
    shard: str
    prirep: str
    state: str
    reason: str | None = field(default=None, name="unassigned.reason")
    since: str | None = field(default=None, name="unassigned.at")
    details: str | None = field(default=None, name="unassigned.details")


class Task(Struct, frozen=True):
    """Something a node does. `type` is `persistent` for what runs for ever."""

    action: str
    running_time_in_nanos: int
    node: str = ""
    id: int = 0
    type: str = ""
    description: str = ""
    parent_task_id: str = ""
    cancellable: bool = False


class Tasks(Struct, frozen=True):
    """All tasks."""

    tasks: tuple[Task, ...] = ()


class FollowedTask(Struct, frozen=True):
    """A task that was started to be looked at later."""

    completed: bool
    error: dict[str, Any] | None = None
    response: dict[str, Any] | None = None


class StartedTask(Struct, frozen=True):
    """The name of such a task."""

    task: str


class IlmIndex(Struct, frozen=True):
    """Where an index is in its life, by index lifecycle management."""

    index: str
    managed: bool = True
    policy: str = ""
    phase: str = ""
    action: str = ""
    step: str = ""
    failed_step: str = ""
    failed_step_retry_count: int = 0
    step_info: dict[str, Any] = {}


class IlmExplain(Struct, frozen=True):
    """Indices that index lifecycle management manages."""

    indices: dict[str, IlmIndex] = {}


class OperationMode(Struct, frozen=True):
    """Whether lifecycle management is `RUNNING`, `STOPPING` or `STOPPED`."""

    operation_mode: str


class StreamLifecycle(Struct, frozen=True):
    """How the data stream lifecycle does with one data stream."""

    name: str
    backing_indices_in_total: int = 0
    backing_indices_in_error: int = 0


class LifecycleStats(Struct, frozen=True):
    """How the data stream lifecycle does."""

    data_stream_count: int = 0
    data_streams: tuple[StreamLifecycle, ...] = ()
    last_run_duration_in_millis: int | None = None
    time_between_starts_in_millis: int | None = None


class LifecycleIndex(Struct, frozen=True):
    """A backing index as the data stream lifecycle sees it. `error` is text, or JSON since 8.14."""

    index: str = ""
    error: str | dict[str, Any] | None = None


class LifecycleExplain(Struct, frozen=True):
    """Backing indices of data streams."""

    indices: dict[str, LifecycleIndex] = {}


class Repository(Struct, frozen=True):
    """Where snapshots are kept. Its settings are not read: they may hold credentials."""

    type: str


class ShardCounts(Struct, frozen=True):
    """Of a snapshot."""

    total: int = 0
    failed: int = 0


class Snapshot(Struct, frozen=True):
    """One snapshot. `state` is `SUCCESS`, `PARTIAL`, `FAILED`, `IN_PROGRESS` or `INCOMPATIBLE`."""

    snapshot: str
    state: str
    start_time_in_millis: int = 0
    end_time_in_millis: int = 0
    duration_in_millis: int = 0
    reason: str | None = None
    shards: ShardCounts = ShardCounts()


class Snapshots(Struct, frozen=True):
    """The newest snapshots of a repository, newest first; `total` counts all."""

    snapshots: tuple[Snapshot, ...] = ()
    total: int = 0


class Lifecycle(Struct, frozen=True):
    """How long a data stream keeps its data; None: for ever."""

    enabled: bool = True
    data_retention: str | None = None
    effective_retention: str | None = None
    downsampling: Any = None
    downsampling_method: str | None = None


class BackingIndex(Struct, frozen=True):
    """One index of a data stream."""

    index_name: str


class DataStream(Struct, frozen=True):
    """A data stream; `managed_by` is told since 8.11."""

    name: str
    indices: tuple[BackingIndex, ...] = ()
    system: bool = False
    ilm_policy: str | None = None
    prefer_ilm: bool = True
    managed_by: str | None = field(default=None, name="next_generation_managed_by")
    lifecycle: Lifecycle | None = None


class DataStreams(Struct, frozen=True):
    """Data streams."""

    data_streams: tuple[DataStream, ...]


class InUseBy(Struct, frozen=True):
    """Who has a policy."""

    indices: tuple[str, ...] = ()
    data_streams: tuple[str, ...] = ()
    composable_templates: tuple[str, ...] = ()


class PolicyBody(Struct, frozen=True):
    """What a policy does: phases by name, and what its makers noted."""

    phases: dict[str, Any] = {}
    meta: dict[str, Any] | None = field(default=None, name="_meta")


class Policy(Struct, frozen=True):
    """A policy of index lifecycle management."""

    policy: PolicyBody
    version: int = 0
    in_use_by: InUseBy = InUseBy()


class ShardCopy(Struct, frozen=True):
    """Segments of one copy of a shard."""

    num_search_segments: int = 0


class IndexSegments(Struct, frozen=True):
    """Copies by number of the shard."""

    shards: dict[str, tuple[ShardCopy, ...]] = {}


class Segments(Struct, frozen=True):
    """Segments by index."""

    indices: dict[str, IndexSegments] = {}


class IndexBody(Struct, frozen=True):
    """An index as it is configured; settings are flat."""

    aliases: dict[str, Any] = {}
    mappings: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    data_stream: str | None = None

    @property
    def uuid(self) -> str:
        """Names the index for as long as it lives; another of the same name has another."""
        return str(self.settings.get("index.uuid", ""))


class Hit(Struct, frozen=True):
    """One document that was found. `sort` leads to the next page."""

    id: str = field(name="_id")
    index: str = field(name="_index")
    source: dict[str, Any] = field(default={}, name="_source")
    score: float | None = field(default=None, name="_score")
    fields: dict[str, Any] = {}
    sort: tuple[Any, ...] = ()


class Hits(Struct, frozen=True):
    """Documents of one page."""

    hits: tuple[Hit, ...] = ()


class Page(Struct, frozen=True):
    """One page of a search. `pit_id` names the point in time for the next."""

    hits: Hits
    timed_out: bool = False
    pit_id: str = ""


class PointInTime(Struct, frozen=True):
    """A view of indices that does not change."""

    id: str


class Count(Struct, frozen=True):
    """How many documents."""

    count: int
