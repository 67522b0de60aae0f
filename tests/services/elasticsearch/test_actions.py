"""Actions: looked at before, safe to run twice, verified after, taken back exactly."""

from typing import Any

import pytest

from nms_workers.errors import Refused
from nms_workers.services.elasticsearch import indices
from nms_workers.services.elasticsearch.client import ElasticsearchClient
from nms_workers.services.elasticsearch.service import Elasticsearch
from nms_workers.transport.deadline import deadline
from tests.services.elasticsearch.conftest import Connect
from tests.services.elasticsearch.support import act
from tests.stubs.elasticsearch import NODES, ElasticsearchStub, lifecycle_policy, task_info

MAPPINGS = {"properties": {"@timestamp": {"type": "date"}, "n": {"type": "long"}}, "dynamic": "false"}
SETTINGS = {"number_of_shards": 2, "index.codec": "best_compression"}
ROUNDS = [{"after": "1d", "config": {"fixed_interval": "10m"}}]
WRITES = ("PUT", "POST", "DELETE")


def writes(stub: ElasticsearchStub) -> list[str]:
    """Requests that may change something."""
    return [f"{one.method} {one.path}" for one in stub.seen if one.method in WRITES]


# ---------------------------------------------------------------------- create_index


def test_create_index_once(stub: ElasticsearchStub, client: ElasticsearchClient) -> None:
    made = act(client, "create_index", index="logs-1", mappings=MAPPINGS, settings=SETTINGS)
    assert made.changed
    assert made.before == {"exists": False, "made": stub.indices["logs-1"]["settings"]["index.uuid"]}
    assert stub.indices["logs-1"]["settings"]["index.number_of_shards"] == "2"
    again = act(client, "create_index", index="logs-1", mappings=MAPPINGS, settings=SETTINGS)
    assert (again.changed, again.before) == (False, {"exists": True})
    assert writes(stub) == ["PUT /logs-1"]


def test_an_index_that_is_otherwise_is_not_taken_for_the_wanted_one(
    stub: ElasticsearchStub, client: ElasticsearchClient
) -> None:
    act(client, "create_index", index="logs-1", mappings=MAPPINGS, settings=SETTINGS)
    other = {"properties": {"n": {"type": "keyword"}, "m": {"type": "long"}}}
    with pytest.raises(Refused) as caught:
        act(client, "create_index", index="logs-1", mappings=other, settings={"codec": "default"})
    assert "other mappings.properties.n.type, mappings.properties.m, index.codec" in caught.value.message
    assert act(client, "create_index", index="logs-1", settings={"number_of_shards": "2"}).changed is False


def test_undo_of_create_index_deletes_what_it_made_while_it_is_empty(
    stub: ElasticsearchStub, client: ElasticsearchClient
) -> None:
    made = act(client, "create_index", index="logs-1")
    assert Elasticsearch.actions()["create_index"].undo == "remove_created_index"
    gone = act(client, "remove_created_index", index="logs-1", before=made.before)
    assert gone.changed
    assert stub.indices == {}
    assert act(client, "remove_created_index", index="logs-1", before=made.before).changed is False


def test_undo_of_create_index_keeps_what_holds_documents_or_is_another(
    stub: ElasticsearchStub, client: ElasticsearchClient
) -> None:
    made = act(client, "create_index", index="logs-1")
    stub.indices["logs-1"]["docs"]["1"] = {"n": 1}
    with pytest.raises(Refused, match="holds 1 documents now"):
        act(client, "remove_created_index", index="logs-1", before=made.before)
    stub.indices.clear()
    stub.make_index("logs-1")
    with pytest.raises(Refused, match="another than the one that was made"):
        act(client, "remove_created_index", index="logs-1", before=made.before)
    there = act(client, "create_index", index="logs-1")
    assert act(client, "remove_created_index", index="logs-1", before=there.before).changed is False
    assert list(stub.indices) == ["logs-1"]


def test_mappings_the_cluster_does_not_take_are_told(stub: ElasticsearchStub, client: ElasticsearchClient) -> None:
    mappings = {"properties": {"n": {"type": "no_such_type"}}}
    with pytest.raises(Refused, match=r"No handler for type \[no_such_type\].*\(correct the mappings\)"):
        act(client, "create_index", index="logs-1", mappings=mappings)
    stub.violations.clear()  # the vendor's description says the same


