"""What is read: levels, metrics, objects, tasks, alerting; each fault fires as long as it lasts."""

from collections.abc import Iterator

import pytest

from nms_workers.errors import AuthError, ParseError, Refused, Unreachable
from nms_workers.records import Link, Record
from nms_workers.services.kibana.client import KibanaClient
from nms_workers.services.kibana.service import Kibana
from nms_workers.services.kibana.target import KibanaTarget
from tests.services.kibana.conftest import Connect, Start
from tests.services.kibana.support import firing, read, value, values
from tests.services.records import entities
from tests.stubs.kibana import API_KEY, PASSWORD, USER, KibanaStub, rule
from tests.transport.sites import Site


def test_status_of_a_kibana_that_is_well(kibana: KibanaStub, client: KibanaClient) -> None:
    records = read(client, "status")
    assert value(records, "kibana_status_level") == 0
    assert values(records, "kibana_core_status_level") == {"elasticsearch": 0, "savedObjects": 0}
    assert values(records, "kibana_plugins") == {"available": 3, "degraded": 0, "unavailable": 0, "critical": 0}
    assert value(records, "kibana_heap_used_bytes") == 400_000_000
    assert value(records, "kibana_uptime_seconds") == 3600.5
    assert value(records, "kibana_response_time_mean_seconds") == 0.0125
    assert value(records, "kibana_requests_per_second") == 5  # 25 in 5 s
    assert values(records, "kibana_interval_responses") == {"200": 24, "404": 1}
    assert values(records, "kibana_event_loop_delay_quantile_seconds")["0.99"] == 0.02
    assert value(records, "kibana_cgroup_cfs_throttled_seconds_total") == 0.5
    assert values(records, "kibana_unknown_fields") == {"status": 0}
    assert entities(records, "instance")["5b2de169-2785-441b-ae8c-186a1936b17d"]["version"] == kibana.version
    assert firing(records) == {}


def test_what_is_not_available_fires_and_no_longer_named_once_it_is(kibana: KibanaStub, client: KibanaClient) -> None:
    kibana.overall |= {"level": "degraded", "summary": "1 plugin is degraded"}
    kibana.plugins["alerting"] |= {"level": "degraded", "summary": "rules fail", "detail": "see the log"}
    kibana.core["elasticsearch"] |= {"level": "critical", "summary": "Elasticsearch is away"}
    kibana.status_code = 503  # what Kibana answers when a core service is away, with the whole status in it
    records = read(client, "status")
    events = firing(records)
    assert set(events) == {"overall", "plugin:alerting", "core:elasticsearch"}
    assert events["core:elasticsearch"].severity == "critical"
    assert "Elasticsearch is away" in events["core:elasticsearch"].message
    assert events["plugin:alerting"].attributes["detail"] == "see the log"
    assert values(records, "kibana_plugin_status_level")["alerting"] == 1
    assert "service_unavailable" in Kibana.polls()["status"].enumerates  # so the fleet resolves what is not named
    kibana.core["elasticsearch"]["level"] = kibana.plugins["alerting"]["level"] = kibana.overall["level"] = "available"
    assert firing(read(client, "status")) == {}


def test_a_level_and_a_number_of_a_later_version_are_told(connect: Connect) -> None:
    with KibanaStub() as kibana:  # without the description, which knows no such level
        kibana.plugins["dashboard"] |= {"level": "sleepy", "summary": "zzz"}
        kibana.metrics["process"]["threads"] = 12
        records = read(connect(kibana), "status")
    assert values(records, "kibana_plugin_status_level")["dashboard"] == 4
    assert values(records, "kibana_plugins")["sleepy"] == 1
    assert values(records, "kibana_unknown_fields") == {"status": 1}
    assert entities(records, "instance").popitem()[1]["unknown_fields"] == ["process.threads"]
    assert firing(records)["plugin:dashboard"].severity == "error"


