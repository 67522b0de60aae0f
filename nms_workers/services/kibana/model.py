"""What Kibana tells of itself and of its objects, in the words of its API.

Source: https://www.elastic.co/docs/api/doc/kibana
"""

from typing import Any

from msgspec import Struct, field


class ServiceStatus(Struct, frozen=True):
    """How one service or plugin is; `level` is `available`, `degraded`, `unavailable` or `critical`."""

    level: str
    summary: str = ""
    detail: str | None = None


class Statuses(Struct, frozen=True):
    """The status of the whole, of the core services and of the plugins by name."""

    overall: ServiceStatus
    core: dict[str, ServiceStatus] = {}
    plugins: dict[str, ServiceStatus] = {}


class Version(Struct, frozen=True):
    """`number` such as `9.4.1`; `build_flavor` is `traditional` or `serverless`."""

    number: str
    build_flavor: str = "traditional"
    build_snapshot: bool = False

    def at_least(self, major: int, minor: int) -> bool:
        """Whether it is this release or a later one."""
        parts = self.number.split(".")
        if len(parts) < 2 or not all(part.isascii() and part.isdigit() for part in parts[:2]):
            return False
        return (int(parts[0]), int(parts[1])) >= (major, minor)


class Status(Struct, frozen=True):
    """`/api/status`; `metrics` are those of the process and its host."""

    name: str
    uuid: str
    version: Version
    status: Statuses
    metrics: dict[str, Any] = {}


class Redacted(Struct, frozen=True, forbid_unknown_fields=True):
    """All of `/api/status` that Kibana tells to whom it does not know: the overall level."""

    status: Statuses


class Reference(Struct, frozen=True):
    """One saved object named by another, or the id of one alone."""

    type: str
    id: str
    name: str = ""


class SavedObject(Struct, frozen=True):
    """A saved object; `attributes` are those that were asked for. `error` stands where it could not be read."""

    type: str
    id: str
    attributes: dict[str, Any] = {}
    references: tuple[Reference, ...] = ()
    updated_at: str | None = None
    managed: bool | None = None
    error: dict[str, Any] | None = None

    @property
    def title(self) -> str:
        """Its title; a few types have a name instead."""
        return str(self.attributes.get("title") or self.attributes.get("name") or "")


class Found(Struct, frozen=True):
    """One page of saved objects, and how many there are on all."""

    saved_objects: tuple[SavedObject, ...]
    total: int


class Fetched(Struct, frozen=True):
    """The saved objects that were asked for by id."""

    saved_objects: tuple[SavedObject, ...]


class DataView(Struct, frozen=True):
    """A data view (once "index pattern"): `title` is the pattern of the indices, `name` what people call it."""

    id: str
    title: str
    name: str = ""
    namespaces: tuple[str, ...] = ()
    time_field: str | None = field(name="timeFieldName", default=None)


class DataViews(Struct, frozen=True):
    """All data views of a space."""

    data_view: tuple[DataView, ...]


class OneDataView(Struct, frozen=True):
    """The answer about a single data view."""

    data_view: DataView


class Health(Struct, frozen=True):
    """How one side of the alerting framework is: `ok`, `warn` or `error`."""

    status: str
    timestamp: str = ""


class AlertingHealth(Struct, frozen=True):
    """`/api/alerting/_health`: decryption, execution and read, and whether its keys and its transport are safe."""

    alerting_framework_health: dict[str, Health]
    has_permanent_encryption_key: bool
    is_sufficiently_secure: bool


class TaskManagerPart(Struct, frozen=True):
    """One part of the task manager's health: `OK`, `warn`, `error` or `uninitialized`, and why."""

    value: dict[str, Any] = {}
    status: str = "OK"
    reason: str = ""


class TaskManagerHealth(Struct, frozen=True):
    """`/api/task_manager/_health`: configuration, runtime, workload and capacity estimation, as far as known."""

    status: str
    stats: dict[str, TaskManagerPart]
    last_update: str = ""


class Trouble(Struct, frozen=True):
    """Why the last run of a rule failed, or what it warned of."""

    reason: str = ""
    message: str = ""


class Execution(Struct, frozen=True):
    """The last run of a rule; `last_duration` is milliseconds."""

    status: str
    last_execution_date: str = ""
    last_duration: float | None = None
    error: Trouble | None = None
    warning: Trouble | None = None


class AlertsCount(Struct, frozen=True):
    """How many alerts the last run of a rule had."""

    active: float | None = None
    new: float | None = None
    recovered: float | None = None
    ignored: float | None = None


class LastRun(Struct, frozen=True):
    """How the last run ended: `succeeded`, `warning` or `failed`."""

    outcome: str
    alerts_count: AlertsCount = AlertsCount()


class Schedule(Struct, frozen=True):
    """How often a rule runs: `1m`."""

    interval: str = ""


class Rule(Struct, frozen=True):
    """An alerting rule."""

    id: str
    name: str
    enabled: bool
    rule_type_id: str
    execution_status: Execution
    consumer: str = ""
    tags: tuple[str, ...] = ()
    schedule: Schedule = Schedule()
    mute_all: bool = False
    last_run: LastRun | None = None


class Rules(Struct, frozen=True):
    """One page of rules, and how many there are."""

    data: tuple[Rule, ...]
    total: int


class ImportFault(Struct, frozen=True):
    """Why one object was not imported: `conflict`, `missing_references`, `unsupported_type`, ..."""

    type: str
    references: tuple[Reference, ...] = ()
    message: str = ""


class ImportError_(Struct, frozen=True):  # noqa: N801 - Python has the name
    """One object that was not imported."""

    type: str
    id: str
    error: ImportFault
    title: str = ""


class Imported(Struct, frozen=True):
    """The answer to an import."""

    success: bool
    success_count: int = field(name="successCount", default=0)
    errors: tuple[ImportError_, ...] = ()


class Deleted(Struct, frozen=True):
    """Whether one object was deleted."""

    type: str
    id: str
    success: bool
    error: dict[str, Any] | None = None


class Deletions(Struct, frozen=True):
    """The answer to a deletion of many."""

    statuses: tuple[Deleted, ...]