@pytest.mark.parametrize(
    "arguments",
    [
        {"mappings": {"propertys": {}}},
        {"settings": {"-x": 1}},
        {"settings": {"number_of_shards": {"a": 1}}},
        {"settings": {f"s{at}": 1 for at in range(201)}},
        {"settings": {"a\n": 1}},
    ],
    ids=["mapping", "setting", "value", "too many", "newline"],
)
def test_mappings_and_settings_are_checked_before_they_are_sent(arguments: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="cannot take these arguments"):
        Elasticsearch.actions()["create_index"].validate({"index": "logs-1"} | arguments)


# ---------------------------------------------------------------------- names


@pytest.mark.parametrize(
    "name",
    ["*", "logs-*", "_all", ".kibana", "-logs", "+logs", "a,b", "a/b", "a b", "a\n", "Logs", "<logs-{now/d}>", "a:b",
     "..", "a#b", "a?b", 'a"b', "a\\b", "a|b", "", "ä" * 128, "x" * 256, "a\x7fb", "a\u2028b"],
)  # fmt: skip
@pytest.mark.parametrize("action", ["create_index", "delete_index", "force_merge", "set_retention"])
def test_names_that_are_no_index_of_ones_own_are_refused(action: str, name: str) -> None:
    argument = "name" if action == "set_retention" else "index"
    rest = {"retention": "30d"} if action == "set_retention" else {}
    with pytest.raises(Refused, match=f"{argument}: "):
        Elasticsearch.actions()[action].validate({argument: name} | rest)


@pytest.mark.parametrize("name", ["logs-1", "logs-app-default", "2026.11", "größe", "a_b+c"])
def test_names_that_are_fine(name: str) -> None:
    assert Elasticsearch.actions()["delete_index"].validate({"index": name}) == {"index": name}


# ---------------------------------------------------------------------- delete_index


def test_delete_index(stub: ElasticsearchStub, client: ElasticsearchClient) -> None:
    stub.make_index("logs-1", docs=3)
    stub.make_index("logs-10")
    assert Elasticsearch.actions()["delete_index"].confirm
    gone = act(client, "delete_index", index="logs-1")
    assert gone.changed
    assert (gone.before["docs"], gone.before["exists"], gone.after) == ("3", True, {"exists": False})
    assert list(stub.indices) == ["logs-10"]
    assert act(client, "delete_index", index="logs-1").changed is False
    assert writes(stub) == ["DELETE /logs-1"]


def test_an_alias_or_a_data_stream_is_not_deleted(stub: ElasticsearchStub, client: ElasticsearchClient) -> None:
    stub.make_index("logs-1", aliases={"logs": {}})
    stub.make_stream("app")
    for name in ("logs", "app"):
        with pytest.raises(Refused, match="no index but an alias or a data stream"):
            act(client, "delete_index", index=name)
    stub.make_index("restored", data_stream="app")
    with pytest.raises(Refused, match="belongs to data stream app"):
        act(client, "delete_index", index="restored")
    assert writes(stub) == []


# ---------------------------------------------------------------------- set_retention


def test_retention_of_a_data_stream_by_its_lifecycle(stub: ElasticsearchStub, client: ElasticsearchClient) -> None:
    was = {"enabled": True, "data_retention": "7d", "downsampling": {"rounds": ROUNDS}}
    stub.make_stream("app", lifecycle=dict(was), next_generation_managed_by="Data stream lifecycle")
    done = act(client, "set_retention", name="app", retention="30d")
    assert done.changed
    assert done.before == {"managed_by": "lifecycle", "lifecycle": was}
    assert stub.streams["app"]["lifecycle"] == was | {"data_retention": "30d"}
    assert act(client, "set_retention", name="app", retention="30d").changed is False
    back = act(client, "restore_retention", name="app", before=done.before)
    assert back.changed
    assert stub.streams["app"]["lifecycle"] == was
    assert act(client, "restore_retention", name="app", before=done.before).changed is False


def test_a_data_stream_without_lifecycle_gets_one_and_loses_it(
    stub: ElasticsearchStub, client: ElasticsearchClient
) -> None:
    stub.make_stream("app")
    done = act(client, "set_retention", name="app", retention="30d")
    assert done.before == {"managed_by": "lifecycle", "lifecycle": None}
    assert stub.streams["app"]["lifecycle"]["data_retention"] == "30d"
    act(client, "restore_retention", name="app", before=done.before)
    assert "lifecycle" not in stub.streams["app"]