def test_stats_name_the_cluster(client: KibanaClient) -> None:
    records = read(client, "stats")
    assert values(records, "kibana_cluster_info") == {"RpUdRmlJTDeHXyYj1qFVLQ": 1}
    assert value(records, "kibana_status_code") == 1
    assert values(records, "kibana_unknown_fields") == {"stats": 0}
    (link,) = [one for one in records if isinstance(one, Link)]
    assert (link.a, link.b) == (
        ("instance", "5b2de169-2785-441b-ae8c-186a1936b17d"),
        ("cluster", "RpUdRmlJTDeHXyYj1qFVLQ"),
    )


def test_strangers_and_wrong_keys_are_told_apart_from_faults(
    kibana: KibanaStub, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WRONG", "d3Jvbmc=")
    stranger = connect(kibana, token="env:WRONG")
    with pytest.raises(AuthError, match="overall level"):
        read(stranger, "status")
    with pytest.raises(AuthError, match="unable to authenticate"):
        read(stranger, "task_manager")
    monkeypatch.setenv("TEST_KIBANA_PASSWORD", PASSWORD)
    known = connect(kibana, username=USER, password="env:TEST_KIBANA_PASSWORD")
    assert value(read(known, "status"), "kibana_status_level") == 0


def test_a_kibana_without_security_needs_no_key(start: Start) -> None:
    kibana = start("8.19.4", secured=False)
    client = KibanaClient(KibanaTarget(url=kibana.url))
    assert value(read(client, "status"), "kibana_status_level") == 0
    client.close()


@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        (200, b'{"tagline": "You Know, for Search"}', ParseError, "no status of a Kibana 8 or 9"),
        (200, b'{"name":"k","status":{"overall":{"state":"green"}}}', ParseError, "no status of a Kibana 8 or 9"),
        (503, b"Kibana server is not ready yet", Unreachable, "not ready yet"),
        (503, b'{"status":{"overall":{"level":"critical"}}}', AuthError, "overall level"),
    ],
    ids=["Elasticsearch", "Kibana 7", "starting", "a stranger at a sick one"],
)
def test_what_is_no_status(connect: Connect, status: int, body: bytes, error: type[Exception], words: str) -> None:
    with Site({"*": lambda call: call.answer(status, body)}) as site:
        client = connect(site, retry={"attempts": 1})
        with pytest.raises(error, match=words):
            read(client, "status")


def test_saved_objects_are_counted_and_listed(kibana: KibanaStub, client: KibanaClient) -> None:
    kibana.put("dashboard", "d1", {"title": "Web", "description": "of the web", "panelsJSON": "[]"})
    kibana.put("dashboard", "d2", {"title": "Mail"})
    kibana.put("lens", "l1", {"title": "Requests"})
    kibana.put("tag", "t1", {"name": "prod"})
    kibana.put("dashboard", "d3", {"title": "elsewhere"}, space="other")
    records = read(client, "saved_objects")
    counts = values(records, "kibana_saved_objects")
    assert (counts["dashboard"], counts["lens"], counts["tag"], counts["visualization"]) == (2, 1, 1, 0)
    listed = entities(records, "saved_object")
    assert set(listed) == {"dashboard/d1", "dashboard/d2", "lens/l1", "tag/t1"}
    assert (listed["dashboard/d1"]["title"], listed["dashboard/d1"]["description"]) == ("Web", "of the web")
    assert listed["tag/t1"]["title"] == "prod"
    assert {tuple(one.args.getlist("fields")) for one in kibana.seen} == {("title", "name", "description")}


def kept_then_refused(client: KibanaClient, poll: str) -> tuple[list[Record], Refused]:
    """What a poll yields before it says that there is more."""
    records: list[Record] = []
    run: Iterator[Record] = Kibana.polls()[poll].run(client)
    with pytest.raises(Refused) as told:
        records.extend(run)  # what came before the error stays
    return records, told.value


