"""The settings of one Prometheus server, or of an exporter of metrics that is none."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt, model_validator

from nms_workers.errors import ConfigError
from nms_workers.service import TargetSettings, seconds
from nms_workers.services.prometheus.selectors import Selector
from nms_workers.transport.http import HttpSettings

MAX_POINTS = 11_000  # of one series that the server answers a range query with


def _seconds(value: object) -> object:
    try:
        return seconds(value) if isinstance(value, str) else value
    except ConfigError as exc:
        raise ValueError(str(exc)) from None


def _not_reserved(name: str) -> str:
    if name.startswith("__"):
        raise ValueError("names that begin with __ are Prometheus' own")
    return name


Duration = Annotated[float, BeforeValidator(_seconds), Field(gt=0, le=10 * 366 * 86_400)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_/][A-Za-z0-9_.:/-]{0,99}$")]
MetricName = Annotated[str, Field(pattern=r"^[a-zA-Z_:][a-zA-Z0-9_:]{0,254}$")]
Label = Annotated[str, Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]{0,254}$"), AfterValidator(_not_reserved)]
Path = Annotated[str, Field(pattern=r"^/[A-Za-z0-9_.~%:@/-]{0,500}$")]
Pattern = Annotated[str, Field(pattern=r"^[A-Za-z0-9_:*?\[\]!-]{1,255}$")]
Text = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{0,1000}$")]
Labels = Annotated[dict[Label, Text], Field(max_length=16)]


class Query(TargetSettings):
    """A PromQL expression that is asked at every run of the poll `queries`.

    Args:
        name: tells it from the others.
        query: PromQL.
        metric: the name of the samples; default: the name that each result has.
        range: how far back to look, as in `15m`; default: only now.
        step: between two points of a range.
        limit: how many series of the result are kept.
        timeout: how long the server may take; default: as long as we wait for it.
        labels: added to those of each result.
    """

    name: Name
    query: Annotated[str, Field(pattern=r"^[^\x00]{1,10000}$")]
    metric: MetricName | None = None
    range: Duration | None = None
    step: Duration = 60.0
    limit: PositiveInt = 1000
    timeout: Duration | None = None
    labels: Labels = Field(default={})

    @model_validator(mode="after")
    def _few_points(self) -> Self:
        if self.range is not None and self.range / self.step > MAX_POINTS:
            raise ValueError(f"range / step is more than {MAX_POINTS} points, the server's limit: raise step")
        return self


class Scrape(TargetSettings):
    """A page of metrics that is read at every run of the poll `scrape`.

    Args:
        path: default: `/metrics`, or `/federate` with `match`.
        match: series selectors: what a federated Prometheus hands over.
        params: the query of the page, as exporters of many devices take it. Never secrets.
        name: tells it from the others; default: the path.
        labels: added to those of each sample; a sample's own label of the same name becomes `exported_<name>`.
        only, without: patterns of metric names (`node_cpu_*`): which samples are kept.
        limit: how many samples are kept.
        timestamps: keep the times that the page gives; else all samples are of the moment of reading.
        format: what the page is, where its header says it wrongly.
    """

    path: Path | None = None
    match: Annotated[tuple[Selector, ...], Field(max_length=100)] = ()
    params: Annotated[dict[Name, Text | tuple[Text, ...]], Field(max_length=50)] = Field(default={})
    name: Name | None = None
    labels: Labels = Field(default={})
    only: Annotated[tuple[Pattern, ...], Field(max_length=100)] = ()
    without: Annotated[tuple[Pattern, ...], Field(max_length=100)] = ()
    limit: PositiveInt = 5000
    timestamps: bool = True
    format: Literal["text", "openmetrics"] | None = None

    @property
    def where(self) -> str:
        """Its path."""
        return self.path or ("/federate" if self.match else "/metrics")

    @property
    def title(self) -> str:
        """What tells it from the others."""
        return self.name or self.where


class PrometheusTarget(HttpSettings):
    """One Prometheus server, 2 or 3, or whatever speaks its API; or an exporter of metrics (`api = false`).

    Args:
        api: false for an exporter: nothing but `scrape` is read then, by default `/metrics`.
        queries: PromQL expressions whose results become samples: `{name, query, metric, range, step, limit,
            timeout, labels}`.
        scrape: pages of metrics whose samples are taken over: `{path, match, params, name, labels, only, without,
            limit, timestamps, format}`.
        max_targets, max_rules, max_alerts: how many of each one poll takes.
        max_top: how many of the metrics and labels with the most series.
    """

    api: bool = True
    queries: Annotated[tuple[Query, ...], Field(max_length=500)] = ()
    scrape: Annotated[tuple[Scrape, ...], Field(max_length=100)] = ()
    max_targets: PositiveInt = 2000
    max_rules: PositiveInt = 2000
    max_alerts: PositiveInt = 1000
    max_top: Annotated[int, Field(ge=1, le=1000)] = 20

    @model_validator(mode="after")
    def _names_once(self) -> Self:
        for what, names in (
            ("queries", [one.name for one in self.queries]),
            ("scrape", [one.title for one in self.scrape]),
        ):
            if twice := {name for name in names if names.count(name) > 1}:
                raise ValueError(f"{what} names {min(twice)!r} twice: give each a name of its own")
        if self.queries and not self.api:
            raise ValueError("queries need the API of a Prometheus server: leave api out")
        return self

    @property
    def scrapes(self) -> tuple[Scrape, ...]:
        """The pages to read; an exporter has its usual one unless others are named."""
        return self.scrape or (() if self.api else (Scrape(),))
