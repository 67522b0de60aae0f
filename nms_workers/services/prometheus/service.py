"""Prometheus: what is polled, and the actions."""

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Annotated, Any

from pydantic import AwareDatetime, Field, PositiveInt

from nms_workers.change import Change
from nms_workers.errors import Refused, Unreachable
from nms_workers.records import Event, Record, Sample
from nms_workers.service import Service, action, poll
from nms_workers.services.prometheus import administration, readings
from nms_workers.services.prometheus.administration import Deletion
from nms_workers.services.prometheus.answers import each, of_page, of_query
from nms_workers.services.prometheus.client import PrometheusClient
from nms_workers.services.prometheus.selectors import NarrowSelector
from nms_workers.services.prometheus.target import PrometheusTarget

Selectors = Annotated[tuple[NarrowSelector, ...], Field(min_length=1, max_length=100)]
_Poll = Callable[[Any, PrometheusClient], Iterator[Record]]


def _of_a_server(method: _Poll) -> _Poll:
    """A poll of the API: it reads nothing from a target that has none."""

    @wraps(method)
    def read(self: object, client: PrometheusClient) -> Iterator[Record]:
        if client.target.api:
            yield from method(self, client)

    return read


class Prometheus(Service):
    """Prometheus servers, 2 and 3: targets, rules, alerts, PromQL results; and any page of metrics, of exporters too.

    An exporter that is no Prometheus server is a target with `api = false`: its `/metrics` is scraped, and nothing else
    asked of it. The samples of queries and scraped pages keep the names that others gave them. They are not listed
    below; one that is called as a metric below becomes `exported_<name>`.

    * A query has a `name`, PromQL as `query`, and the `metric` that its results are called (default: their own names);
      with `range` and `step` the points of the time before now are read. `limit` bounds its series, `timeout` the time
      the server may take, `labels` are added.
    * A page to scrape has a `path` (`/metrics`, or `/federate` where `match` has selectors), `params`, and patterns of
      metric names that are wanted (`only`) or not (`without`). `limit` bounds its samples, `labels` are added,
      `timestamps = false` takes the moment of reading for that of measuring, `format` is for a page whose header is
      wrong, `name` for two of one path.
    * What is beyond a limit is counted, and the poll ends as `partial`.

    ```toml
    [[targets]]
    service = "prometheus"
    name = "main"
    url = "http://prometheus.example.net:9090"
    queries = [{name = "errors", query = "sum by (job) (rate(errors_total[5m]))", metric = "job_errors_per_second"}]
    scrape = [{match = ['node_load1', '{job="dns"}']}]

    [[targets]]
    service = "prometheus"
    name = "web1"
    url = "http://web1.example.net:9100"
    api = false
    scrape = [{only = ["node_*"], without = ["node_scrape_*"], limit = 2000}]
    ```
    """

    kind = "prometheus"
    Target = PrometheusTarget
    client = PrometheusClient
    port = 9090

    @poll(every="30s", enumerates=("scrape_target", "target_down"))
    @_of_a_server
    def targets(self, client: PrometheusClient) -> Iterator[Record]:
        """What Prometheus scrapes: health, last scrape, its duration and error; an event while a target is down."""
        most, found = client.target.max_targets, client.get_targets().active_targets or []
        yield from readings.of_targets(found, most)
        _all_taken(len(found), most, "targets")

    @poll(every="30s", enumerates=("rule", "rule_failing"))
    @_of_a_server
    def rules(self, client: PrometheusClient) -> Iterator[Record]:
        """Rules and their groups: health, last evaluation, its duration and error; an event while a rule fails."""
        most = client.target.max_rules
        page = client.get_rules(most)
        yield from readings.of_rules(page.groups)
        _all_taken(most + page.left_out if page.left_out else 0, most, "rules")

    @poll(every="30s", enumerates=("alert",))
    @_of_a_server
    def alerts(self, client: PrometheusClient) -> Iterator[Record]:
        """Alerts that are pending or firing; each that fires is an event until it does no more."""
        most = client.target.max_alerts
        found = sorted(
            client.get_alerts(), key=lambda one: one.state != "firing"
        )  # over the limit, pending ones go first
        yield from readings.of_alerts(found, most)
        yield from readings.of_alertmanagers(client.get_alertmanagers())
        _all_taken(len(found), most, "alerts")

    @poll(every="60s", enumerates=("server", "config_reload_failed"))
    @_of_a_server
    def server(self, client: PrometheusClient) -> Iterator[Record]:
        """Readiness, version, state of the process, its configuration; an event while the last reload has failed."""
        ready = client.is_ready()
        yield Sample("prometheus_server_ready", ready)
        if not ready:
            replay = client.get_walreplay()
            yield from readings.of_replay(replay)
            where = f"segment {replay.get('current')} of {replay.get('min')} to {replay.get('max')}"
            raise Unreachable(f"Prometheus is not ready, it reads its write-ahead log: {where}", hint="wait for it")
        digest = client.get_config_hash()
        replay, flags = client.get_walreplay(), client.get_flags()
        yield from readings.of_server(client.get_buildinfo(), client.get_runtimeinfo(), replay, flags, digest)
        before = client.remember_configuration(digest)
        if before and before != digest:
            about = {"before": before, "after": digest}
            yield Event("config_changed", "Prometheus runs with another configuration now", attributes=about)

    @poll(every="60s", enumerates=("tsdb",))
    @_of_a_server
    def tsdb(self, client: PrometheusClient) -> Iterator[Record]:
        """What the head block holds: series, chunks, oldest and newest sample."""
        yield from readings.of_head(client.get_tsdb(limit=1))

    @poll(every="10m", deadline="120s", volatile=True)
    @_of_a_server
    def cardinality(self, client: PrometheusClient) -> Iterator[Record]:
        """Where the series come from: the metrics, labels and pairs of label and text with the most."""
        most = client.target.max_top
        yield from readings.of_tops(client.get_tops(most), most)

    @poll(every="60s", enumerates=("query_warning",))
    @_of_a_server
    def queries(self, client: PrometheusClient) -> Iterator[Record]:
        """Results of the configured PromQL queries; their times are Prometheus'; an event while it warns."""
        declared = self.metrics()
        yield from each(client.target.queries, lambda one: of_query(client, one, declared), lambda one: one.name)

    @poll(every="30s")
    def scrape(self, client: PrometheusClient) -> Iterator[Record]:
        """Samples of the configured pages of metrics, of `/federate` among them."""
        declared = self.metrics()
        yield from each(client.target.scrapes, lambda one: of_page(client, one, declared), lambda one: one.title)

    @action(deadline="120s")
    def reload(self, client: PrometheusClient) -> Change:
        """Make Prometheus read its configuration and its rule files again."""
        return administration.reload(client)

    @action(deadline="600s", idempotent=False)  # a second snapshot is a second snapshot
    def create_snapshot(self, client: PrometheusClient, skip_head: bool = False) -> Change:
        """Keep all data in a folder of the server's own disk; without the newest hours if `skip_head`."""
        return administration.create_snapshot(client, skip_head)

    @action(deadline="600s", confirm=True)
    def delete_series(  # noqa: PLR0913, PLR0917 - the arguments of the job
        self,
        client: PrometheusClient,
        match: Selectors,
        start: AwareDatetime | None = None,
        end: AwareDatetime | None = None,
        at_most: PositiveInt = 10_000,
        clean_tombstones: bool = False,
        dry_run: bool = False,
    ) -> Change:
        """Delete the samples of what `match` selects, from `start` to `end`, of at most `at_most` series."""
        asked = Deletion.of(match, start, end)
        return administration.delete_series(client, asked, at_most, clean_tombstones, dry_run)


def _all_taken(found: int, most: int, what: str) -> None:
    """Tell when there are more than were taken; then nothing that was left out counts as gone."""
    if found > most:
        raise Refused(f"{found} {what} are more than max_{what} ({most})", hint=f"raise max_{what}")