def test_what_is_over_a_limit_is_counted_and_told_and_the_rest_kept(kibana: KibanaStub, connect: Connect) -> None:
    for number in range(7):
        kibana.put("dashboard", f"d{number}", {"title": f"D {number}"})
        kibana.put("index-pattern", f"v{number}", {"title": f"logs-{number}"})
        kibana.rules.append(rule(f"r{number}", f"R {number}"))
    client = connect(kibana, max_objects=3, max_data_views=4, max_rules=5, object_types=["dashboard", "map"])
    records, told = kept_then_refused(client, "saved_objects")
    assert values(records, "kibana_saved_objects") == {"dashboard": 7, "map": 0}
    assert values(records, "kibana_left_out") == {"dashboard": 4, "map": 0}
    assert set(entities(records, "saved_object")) == {"dashboard/d0", "dashboard/d1", "dashboard/d2"}
    assert "raise max_objects" in str(told)
    records, told = kept_then_refused(client, "data_views")
    assert (value(records, "kibana_data_views"), len(entities(records, "data_view"))) == (7, 4)
    assert "3 of 7 data views are over max_data_views" in str(told)
    records, told = kept_then_refused(client, "rules")
    assert (values(records, "kibana_left_out"), len(entities(records, "rule"))) == ({"rule": 2}, 5)
    assert "raise max_rules" in str(told)


def test_a_type_that_kibana_has_not_does_not_cost_the_others(kibana: KibanaStub, connect: Connect) -> None:
    kibana.put("dashboard", "d1", {"title": "Web"})
    records, told = kept_then_refused(connect(kibana, object_types=["hologram", "dashboard"]), "saved_objects")
    assert values(records, "kibana_saved_objects") == {"dashboard": 1}
    assert "hologram" in str(told)
    assert "take the type out of object_types" in str(told)


def test_many_objects_and_rules_come_page_by_page(start: Start, connect: Connect) -> None:
    kibana = start("8.19.4")
    for number in range(1201):
        kibana.put("lens", f"l{number}", {"title": f"L {number}"})
    kibana.rules = [rule(f"r{number}", f"R {number:04}") for number in range(230)]
    client = connect(kibana, max_objects=10_000)
    assert len(client.get_visualizations()) == 1201
    assert [one.args["page"] for one in kibana.seen if one.args.get("type") == "lens"] == ["1", "2", "3"]
    found, total = client.get_rules()
    assert (len({one.id for one in found}), total) == (230, 230)


def test_data_views(kibana: KibanaStub, client: KibanaClient) -> None:
    kibana.put("index-pattern", "v1", {"title": "logs-*", "name": "Logs", "timeFieldName": "@timestamp"})
    records = read(client, "data_views")
    assert entities(records, "data_view") == {"v1": {"title": "logs-*", "name": "Logs", "namespaces": ["default"]}}
    assert [one.title for one in client.get_index_patterns()] == ["logs-*"]
    found = client.get_data_view("v1")
    assert found is not None
    assert found.time_field == "@timestamp"
    assert client.get_data_view("v2") is None


def test_task_manager(kibana: KibanaStub, client: KibanaClient) -> None:
    records = read(client, "task_manager")
    assert value(records, "kibana_task_manager_health") == 0
    assert values(records, "kibana_task_manager_drift_seconds") == {"0.5": 1.5, "0.9": 3, "0.95": 4.5, "0.99": 6}
    assert values(records, "kibana_task_manager_load_ratio")["0.9"] == 0.2
    assert value(records, "kibana_task_manager_drain_overdue_seconds") == 120
    assert values(records, "kibana_task_manager_tasks_in_state")["alerting:.index-threshold/running"] == 1
    assert values(records, "kibana_unknown_fields") == {"task_manager": 0}
    assert firing(records) == {}


def test_tasks_that_are_not_well_fire(kibana: KibanaStub, client: KibanaClient) -> None:
    kibana.task_manager["status"] = "error"
    stats = kibana.task_manager["stats"]
    stats["capacity_estimation"] |= {"status": "warn", "reason": "more is required than there is"}
    frequency = stats["runtime"]["value"]["execution"]["result_frequency_percent_as_number"]
    frequency["alerting:.index-threshold"] |= {"Failed": 95, "Success": 5, "status": "error"}
    records = read(client, "task_manager")
    events = firing(records)
    assert set(events) == {"task_manager", "task_manager:capacity_estimation", "task_type:alerting:.index-threshold"}
    assert "more is required" in events["task_manager:capacity_estimation"].message
    assert {one.severity for one in events.values()} == {"error", "warning"}
    assert values(records, "kibana_task_manager_part_health")["capacity_estimation"] == 1


