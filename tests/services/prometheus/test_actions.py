"""Changes of a real server."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from nms_workers.errors import Refused, Timeout
from nms_workers.services.prometheus.service import Prometheus
from nms_workers.transport.deadline import deadline
from tests.servers import PrometheusServer
from tests.services.prometheus.conftest import Connect, StartPrometheus
from tests.services.prometheus.support import Plain, act, read
from tests.services.records import await_true, events, value

BROKEN_RULES = "groups: [{name: nms, rules: [{record: 'job:up:sum', expr: 'sum('}]}]\n"


@pytest.fixture
def server(changed_server: PrometheusServer) -> PrometheusServer:
    return changed_server


def test_reload(server: PrometheusServer, connect: Connect) -> None:
    client, plain = connect(server.url), Plain(server)
    read(client, "server")
    same = act(client, "reload")
    assert same.message == "reloaded: the configuration is as it was"

    server.conf = {"scrape_timeout": "800ms"}
    server.configure()
    change = act(client, "reload")
    assert change.changed
    assert change.message == "reloaded: the configuration is another one now"
    assert change.before["configuration_sha256"] != change.after["configuration_sha256"]
    assert change.after["reload_successful"] is True
    assert "scrape_timeout: 800ms" in plain.ask("/status/config")["yaml"]
    (event,) = events(read(client, "server"))
    assert (event.kind, event.attributes["after"]) == ("config_changed", change.after["configuration_sha256"])


@pytest.mark.parametrize("broken", ["config", "rules"])
def test_a_faulty_configuration_is_refused_and_the_old_one_stays(
    server: PrometheusServer, connect: Connect, broken: str
) -> None:
    client, plain = connect(server.url), Plain(server)
    before = plain.ask("/status/config")["yaml"]
    good = {path: path.read_text() for path in (server.config, server.rules)}
    if broken == "config":
        server.config.write_text("scrape_configs: [{nonsense: 1}]\n")
    else:
        server.rules.write_text(BROKEN_RULES)
    with pytest.raises(Refused, match=r"(?s)the old one is still in force: .*promtool check config") as error:
        act(client, "reload")
    assert ("nonsense" if broken == "config" else "applying the new configuration") in str(error.value)
    assert plain.ask("/status/config")["yaml"] == before
    assert [rule["name"] for group in plain.ask("/rules")["groups"] for rule in group["rules"]][:1] == ["job:up:sum"]

    records = read(client, "server")
    assert value(records, "prometheus_server_config_reload_successful") == 0
    assert [(event.kind, event.state) for event in events(records)] == [("config_reload_failed", "firing")]
    for path, text in good.items():
        path.write_text(text)
    assert act(client, "reload").after["reload_successful"] is True
    assert events(read(client, "server")) == []


def test_a_server_that_lets_nobody_change_it(start_prometheus: StartPrometheus, connect: Connect) -> None:
    server = start_prometheus(flags=())
    client = connect(server.url)
    with pytest.raises(Refused, match=r"Lifecycle API is not enabled.*--web\.enable-lifecycle"):
        act(client, "reload")
    for action, arguments in (("create_snapshot", {}), ("delete_series", {"match": ["up"]})):
        with pytest.raises(Refused, match=r"admin APIs disabled.*--web\.enable-admin-api"):
            act(client, action, **arguments)
    assert Plain(server).value("count(up)") == 2


def test_snapshots(server: PrometheusServer, connect: Connect) -> None:
    client = connect(server.url)
    change = act(client, "create_snapshot")
    folder = server.data / "snapshots" / change.after["snapshot"]
    assert change.changed
    assert [path for path in folder.iterdir() if (path / "meta.json").exists()], "the head became a block"
    empty = act(client, "create_snapshot", skip_head=True)
    assert list((server.data / "snapshots" / empty.after["snapshot"]).iterdir()) == []
    assert Prometheus.actions()["create_snapshot"].idempotent is False


def test_series_are_deleted_once(server: PrometheusServer, connect: Connect) -> None:
    client, plain = connect(server.url), Plain(server)
    end = datetime.now(UTC)
    arguments: dict[str, Any] = {"match": ['scrape_duration_seconds{job="dead"}'], "end": end.isoformat()}
    dry = Prometheus.actions()["delete_series"]
    preview = dry.run(client, **dry.validate(arguments), dry_run=True)
    assert preview.message == "samples of 1 series would be deleted"

    def held(job: str) -> float | None:
        query = f'count_over_time(scrape_duration_seconds{{job="{job}"}}[1h])'
        found = plain.ask("/query", query=query, time=f"{end.timestamp():.3f}")["result"]
        return float(found[0]["value"][1]) if found else None

    assert held("dead"), "a preview deletes nothing"
    change = act(client, "delete_series", **arguments, clean_tombstones=True)
    assert (change.changed, change.before["series"], change.after["series"]) == (True, 1, 0)
    assert held("dead") is None
    assert held("prometheus"), "others stay"
    again = act(client, "delete_series", **arguments)
    assert (again.changed, again.message) == (False, "there are no such samples")


def test_only_the_time_that_is_named_is_deleted(server: PrometheusServer, connect: Connect) -> None:
    client, plain = connect(server.url), Plain(server)
    await_true(lambda: (plain.value('count_over_time(up{job="dead"}[1h])') or 0) >= 4)
    points = plain.ask("/query", query='up{job="dead"}[1h]')["result"][0]["values"]
    second, third = points[1][0], points[2][0]
    start, end = (datetime.fromtimestamp(at, UTC).isoformat() for at in (second, third))
    assert act(client, "delete_series", match=['up{job="dead"}'], start=start, end=end).changed
    left = [at for at, _ in plain.ask("/query", query='up{job="dead"}[1h]')["result"][0]["values"]]
    assert second not in left
    assert third not in left
    assert points[0][0] in left
    assert points[3][0] in left


def test_everything_up_to_now_while_more_comes(server: PrometheusServer, connect: Connect) -> None:
    client, plain = connect(server.url), Plain(server)
    before = plain.value("min_over_time(timestamp(up)[1h:1s])")
    change = act(client, "delete_series", match=["up"])
    assert change.before["series"] == 2
    after = await_true(lambda: plain.value("min_over_time(timestamp(up)[1h:1s])"))
    assert before is not None
    assert after > before


def test_more_series_than_were_meant(server: PrometheusServer, connect: Connect) -> None:
    client, plain = connect(server.url), Plain(server)
    with pytest.raises(Refused, match=r"more than at_most \(5\)"):
        act(client, "delete_series", match=['{job="prometheus"}'], at_most=5)
    assert plain.value('up{job="prometheus"}') == 1


@pytest.mark.parametrize(
    "match",
    [
        '{__name__=~".+"}', "{}", '{job!="x"}', '{job=~".*"}', '{job=""}', '{job!~"x",instance=~".+"}', "",
        "up or up", "up[5m]", 'up{job="a"} or {job="b"}', 'up{job="a', "up{job=a}", "-up", "up\nup", 'up{job="a\nb"}',
        "\uff19up",
    ],
)  # fmt: skip
def test_selectors_that_may_match_everything_or_are_none(match: str) -> None:
    with pytest.raises(Refused, match="delete_series cannot take these arguments: match"):
        Prometheus.actions()["delete_series"].validate({"match": ["up", match]})


@pytest.mark.parametrize(
    "match",
    [
        "up",
        "job:up:sum",
        'up{job=~"a.*"}',
        '{job="a"}',
        '{ job = "a" , x!~"b" , }',
        r'{job="a\"}b"}',
        "up{}",
        '{__name__="up"}',
    ],
)
def test_selectors_that_are_narrow(match: str) -> None:
    assert Prometheus.actions()["delete_series"].validate({"match": [match]})["match"] == (match,)


def test_times_that_cannot_be(server: PrometheusServer, connect: Connect) -> None:
    client = connect(server.url)
    now = datetime.now(UTC)
    with pytest.raises(Refused, match="is not before end"):
        act(client, "delete_series", match=["up"], start=now.isoformat(), end=(now - timedelta(1)).isoformat())
    with pytest.raises(Refused, match="is not before end"):
        act(client, "delete_series", match=["up"], start=(now + timedelta(days=1)).isoformat())
    with pytest.raises(Refused, match="timezone"):
        act(client, "delete_series", match=["up"], start="2026-01-01T00:00:00")
    with deadline(0.0), pytest.raises(Timeout):
        act(client, "delete_series", match=["up"])
    assert Prometheus.actions()["delete_series"].confirm is True