@pytest.mark.parametrize("told", [{}, {"next_generation_managed_by": None}], ids=["8.11", "before 8.11"])
def test_retention_of_a_data_stream_by_its_policy(
    stub: ElasticsearchStub, client: ElasticsearchClient, told: dict[str, Any]
) -> None:
    stub.make_stream(
        "app", **{"ilm_policy": "weekly", "next_generation_managed_by": "Index Lifecycle Management"} | told
    )
    if told:
        del stub.streams["app"]["next_generation_managed_by"]
        stub._contract = None  # a version older than the description
    _policy(stub, "weekly", data_streams=["app"], indices=[".ds-app-2026.11.22-000001"])
    done = act(client, "set_retention", name="app", retention="30d")
    assert done.after["delete"]["min_age"] == "30d"
    assert stub.policies["weekly"]["policy"]["phases"]["hot"] == {
        "min_age": "0ms",
        "actions": {"rollover": {"max_age": "1d"}},
    }
    assert stub.policies["weekly"]["policy"]["_meta"] == {"by": "us"}
    assert act(client, "set_retention", name="app", retention="30d").changed is False
    act(client, "restore_retention", name="app", before=done.before)
    assert stub.policies["weekly"]["policy"]["phases"]["delete"] == {"min_age": "7d", "actions": {"delete": {}}}
    assert "lifecycle" not in stub.streams["app"]


def test_a_policy_without_an_end_gets_one_and_loses_it(stub: ElasticsearchStub, client: ElasticsearchClient) -> None:
    stub.make_index("logs-1")["settings"]["index.lifecycle.name"] = "for_ever"
    _policy(stub, "for_ever", indices=["logs-1"])
    del stub.policies["for_ever"]["policy"]["phases"]["delete"]
    done = act(client, "set_retention", name="logs-1", retention="90d")
    assert stub.policies["for_ever"]["policy"]["phases"]["delete"] == {"min_age": "90d", "actions": {"delete": {}}}
    act(client, "restore_retention", name="logs-1", before=done.before)
    assert list(stub.policies["for_ever"]["policy"]["phases"]) == ["hot"]


def test_a_policy_that_serves_others_is_changed_only_when_that_is_said(
    stub: ElasticsearchStub, client: ElasticsearchClient
) -> None:
    stub.make_index("logs-1")["settings"]["index.lifecycle.name"] = "weekly"
    _policy(stub, "weekly", indices=["logs-1", "logs-2"], data_streams=["app"])
    with pytest.raises(Refused, match=r"serves 2 more: app, logs-2 \(say shared=true"):
        act(client, "set_retention", name="logs-1", retention="30d")
    assert act(client, "set_retention", name="logs-1", retention="30d", shared=True).changed


def test_what_nothing_manages_is_refused(stub: ElasticsearchStub, client: ElasticsearchClient) -> None:
    stub.make_index("plain")
    stub.make_stream("sys", system=True)
    for name, words in (
        ("plain", "nothing manages"),
        ("sys", "belongs to the system"),
        ("gone", "no data stream and no"),
    ):
        with pytest.raises(Refused, match=words):
            act(client, "set_retention", name=name, retention="30d")
    assert writes(stub) == []


def test_a_bound_of_the_cluster_is_told(stub: ElasticsearchStub, client: ElasticsearchClient) -> None:
    stub.make_stream("app", lifecycle={"enabled": True})
    stub.global_retention = "7d"
    done = act(client, "set_retention", name="app", retention="30d")
    assert done.message == "app keeps data for 30d, and the cluster's own bound makes it 7d"


@pytest.mark.parametrize("before", [{}, {"managed_by": "policy"}, {"managed_by": "x", "lifecycle": None}])
def test_restore_takes_only_what_set_retention_gave(client: ElasticsearchClient, before: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="not what set_retention found before"):
        act(client, "restore_retention", name="app", before=before)


@pytest.mark.parametrize("retention", ["0d", "-1d", "30", "1y", "1 d", "٣d", "1d\n", "9999999d"])
def test_retentions_that_are_none(retention: str) -> None:
    with pytest.raises(Refused, match="retention: "):
        Elasticsearch.actions()["set_retention"].validate({"name": "app", "retention": retention})


# ---------------------------------------------------------------------- force_merge


