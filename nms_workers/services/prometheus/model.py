"""What Prometheus tells, in its own words and units. Names are the API's, in lower case.

Shapes: https://prometheus.io/docs/prometheus/latest/querying/api/ (2.42 to 3.5 seen). What only newer versions tell has
a default.
"""

from datetime import datetime
from typing import Literal, NamedTuple

import msgspec

Labels = dict[str, str]


class Answer(msgspec.Struct, rename="camel"):
    """The envelope of every answer. `warnings` and `infos` are told with good ones too."""

    status: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")
    error_type: str = ""
    error: str = ""
    warnings: list[str] | None = None
    infos: list[str] | None = None


class Target(msgspec.Struct, rename="camel"):
    """What is scraped. `health` is up, down or unknown; durations are seconds, intervals texts such as `15s`."""

    labels: Labels
    scrape_pool: str
    scrape_url: str
    health: str
    last_error: str = ""
    last_scrape: datetime | None = None
    last_scrape_duration: float = 0.0
    scrape_interval: str = ""
    scrape_timeout: str = ""


class Targets(msgspec.Struct, rename="camel"):
    """Those that are scraped, and how many of each pool relabelling has dropped (3.x)."""

    active_targets: list[Target] | None = None
    dropped_target_counts: dict[str, int] | None = None


class Alert(msgspec.Struct, rename="camel"):
    """One alert: `state` is pending or firing, `value` the number as text."""

    labels: Labels
    state: str
    annotations: Labels = {}
    active_at: datetime | None = None
    value: str = ""


class Alerts(msgspec.Struct):
    """All alerts that are pending or firing."""

    alerts: list[Alert] | None = None


class Rule(msgspec.Struct, rename="camel"):
    """A recording or alerting rule. `health` is ok, err or unknown; `state`, of alerts only, as of its worst alert."""

    name: str
    query: str
    type: str
    health: str = "unknown"
    last_error: str = ""
    evaluation_time: float = 0.0
    last_evaluation: datetime | None = None
    labels: Labels | None = None
    state: str = ""
    duration: float = 0.0
    keep_firing_for: float = 0.0


class RuleGroup(msgspec.Struct, rename="camel"):
    """Rules that are evaluated together, in order. Seconds."""

    name: str
    file: str
    rules: list[Rule] | None = None
    interval: float = 0.0
    evaluation_time: float = 0.0
    last_evaluation: datetime | None = None


class Rules(msgspec.Struct, rename="camel"):
    """One page of groups."""

    groups: list[RuleGroup] | None = None
    group_next_token: str | None = None


class Metadata(msgspec.Struct):
    """What an exporter says of a metric."""

    type: str
    help: str = ""
    unit: str = ""


class Build(msgspec.Struct, rename="camel"):
    """The version of the server."""

    version: str
    revision: str = ""
    branch: str = ""
    go_version: str = ""


class Configuration(msgspec.Struct):
    """The configuration in force, secrets left out by the server."""

    yaml: str


class Alertmanager(msgspec.Struct):
    """Where alerts are sent to."""

    url: str


class Alertmanagers(msgspec.Struct, rename="camel"):
    """Those in use, and those that relabelling has dropped."""

    active_alertmanagers: list[Alertmanager] | None = None
    dropped_alertmanagers: list[Alertmanager] | None = None


class Counted(msgspec.Struct):
    """A name and how many, or how much, of it."""

    name: str
    value: int


class Tops(msgspec.Struct, rename="camel"):
    """The names with the most series, values and bytes in the head."""

    series_count_by_metric_name: list[Counted] = []
    label_value_count_by_label_name: list[Counted] = []
    memory_in_bytes_by_label_name: list[Counted] = []
    series_count_by_label_value_pair: list[Counted] = []


class Snapshot(msgspec.Struct):
    """The name of a folder below `snapshots/` of the server's data."""

    name: str


class Histogram(msgspec.Struct):
    """A native histogram. A bucket is (which of its bounds belong to it, lower, upper, count)."""

    count: float
    sum: float
    buckets: list[tuple[int, float, float, float]] = []


class Row(NamedTuple):
    """One series of a result: points are (Unix seconds, value); histograms likewise. NaN and infinities are kept."""

    labels: Labels
    points: list[tuple[float, float]]
    histograms: list[tuple[float, Histogram]]


class Result(NamedTuple):
    """What a query gives. A scalar is one row without labels; a string has no row, and `text`."""

    kind: Literal["scalar", "string", "vector", "matrix"]
    rows: list[Row]
    text: str
    warnings: tuple[str, ...]
    infos: tuple[str, ...]