def test_types_of_tasks_are_bounded_and_still_fire(kibana: KibanaStub, connect: Connect) -> None:
    value_of = kibana.task_manager["stats"]["runtime"]["value"]
    for number in range(5):
        value_of["drift_by_type"][f"type{number}"] = {"p50": 1, "p99": 2}
        value_of["execution"]["result_frequency_percent_as_number"][f"type{number}"] = {"Success": 1, "status": "warn"}
    records = read(connect(kibana, max_task_types=2), "task_manager")
    shown = {name.partition("/")[0] for name in values(records, "kibana_task_manager_task_drift_seconds")}
    assert shown == {"alerting:.index-threshold", "type0"}
    assert values(records, "kibana_left_out") == {"task_type": 4}
    assert {f"task_type:type{number}" for number in range(5)} <= set(firing(records))


def test_a_task_manager_that_has_just_begun(kibana: KibanaStub, client: KibanaClient) -> None:
    kibana.task_manager |= {"status": "uninitialized", "stats": {}}
    records = read(client, "task_manager")
    assert value(records, "kibana_task_manager_health") == 3
    assert firing(records)["task_manager"].severity == "warning"


def test_alerting(kibana: KibanaStub, client: KibanaClient) -> None:
    kibana.alerting["decryption_health"] = "error"
    kibana.secure = False
    records = read(client, "alerting")
    assert values(records, "kibana_alerting_health") == {"decryption": 2, "execution": 0, "read": 0}
    assert value(records, "kibana_alerting_sufficiently_secure") == 0
    assert {name: one.severity for name, one in firing(records).items()} == {"alerting:decryption": "error"}


def test_rules_fire_while_they_fail_or_have_alerts(kibana: KibanaStub, client: KibanaClient) -> None:
    failed = rule("r2", "cpu", "error")
    failed["execution_status"]["error"] = {"reason": "decrypt", "message": "the key has changed"}
    kibana.rules = [
        rule("r1", "disk", "active"),
        failed,
        rule("r3", "off", "error", enabled=False),
        rule("r4", "elsewhere", "active", space="other"),
        rule("r5", "fine", mute_all=True),
    ]
    records = read(client, "rules")
    events = firing(records)
    assert set(events) == {"rule_active:r1", "rule_failing:r2"}
    assert events["rule_active:r1"].attributes["active"] == 2
    assert "decrypt: the key has changed" in events["rule_failing:r2"].message
    assert values(records, "kibana_rules") == {
        "ok": 1, "active": 1, "warning": 0, "error": 1, "pending": 0, "unknown": 0,
    }  # fmt: skip
    assert (value(records, "kibana_rules_enabled"), value(records, "kibana_rules_disabled")) == (3, 1)
    assert value(records, "kibana_rules_muted") == 1
    assert values(records, "kibana_rule_duration_seconds") == {"r1": 1.5, "r2": 1.5, "r5": 1.5}
    assert set(entities(records, "rule")) == {"r1", "r2", "r3", "r5"}
    kibana.rules = [rule("r1", "disk"), rule("r2", "cpu")]
    assert firing(read(client, "rules")) == {}


def test_another_space_is_read_by_its_prefix(kibana: KibanaStub, connect: Connect) -> None:
    kibana.put("dashboard", "d1", {"title": "Here"}, space="noc")
    kibana.put("dashboard", "d2", {"title": "There"})
    kibana.rules = [rule("r1", "disk", "active", space="noc")]
    client = connect(kibana, space="noc", object_types=["dashboard"])
    records = [record for poll in Kibana.polls() for record in read(client, poll)]
    assert set(entities(records, "saved_object")) == {"dashboard/d1"}
    assert set(firing(records)) == {"rule_active:r1"}
    whole = {"/api/status", "/api/stats", "/api/task_manager/_health"}  # of the server, not of a space
    assert {one.path for one in kibana.seen if not one.path.startswith("/s/noc/")} == whole


def test_nothing_told_holds_a_credential(client: KibanaClient) -> None:
    told = [str(one) for poll in Kibana.polls() for one in read(client, poll)]
    assert told
    assert API_KEY not in "".join(told) + repr(client.target)