def test_force_merge_is_followed_to_its_end(stub: ElasticsearchStub, client: ElasticsearchClient) -> None:
    stub.make_index("logs-1", docs=3)
    done = act(client, "force_merge", index="logs-1")
    assert (done.changed, done.before, done.after["segments"], done.after["done"]) == (True, {"segments": 7}, 1, True)
    assert act(client, "force_merge", index="logs-1").changed is False
    assert writes(stub) == ["POST /logs-1/_forcemerge"]
    assert len([one for one in stub.paths("GET") if one.startswith("/_tasks/")]) == 2


def test_force_merge_lets_go_before_its_deadline_and_takes_up_again(
    stub: ElasticsearchStub, client: ElasticsearchClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indices, "_MARGIN", 60.0)  # the whole of its time: it looks once
    stub.make_index("logs-1", docs=3)
    task = f"{next(iter(NODES))}:2"
    stub.following[task] = [{"completed": False}]
    with deadline(60):
        left = act(client, "force_merge", index="logs-1")
    assert left.after == {"segments": 7, "task": task, "done": False}
    assert "goes on by itself" in left.message
    stub.following[task] = [{"completed": True, "response": {}, "merges": ["logs-1"], "segments": 1}]
    done = act(client, "force_merge", index="logs-1")
    assert done.after == {"segments": 1, "task": task, "done": True}
    assert writes(stub) == ["POST /logs-1/_forcemerge"]  # once


def test_a_merge_of_another_index_is_not_taken_for_ours(stub: ElasticsearchStub, client: ElasticsearchClient) -> None:
    stub.make_index("logs-1", docs=3)
    what = "Force-merge indices [logs-10], maxSegments[1]"
    stub.tasks.append(task_info(next(iter(NODES)), 99, "indices:admin/forcemerge", 5, what))
    assert act(client, "force_merge", index="logs-1").after["task"] != f"{next(iter(NODES))}:99"


def test_a_merge_that_fails_is_told(stub: ElasticsearchStub, client: ElasticsearchClient) -> None:
    stub.make_index("logs-1", docs=3)
    task = f"{next(iter(NODES))}:2"
    stub.following[task] = [{"completed": True, "error": {"type": "x", "reason": "no space left on device"}}]
    with pytest.raises(Refused, match=f"task {task} failed: no space left on device"):
        act(client, "force_merge", index="logs-1")
    stub.following[f"{next(iter(NODES))}:3"] = [
        {"completed": True, "response": {"_shards": {"total": 2, "successful": 1, "failed": 1}}}
    ]
    with pytest.raises(Refused, match="failed for 1 shards"):
        act(client, "force_merge", index="logs-1")


def test_a_merge_that_the_cluster_forgot_is_judged_by_the_segments(
    stub: ElasticsearchStub, client: ElasticsearchClient
) -> None:
    stub.make_index("logs-1", docs=3)
    stub.following[f"{next(iter(NODES))}:2"] = []
    assert act(client, "force_merge", index="logs-1").changed is False


def test_an_index_too_big_to_merge_is_refused(stub: ElasticsearchStub, connect: Connect) -> None:
    stub.make_index("logs-1", docs=3, bytes=10**12)
    with pytest.raises(Refused, match=r"has 1000000000000 bytes, more than 1000 \(raise max_merge_bytes"):
        act(connect(stub.url, max_merge_bytes=1000), "force_merge", index="logs-1")
    with pytest.raises(Refused, match="no index gone"):
        act(connect(stub.url), "force_merge", index="gone")
    assert writes(stub) == []


def test_changes_of_one_index_wait_for_each_other_alone() -> None:
    lanes = {name: one.serialize_by for name, one in Elasticsearch.actions().items()}
    assert lanes == {
        "create_index": "index", "remove_created_index": "index", "delete_index": "index", "force_merge": "index",
        "set_retention": None, "restore_retention": None,  # a policy is shared: one at a time
    }  # fmt: skip


def _policy(stub: ElasticsearchStub, name: str, **in_use_by: list[str]) -> None:
    phases = {
        "hot": {"min_age": "0ms", "actions": {"rollover": {"max_age": "1d"}}},
        "delete": {"min_age": "7d", "actions": {"delete": {}}},
    }
    stub.policies[name] = lifecycle_policy({"phases": phases, "_meta": {"by": "us"}}, **in_use_by)
