"""What Grafana answers, as far as it is used here. Shapes are those of the HTTP API, versions 9 to 13."""

from datetime import datetime
from typing import Any

import msgspec


class Health(msgspec.Struct, rename="camel", frozen=True):
    """`/api/health`. Version and commit are empty where the server hides them from strangers."""

    database: str
    version: str = ""
    commit: str = ""
    enterprise_commit: str = ""

    @property
    def edition(self) -> str:
        """Which build it is: `enterprise` may run with or without a licence."""
        return "enterprise" if self.enterprise_commit else "oss" if self.version else "unknown"


class Hit(msgspec.Struct, rename="camel", frozen=True):
    """A dashboard or folder that `/api/search` found."""

    uid: str
    title: str
    type: str
    url: str = ""
    tags: tuple[str, ...] | None = None
    folder_uid: str = ""
    folder_title: str = ""
    is_deleted: bool = False


class Meta(msgspec.Struct, rename="camel", frozen=True):
    """What Grafana knows of a dashboard beside its model."""

    version: int = 0
    folder_uid: str = ""
    folder_title: str = ""
    url: str = ""
    provisioned: bool = False
    provisioned_external_id: str = ""
    updated: str = ""
    updated_by: str = ""


class Dashboard(msgspec.Struct, frozen=True):
    """A whole dashboard: its model as JSON, and what is known of it."""

    dashboard: dict[str, Any]
    meta: Meta

    @property
    def title(self) -> str:
        """The title of the model."""
        return str(self.dashboard.get("title", ""))


class Saved(msgspec.Struct, frozen=True):
    """The answer to a dashboard that was saved."""

    uid: str
    version: int
    url: str = ""


class Permission(msgspec.Struct, rename="camel", frozen=True):
    """What a role, a team or a user (or service account) may do with a dashboard: 1 view, 2 edit, 4 administer."""

    permission: int
    role: str = ""
    team_id: int = 0
    user_id: int = 0
    inherited: bool = False


class Datasource(msgspec.Struct, rename="camel", frozen=True):
    """A data source. Its `jsonData` is left where it is: people put secrets there."""

    uid: str
    name: str
    type: str
    type_name: str = ""
    access: str = ""
    url: str = ""
    user: str = ""
    database: str = ""
    is_default: bool = False
    read_only: bool = False
    basic_auth: bool = False


class User(msgspec.Struct, rename="camel", frozen=True):
    """A member of the organisation. The e-mail address is left where it is."""

    user_id: int
    login: str
    role: str
    name: str = ""
    last_seen_at: datetime | None = None
    is_disabled: bool = False
    auth_labels: tuple[str, ...] | None = None


class Org(msgspec.Struct, frozen=True):
    """The organisation we are in."""

    id: int
    name: str


class Alert(msgspec.Struct, rename="camel", frozen=True):
    """One instance of a rule: its labels, and a state such as `Alerting`, `Normal (MissingSeries)`."""

    labels: dict[str, str]
    state: str
    annotations: dict[str, str] | None = None
    active_at: datetime | None = None
    value: str = ""

    @property
    def plain_state(self) -> str:
        """The state in lower case and without the reason: alerting, pending, recovering, nodata, error, normal."""
        return self.state.partition(" ")[0].lower()


class Rule(msgspec.Struct, rename="camel", frozen=True):
    """An alert or recording rule with its state. Older versions tell neither `uid` nor `isPaused` nor `totals`."""

    name: str
    type: str
    health: str = ""
    state: str = "inactive"
    uid: str = ""
    query: str = ""
    duration: float = 0.0
    last_error: str = ""
    last_evaluation: datetime | None = None
    evaluation_time: float = 0.0
    is_paused: bool | None = None
    provenance: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    alerts: tuple[Alert, ...] | None = None
    totals: dict[str, int] | None = None


class Group(msgspec.Struct, rename="camel", frozen=True):
    """Rules that are evaluated together; `file` is the title, later the path, of their folder."""

    name: str
    file: str
    rules: tuple[Rule, ...] | None = None
    folder_uid: str = ""
    interval: float = 0.0


class Groups(msgspec.Struct, rename="camel", frozen=True):
    """One page of groups; the token leads to the next."""

    groups: tuple[Group, ...]
    group_next_token: str = ""


class Rules(msgspec.Struct, frozen=True):
    """The answer of the Prometheus-compatible `rules`."""

    status: str
    data: Groups


_ANNOTATION = {"dashboard_uid": "dashboardUID", "panel_id": "panelId", "time_end": "timeEnd"}


class Annotation(msgspec.Struct, rename=_ANNOTATION, frozen=True):
    """A remark on a moment or a span of time; milliseconds since 1970."""

    id: int
    time: int
    text: str = ""
    time_end: int = 0
    tags: tuple[str, ...] | None = None
    dashboard_uid: str | None = None
    panel_id: int = 0


class Made(msgspec.Struct, frozen=True):
    """The answer to an annotation that was made."""

    id: int


class Told(msgspec.Struct, rename={"message_id": "messageId"}, frozen=True):
    """What stands in an answer that is no good one; also the health of a data source, whose status is a word."""

    message: str = ""
    message_id: str = ""
    status: Any = ""
