"""What each poll tells of a Grafana of each version, and what it does where there is too much or too little."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from nms_workers.errors import Refused, Timeout
from nms_workers.records import Event, Record, Sample
from nms_workers.services.grafana.service import Grafana
from nms_workers.transport.deadline import deadline
from tests.services.grafana.conftest import Connect, Start
from tests.services.grafana.support import LICENSE, alert, fill, group, read, read_until_error, rule
from tests.services.records import await_true, entities, events, value
from tests.stubs.grafana import VERSIONS, Account, GrafanaStub


def test_health(any_grafana: GrafanaStub, connect: Connect) -> None:
    records = read(connect(any_grafana), "health")
    version = VERSIONS[any_grafana.major]
    assert value(records, "grafana_info", version=version, edition="oss") == 1
    assert value(records, "grafana_database_up") == 1
    about = {"version": version, "commit": "a1b2c3d4e5", "edition": "oss", "database": "ok"}
    assert entities(records, "server") == {"grafana": about}
    assert events(records) == []


def test_a_database_that_fails(grafana: GrafanaStub, connect: Connect) -> None:
    """Grafana says it with 503, as a proxy would say that there is no Grafana."""
    grafana.database = "failing"
    records = read(connect(grafana), "health")
    assert value(records, "grafana_database_up") == 0
    (event,) = events(records)
    assert (event.kind, event.state, event.severity) == ("database_down", "firing", "critical")
    assert "failing" in event.message


def test_dashboards(any_grafana: GrafanaStub, connect: Connect) -> None:
    fill(any_grafana)
    records = read(connect(any_grafana), "dashboards")
    assert value(records, "grafana_dashboards") == 3
    assert value(records, "grafana_folder_dashboards", folder_uid="ops", folder="Ops") == 2
    assert value(records, "grafana_folder_dashboards", folder_uid="", folder="General") == 1
    found = entities(records, "dashboard")
    assert set(found) == {"hosts", "links", "loose"}
    where = {"url": "/d/hosts/x", "folder_uid": "ops", "folder": "Ops"}
    assert found["hosts"] == {"title": "Hosts", "tags": ["net", "prod"]} | where


@pytest.mark.parametrize(("most_hits", "pages"), [(5000, 4), (400, 8)])
def test_many_dashboards_are_read_page_by_page(
    grafana: GrafanaStub, connect: Connect, most_hits: int, pages: int
) -> None:
    for number in range(2500):
        grafana.add_dashboard(f"d{number}", f"Dashboard {number}")
    grafana.most_hits = most_hits  # a server may give fewer than we ask for
    records = read(connect(grafana), "dashboards")
    assert len(entities(records, "dashboard")) == 2500
    assert len(grafana.paths()) == pages


def test_more_dashboards_than_may_be_read(grafana: GrafanaStub, connect: Connect) -> None:
    for number in range(12):
        grafana.add_dashboard(f"d{number}", f"Dashboard {number}")
        grafana.folders[f"f{number}"] = {"title": f"Folder {number}", "folder": ""}
    records, error = read_until_error(connect(grafana, max_dashboards=10), "dashboards")
    assert len(entities(records, "dashboard")) == 10
    assert isinstance(error, Refused)
    assert "12 dashboards, more than max_dashboards (10) (raise max_dashboards)" in str(error)
    records, error = read_until_error(connect(grafana, max_dashboards=10), "folders")
    assert len(entities(records, "folder")) == 10
    assert "raise max_dashboards" in str(error)


def test_folders(any_grafana: GrafanaStub, connect: Connect) -> None:
    fill(any_grafana)
    records = read(connect(any_grafana), "folders")
    assert value(records, "grafana_folders") == 2
    found = entities(records, "folder")
    assert found["lab"]["folder_uid"] == "ops"
    assert found["ops"]["folder_uid"] == ""


HEALTH: list[tuple[Any, str, str]] = [
    (("OK", "works"), "healthy", "works"),
    (("ERROR", "connection refused"), "unhealthy", "connection refused"),
    (("UNKNOWN", ""), "unhealthy", "it says no more"),
    ("none", "unchecked", ""),
    ("not installed", "unhealthy", ""),
    ("broken", "unhealthy", ""),
]


@pytest.mark.parametrize("major", VERSIONS)
@pytest.mark.parametrize("case", HEALTH, ids=[str(one[0]) for one in HEALTH])
def test_the_health_of_a_data_source(major: int, case: tuple[Any, str, str], start: Start, connect: Connect) -> None:
    health, verdict, why = case
    stub = start(major)
    stub.add_source("one", health=health)
    records = read(connect(stub), "datasources")
    assert entities(records, "datasource")["one"]["health"] == verdict
    assert value(records, "grafana_datasources_in_health", health=verdict) == 1
    healthy = [r.value for r in records if isinstance(r, Sample) and r.metric == "grafana_datasource_healthy"]
    assert healthy == {"healthy": [1], "unhealthy": [0], "unchecked": []}[verdict]
    told = [(one.fingerprint, one.state) for one in events(records)]
    assert told == ([("datasource_unhealthy:one", "firing")] if verdict == "unhealthy" else [])
    assert all(why in one.message for one in events(records))


def test_data_sources(grafana: GrafanaStub, connect: Connect) -> None:
    fill(grafana)
    grafana.add_source("going", health="deleted")
    grafana.sources["loki"]["health"] = ("ERROR", 'Get "http://nms:hush@loki:3100/ready": connection refused')
    records = read(connect(grafana), "datasources")
    assert value(records, "grafana_datasources") == 4
    assert value(records, "grafana_datasources_of_type", type="prometheus") == 2
    found = entities(records, "datasource")
    assert set(found) == {"prom", "loki", "sheet"}, "one was deleted while we asked"
    assert found["prom"]["url"] == "http://prom.example:9090/x"
    assert found["prom"]["is_default"] is True
    assert "hush" not in repr(records)


def test_data_sources_that_we_may_not_ask(grafana: GrafanaStub, connect: Connect) -> None:
    grafana.add_source("open")
    grafana.add_source("shut", health="forbidden")
    records, error = read_until_error(connect(grafana), "datasources")
    assert value(records, "grafana_datasource_healthy", uid="open", name="open", type="prometheus") == 1
    assert isinstance(error, Refused)
    assert "1 data sources" in str(error)
    assert "datasources:query" in str(error)


def test_more_data_sources_than_may_be_asked(grafana: GrafanaStub, connect: Connect) -> None:
    for number in range(5):
        grafana.add_source(f"s{number}")
    records, error = read_until_error(connect(grafana, max_datasources=3), "datasources")
    assert len(entities(records, "datasource")) == 5
    assert value(records, "grafana_datasources_in_health", health="healthy") == 3
    assert "raise max_datasources" in str(error)


def test_a_data_source_that_does_not_answer_is_unhealthy(grafana: GrafanaStub, connect: Connect) -> None:
    grafana.add_source("slow")
    grafana.held.clear()
    records = read(connect(grafana, check_timeout=0.3), "datasources")
    (event,) = events(records)
    assert "no answer in 0.3 s" in event.message


def test_a_run_whose_time_is_used_up_says_so(grafana: GrafanaStub, connect: Connect) -> None:
    grafana.add_source("slow")
    grafana.held.clear()
    with deadline(0.5):
        records, error = read_until_error(connect(grafana), "datasources")
    assert isinstance(error, Timeout)
    assert events(records) == []


def test_so_many_data_sources_are_asked_at_once_and_no_more(grafana: GrafanaStub, connect: Connect) -> None:
    for number in range(9):
        grafana.add_source(f"s{number}")
    grafana.held.clear()
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read, connect(grafana, checks_at_once=3, check_timeout=60), "datasources")
        await_true(lambda: grafana.waiting == 3)
        grafana.held.set()
        records = reading.result(60)
    assert grafana.most_waiting == 3
    assert value(records, "grafana_datasources_in_health", health="healthy") == 9


def test_users(any_grafana: GrafanaStub, connect: Connect) -> None:
    recently = (datetime.now(UTC) - timedelta(days=5)).isoformat()
    any_grafana.accounts += [
        Account("ann@example.net", "x", roles={1: "Viewer"}, last_seen=recently),
        Account("bob", "x", roles={1: "Editor"}, last_seen=recently, disabled=True),
        Account("eve", "x", roles={1: "Editor"}, last_seen="0001-01-01T00:00:00Z"),
    ]
    records = read(connect(any_grafana), "users")
    roles = {role: value(records, "grafana_org_users", role=role) for role in ("Admin", "Editor", "Viewer", "None")}
    assert roles == {"Admin": 1, "Editor": 2, "Viewer": 1, "None": 0}
    assert value(records, "grafana_org_users_active") == 2
    assert value(records, "grafana_org_users_disabled") == 1
    found = entities(records, "user")
    assert {one["login"]: one["last_seen"] for one in found.values()} == {
        "admin": found["1"]["last_seen"],
        "ann@...": recently,
        "bob": recently,
        "eve": None,
    }
    assert "@example.net" not in repr(records)
    few = read(connect(any_grafana, active_days=1), "users")
    assert value(few, "grafana_org_users_active") == 1


def test_more_users_than_may_be_read(grafana: GrafanaStub, connect: Connect) -> None:
    grafana.accounts += [Account(f"user{number}", "x") for number in range(8)]
    records, error = read_until_error(connect(grafana, max_users=5), "users")
    assert len(entities(records, "user")) == 5
    assert "raise max_users" in str(error)
    assert grafana.paths() == ["/api/org/users?limit=6"]


def test_alerts(any_grafana: GrafanaStub, connect: Connect) -> None:
    fill(any_grafana)
    records = read(connect(any_grafana), "alerts")
    states = {one: value(records, "grafana_alert_rules", state=one) for one in ("firing", "inactive", "pending")}
    assert states == {"firing": 1, "inactive": 1, "pending": 0}
    assert value(records, "grafana_alert_rules_in_health", health="error") == 1
    assert value(records, "grafana_alerts", state="alerting") == 1
    assert value(records, "grafana_alerts", state="normal") == 1
    key = "r1" if any_grafana.major >= 11 else "Ops/Host down"  # older ones do not tell the uid here
    assert value(records, "grafana_alert_rule_evaluation_seconds", rule=key, name="Host down") == 0.25
    found = entities(records, "alert_rule")[key]
    assert (found["state"], found["health"], found["group"], found["for_seconds"]) == ("firing", "ok", "hosts", 300)
    assert found["paused"] is (False if any_grafana.major >= 12 else None)

    (firing,) = events(records, "alert")
    assert (firing.state, firing.severity, firing.message) == ("firing", "critical", "Host down: a is away")
    labels = {"alertname": "Host down", "grafana_folder": "Ops", "host": "a", "severity": "critical"}
    assert firing.attributes["labels"] == labels
    (failing,) = events(records, "rule_failing")
    assert "Link slow cannot be evaluated: no such metric" in failing.message


def of(records: list[Record]) -> dict[str, str]:
    """Fingerprint of each alert by its host."""
    return {one.attributes["labels"]["host"]: one.fingerprint for one in events(records, "alert")}


def test_an_alert_is_the_same_one_across_reads_states_and_upgrades(start: Start, connect: Connect) -> None:
    seen = []
    for major, state in ((9, "Alerting"), (9, "Alerting (NoData)"), (11, "Alerting"), (13, "Recovering")):
        stub = start(major)
        stub.groups = [group("g", rule("r1", "Host down", alert(state, host="a"), alert("Alerting", host="b")))]
        seen.append(of(read(connect(stub), "alerts")))
    assert seen == [seen[0]] * 4
    assert len(set(seen[0].values())) == 2


def test_equal_labels_in_two_folders_are_two_alerts(grafana: GrafanaStub, connect: Connect) -> None:
    one = alert("Alerting", host="a")
    grafana.groups = [
        group("g", rule("r1", "Host down", one), folder="Ops/Eu"),
        group("g", rule("r2", "Host down", one), folder="Ops/Us"),
    ]
    assert len({event.fingerprint for event in events(read(connect(grafana), "alerts"))}) == 2


@pytest.mark.parametrize(
    ("state", "fires"),
    [
        ("Alerting", True),
        ("Alerting (Error)", True),
        ("Recovering", True),
        ("NoData", True),
        ("Error", True),
        ("Pending", False),
        ("Normal", False),
        ("Normal (MissingSeries)", False),
    ],
)
def test_which_states_fire(any_grafana: GrafanaStub, connect: Connect, state: str, fires: bool) -> None:
    any_grafana.groups = [group("g", rule("r1", "Host down", alert(state, host="a")))]
    client = connect(any_grafana)
    assert len(events(read(client, "alerts"), "alert")) == fires
    assert len(client.get_alerts()) == fires


def test_an_alert_that_ended_is_not_named_any_more(grafana: GrafanaStub, connect: Connect) -> None:
    """The fleet resolves what a complete run of a poll that enumerates a kind does not name."""
    fill(grafana)
    client = connect(grafana)
    assert len(events(read(client, "alerts"), "alert")) == 1
    grafana.groups[0]["rules"][0]["alerts"] = [alert("Normal", host="a")]
    assert events(read(client, "alerts"), "alert") == []
    assert Grafana.polls()["alerts"].enumerates == {"alert_rule", "alert", "rule_failing"}
    assert Grafana.polls()["datasources"].enumerates == {"datasource", "datasource_unhealthy"}


def test_more_alerts_than_may_be_told(any_grafana: GrafanaStub, connect: Connect) -> None:
    """Those that are left out must not be taken for resolved: the run is not complete."""
    many = [alert("Alerting", host=f"h{number}") for number in range(5)]
    any_grafana.groups = [group("g", rule("r1", "Host down", *many), rule("r2", "Other", *many))]
    records, error = read_until_error(connect(any_grafana, max_alerts=3), "alerts")
    assert len(events(records, "alert")) == 3
    assert isinstance(error, Refused)
    assert "10 alerts fire, more than max_alerts (3): 3 are told (raise max_alerts)" in str(error)
    assert value(records, "grafana_alerts", state="alerting") == 10


def test_many_groups_of_rules(any_grafana: GrafanaStub, connect: Connect) -> None:
    any_grafana.groups = [group(f"g{n:03}", rule(f"r{n}", f"Rule {n}")) for n in range(450)]
    records = read(connect(any_grafana), "alerts")
    assert len(entities(records, "alert_rule")) == 450
    assert len(any_grafana.paths()) == (3 if any_grafana.major >= 12 else 1)
    records, error = read_until_error(connect(any_grafana, max_rules=100), "alerts")
    assert len(entities(records, "alert_rule")) == 100
    assert "raise max_rules" in str(error)


def test_no_rules_and_rules_that_never_ran(grafana: GrafanaStub, connect: Connect) -> None:
    client = connect(grafana)
    assert value(read(client, "alerts"), "grafana_alert_rules", state="firing") == 0
    fresh = rule("r1", "New", lastEvaluation="0001-01-01T00:00:00Z", health="unknown")
    recording = {"name": "rec", "type": "recording", "health": "ok", "uid": "r2", "query": "x"}
    grafana.groups = [group("g", fresh, recording)]
    records = read(client, "alerts")
    assert set(entities(records, "alert_rule")) == {"r1", "r2"}
    assert not [r for r in records if isinstance(r, Sample) and r.metric.endswith("_timestamp_seconds")]


def test_a_grafana_without_alerting(grafana: GrafanaStub, connect: Connect) -> None:
    grafana.alerting = False
    with pytest.raises(Refused, match=r"404: Not found \(its alerting is off: switch it on, or skip this poll"):
        read(connect(grafana), "alerts")


def test_statistics(any_grafana: GrafanaStub, connect_admin: Connect) -> None:
    fill(any_grafana)
    records = read(connect_admin(any_grafana), "statistics")
    assert value(records, "grafana_server_orgs") == 2
    assert value(records, "grafana_server_users_with_role", role="editor") == 6
    assert value(records, "grafana_server_users_active", window="1d") == 8
    assert value(records, "grafana_server_sessions_active", window="30d") == 15
    assert value(records, "grafana_unknown_fields", answer="statistics") == 0


@pytest.mark.parametrize("poll", ["statistics", "license"])
def test_what_only_a_server_administrator_may_read(start: Start, connect: Connect, poll: str) -> None:
    stub = start(12, enterprise=True)
    stub.license = LICENSE
    with pytest.raises(Refused, match=r"additional permissions.*give username and password of one, or skip this poll"):
        read(connect(stub), poll)


def test_the_organisation(any_grafana: GrafanaStub, connect: Connect) -> None:
    records = read(connect(any_grafana), "organisation")
    assert value(records, "grafana_org_info", org_id="1", org="Main Org.") == 1
    assert entities(records, "organisation") == {"1": {"name": "Main Org."}}


def test_no_licence(any_grafana: GrafanaStub, connect_admin: Connect) -> None:
    records = read(connect_admin(any_grafana), "license")
    assert value(records, "grafana_licensed", edition="oss") == 0
    assert len(records) == 1


@pytest.mark.parametrize(
    ("days", "severity", "words"), [(31, "", ""), (29, "warning", "ends "), (-1, "critical", "has ended")]
)
def test_a_licence_that_ends(start: Start, connect_admin: Connect, days: int, severity: str, words: str) -> None:
    stub = start(12, enterprise=True)
    ends = int((datetime.now(UTC) + timedelta(days=days)).timestamp())
    stub.license = LICENSE | {"lexp": ends}
    records = read(connect_admin(stub), "license")
    assert value(records, "grafana_licensed", edition="enterprise") == 1
    assert value(records, "grafana_license_expiry_timestamp_seconds") == ends
    assert value(records, "grafana_license_included_users") == 15
    assert value(records, "grafana_license_warning_seconds", of="license") == 30 * 86_400
    told: list[Event] = events(records, "license_expires")
    assert [one.severity for one in told] == ([severity] if severity else [])
    assert all(words in one.message for one in told)
