"""What is made: once, as wanted, told object by object when it is not, and taken back."""

import json
from typing import Any

import pytest

from nms_workers.errors import Refused
from nms_workers.services.kibana.client import KibanaClient, NotThere
from tests.services.kibana.conftest import Connect, Start
from tests.services.kibana.support import act, undo
from tests.stubs.kibana import KibanaStub

LENS = {"visualizationType": "lnsXY", "state": {"layers": []}}
PIE = {"visState": {"type": "pie", "params": {}, "aggs": []}}
VIEW = {"type": "index-pattern", "id": "v1", "name": "indexpattern-datasource-layer-1"}


def writes(kibana: KibanaStub) -> list[str]:
    """What was sent that changes something."""
    ways = ("_import", "_bulk_delete", "data_view", "dashboards/")
    sent = [one for one in kibana.seen if one.method != "GET"]
    return [f"{one.method} {one.path}" for one in sent if any(way in one.path for way in ways)]


def lines(*objects: dict[str, Any]) -> str:
    """An export of these objects."""
    details = {"exportedCount": len(objects), "missingRefCount": 0, "missingReferences": []}
    return "\n".join(json.dumps(one) for one in (*objects, details))


def dashboard(id: str, title: str = "A", *references: dict[str, Any]) -> dict[str, Any]:
    return {"type": "dashboard", "id": id, "attributes": {"title": title}, "references": list(references)}


def test_a_dashboard_of_lens_is_made_once_and_taken_back(kibana: KibanaStub, client: KibanaClient) -> None:
    kibana.put("lens", "l1", {"title": "Requests"})
    kibana.put("lens", "l2", {"title": "Errors"})
    wish = {
        "title": "Web",
        "description": "what the web does",
        "panels": [{"visualization": "Requests"}, {"visualization": "l2"}, {"visualization": "l1", "width": 48}],
    }
    made = act(client, "create_dashboard", **wish)
    assert made.changed
    (id,) = kibana.held("dashboard")
    assert made.before == {"made": [{"type": "dashboard", "id": id}]}
    references = kibana.held("dashboard")[id]["references"]
    assert [(one["type"], one["id"]) for one in references] == [("lens", "l1"), ("lens", "l2"), ("lens", "l1")]
    by_api = kibana.version.startswith("9.4")
    assert writes(kibana) == ([f"PUT /api/dashboards/{id}"] if by_api else ["POST /api/saved_objects/_import"])
    again = act(client, "create_dashboard", **wish)
    assert (again.changed, len(writes(kibana))) == (False, 1)
    back = undo(client, "create_dashboard", wish, made)
    assert (back.changed, kibana.held("dashboard")) == (True, {})
    assert set(kibana.held("lens")) == {"l1", "l2"}
    assert not undo(client, "create_dashboard", wish, made).changed


def test_the_panels_of_a_dashboard_lie_side_by_side_and_then_below(start: Start, connect: Connect) -> None:
    old, new = start("8.19.4"), start("9.4.0")
    sizes = [(24, 10), (24, 15), (12, 5), (48, 8)]
    panels = [{"visualization": "l1", "width": w, "height": h} for w, h in sizes]
    places = []
    for kibana in (old, new):
        kibana.put("lens", "l1", {"title": "Requests"})
        act(connect(kibana), "create_dashboard", title="Web", panels=panels)
    (stored,) = old.held("dashboard").values()
    shown = json.loads(stored["attributes"]["panelsJSON"])
    places = [tuple(one["gridData"][side] for side in "xywh") for one in shown]
    assert places == [(0, 0, 24, 10), (24, 0, 24, 15), (0, 15, 12, 5), (0, 20, 48, 8)]
    assert [one["panelRefName"] for one in shown] == ["panel_0", "panel_1", "panel_2", "panel_3"]
    assert [one["name"] for one in stored["references"]] == [f"{n}:panel_{n}" for n in range(4)]
    (put,) = [one.get_json() for one in new.seen if one.method == "PUT"]
    assert [tuple(one["grid"][side] for side in "xywh") for one in put["panels"]] == places
    assert put["panels"][0]["config"] == {"ref_id": "l1"}


def test_an_older_visualization_goes_by_import_on_9_4_too(start: Start, connect: Connect) -> None:
    kibana = start("9.4.1")
    kibana.put("visualization", "old", {"title": "Pie"})
    assert act(connect(kibana), "create_dashboard", title="Mixed", panels=[{"visualization": "Pie"}]).changed
    assert writes(kibana) == ["POST /api/saved_objects/_import"]


def test_a_panel_that_is_not_there_leaves_everything_as_it_is(kibana: KibanaStub, client: KibanaClient) -> None:
    with pytest.raises(NotThere, match="no visualization 'Requests'"):
        act(client, "create_dashboard", title="Web", panels=[{"visualization": "Requests"}])
    assert (writes(kibana), kibana.objects) == ([], {})


def test_an_id_of_another_object_is_refused(kibana: KibanaStub, client: KibanaClient) -> None:
    kibana.put("dashboard", "web", {"title": "Somebody's"})
    with pytest.raises(Refused, match='is called "Somebody\'s"'):
        act(client, "create_dashboard", title="Web", dashboard_id="web")
    assert not act(client, "create_dashboard", title="Somebody's", dashboard_id="web").changed
    assert writes(kibana) == []


def test_a_dashboard_of_this_title_that_others_made_is_the_one(kibana: KibanaStub, client: KibanaClient) -> None:
    kibana.put("dashboard", "other-id", {"title": "Web"})
    there = act(client, "create_dashboard", title="Web")
    assert (there.changed, there.after["id"]) == (False, "other-id")


def test_titles_are_found_among_many_and_told_apart(kibana: KibanaStub, connect: Connect) -> None:
    for number in range(20):
        kibana.put("dashboard", f"d{number}", {"title": f"Web {number}"})
    kibana.put("dashboard", "quoted", {"title": 'the "best" of all'})
    client = connect(kibana, max_objects=5)
    assert not act(client, "create_dashboard", title="Web 19").changed
    assert not act(client, "create_dashboard", title='the "best" of all').changed
    assert act(client, "create_dashboard", title="Best").changed  # it is in a title, and is none


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [("lens", LENS), ("visualization", PIE)],
    ids=["lens", "visualization"],
)
def test_a_visualization_is_made_once_and_taken_back(
    kibana: KibanaStub, client: KibanaClient, kind: str, attributes: dict[str, Any]
) -> None:
    kibana.put("index-pattern", "v1", {"title": "logs-*"})
    wish = {"title": "Requests", "kind": kind, "attributes": attributes, "references": [VIEW]}
    made = act(client, "create_visualization", **wish)
    assert made.changed
    (stored,) = kibana.held(kind).values()
    assert stored["attributes"]["title"] == "Requests"
    assert stored["references"] == [VIEW]
    assert kind == "lens" or json.loads(stored["attributes"]["visState"])["type"] == "pie"
    assert not act(client, "create_visualization", **wish).changed
    assert [one.title for one in client.get_visualizations()] == ["Requests"]
    assert undo(client, "create_visualization", wish, made).changed
    assert kibana.held(kind) == {}


def test_a_visualization_says_what_it_lacks(kibana: KibanaStub, client: KibanaClient) -> None:
    with pytest.raises(Refused, match="no visualizationType and no state"):
        act(client, "create_visualization", title="Requests", attributes={})
    with pytest.raises(Refused, match=r"missing_references of index-pattern v1.*import what it refers to first"):
        act(client, "create_visualization", title="Requests", attributes=LENS, references=[VIEW])
    assert kibana.objects == {}


def test_a_data_view_is_made_once_and_taken_back(kibana: KibanaStub, client: KibanaClient) -> None:
    wish = {"title": "logs-*,metrics-*", "name": "All", "time_field": "@timestamp"}
    made = act(client, "create_data_view", **wish)
    ((id, stored),) = kibana.held("index-pattern").items()
    assert stored["attributes"] == {"title": "logs-*,metrics-*", "name": "All", "timeFieldName": "@timestamp"}
    assert made.after["id"] == id
    assert not act(client, "create_data_view", **wish).changed
    assert not act(client, "create_data_view", title="logs-*,metrics-*").changed
    kibana.put("index-pattern", "all", {"title": "*"})
    assert not act(client, "create_data_view", title="*").changed
    with pytest.raises(Refused, match="Duplicate data view: All"):
        act(client, "create_data_view", title="other-*", name="All")
    assert undo(client, "create_data_view", wish, made).changed
    assert set(kibana.held("index-pattern")) == {"all"}


def test_the_same_wish_in_two_spaces_makes_two(kibana: KibanaStub, connect: Connect) -> None:
    ids = {act(connect(kibana, space=space), "create_data_view", title="logs-*").after["id"] for space in ("a", "b")}
    assert len(ids) == 2
    assert {space for space, _, _ in kibana.objects} == {"a", "b"}
    assert {one.path.split("/")[2] for one in kibana.seen if one.path.startswith("/s/")} == {"a", "b"}


def test_an_import_is_done_once_and_taken_back(kibana: KibanaStub, client: KibanaClient) -> None:
    content = lines(dashboard("d1", "One"), {"type": "tag", "id": "t1", "attributes": {"name": "prod"}})
    done = act(client, "import_objects", content=content)
    assert (done.changed, done.after["imported"], done.after["faults"]) == (True, 2, [])
    assert not act(client, "import_objects", content=content).changed
    kibana.put("tag", "t2", {"name": "not ours"})
    back = undo(client, "import_objects", {"content": content}, done)
    assert sorted(back.after["deleted"]) == ["dashboard d1", "tag t1"]
    assert set(kibana.objects) == {("default", "tag", "t2")}


def test_an_import_replaces_when_asked_only_and_the_undo_puts_it_back(kibana: KibanaStub, client: KibanaClient) -> None:
    kibana.put("dashboard", "d1", {"title": "Mine"})
    wish = {"content": lines(dashboard("d1", "Theirs"), dashboard("d2", "New"))}
    with pytest.raises(Refused, match=r"dashboard d1 \(Theirs\): conflict.*overwrite=true"):
        act(client, "import_objects", **wish)
    assert {id: one["attributes"]["title"] for id, one in kibana.held("dashboard").items()} == {"d1": "Mine"}
    done = act(client, "import_objects", **wish, overwrite=True)
    assert done.before["made"] == [{"type": "dashboard", "id": "d2"}]
    assert kibana.held("dashboard")["d1"]["attributes"]["title"] == "Theirs"
    back = undo(client, "import_objects", wish, done)
    assert (back.after["deleted"], back.after["restored"]) == (["dashboard d2"], ["dashboard d1"])
    assert {id: one["attributes"]["title"] for id, one in kibana.held("dashboard").items()} == {"d1": "Mine"}
    assert not undo(client, "import_objects", wish, done).changed


def test_what_was_replaced_and_is_too_large_is_not_kept(kibana: KibanaStub, client: KibanaClient) -> None:
    kibana.put("dashboard", "d1", {"title": "Mine", "panelsJSON": "x" * 300_000})
    wish = {"content": lines(dashboard("d1", "Theirs")), "overwrite": True}
    done = act(client, "import_objects", **wish)
    assert done.before == {"made": [], "replaced_too_large": True}
    with pytest.raises(Refused, match="too large to keep"):
        undo(client, "import_objects", wish, done)


def test_missing_references_are_told_and_nothing_is_made(kibana: KibanaStub, client: KibanaClient) -> None:
    reference = {"type": "index-pattern", "id": "gone", "name": "v"}
    content = lines(dashboard("d1", "One", reference), dashboard("d2", "Two"))
    with pytest.raises(Refused, match=r"dashboard d1 .*missing_references of index-pattern gone"):
        act(client, "import_objects", content=content)
    assert kibana.objects == {}


def test_an_object_of_an_unknown_type_is_told_and_the_rest_imported(kibana: KibanaStub, client: KibanaClient) -> None:
    content = lines(dashboard("d1", "One"), {"type": "hologram", "id": "h1", "attributes": {"title": "H"}})
    done = act(client, "import_objects", content=content)
    assert (done.after["imported"], done.after["faults"]) == (1, ["hologram h1 (H): unsupported_type"])
    assert "hologram h1" in done.message
    assert set(kibana.objects) == {("default", "dashboard", "d1")}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("hello", "line 1 is no saved object"),
        ('{"type": "dashboard"}', "line 1 is no saved object"),
        (lines(dashboard("d1"), dashboard("d1")), "line 2 has dashboard 'd1' a second time"),
        (lines(), "0 saved objects"),
        ("[1, 2]\n", "line 1 is no saved object"),
    ],
    ids=["no JSON", "no id", "twice", "none", "a list"],
)
def test_what_is_no_export_is_refused_before_anything_is_sent(
    kibana: KibanaStub, client: KibanaClient, content: str, words: str
) -> None:
    with pytest.raises(Refused, match=words):
        act(client, "import_objects", content=content)
    assert kibana.seen == []


def test_what_an_export_gave_goes_in_elsewhere_as_it_came(kibana: KibanaStub, connect: Connect) -> None:
    view = {"type": "index-pattern", "id": "v1", "name": "v"}
    kibana.put("index-pattern", "v1", {"title": "logs-*"})
    kibana.put("lens", "l1", LENS | {"title": "Requests"}, [view])
    kibana.put("dashboard", "d1", {"title": "Web"}, [{"type": "lens", "id": "l1", "name": "0:panel_0"}])
    kibana.put("dashboard", "d2", {"title": "Not asked for"})
    exported = connect(kibana).export_dashboard("d1").decode()
    assert [json.loads(one).get("id") for one in exported.split("\n")] == ["d1", "l1", "v1", None]
    elsewhere = connect(kibana, space="copy")
    assert act(elsewhere, "import_objects", content=exported).after["imported"] == 3
    assert {key[1:] for key in kibana.objects if key[0] == "copy"} == {
        ("dashboard", "d1"), ("lens", "l1"), ("index-pattern", "v1"),
    }  # fmt: skip
    with pytest.raises(NotThere, match="no dashboard 'd3'"):
        elsewhere.export_dashboard("d3")


def test_an_export_has_an_end(kibana: KibanaStub, connect: Connect) -> None:
    kibana.put("dashboard", "d1", {"title": "Web", "panelsJSON": "x" * 5000})
    kibana.put("lens", "l1", {"title": "x" * 5000})
    kibana.objects["default", "dashboard", "d1"]["references"] = [{"type": "lens", "id": "l1", "name": "a"}]
    with pytest.raises(Exception, match="more than 8000 bytes"):
        connect(kibana, max_body=8000).export_dashboard("d1")


def test_what_kibana_does_not_delete_is_told(kibana: KibanaStub, client: KibanaClient) -> None:
    wish = {"title": "logs-*", "data_view_id": "shared"}
    made = act(client, "create_data_view", **wish)
    kibana.refused_deletions = {"shared"}
    with pytest.raises(Refused, match=r"does not delete index-pattern shared.*another space"):
        undo(client, "create_data_view", wish, made)


def test_an_undo_without_a_note_is_refused(client: KibanaClient) -> None:
    with pytest.raises(Refused, match="says nothing of what it made"):
        act(client, "remove_made", before={})


@pytest.mark.parametrize(
    ("action", "arguments"),
    [
        ("create_dashboard", {"title": "a\nb"}),
        ("create_dashboard", {"title": " a"}),
        ("create_dashboard", {"title": "a", "dashboard_id": "../../x"}),
        ("create_dashboard", {"title": "a", "time_from": "yesterday"}),
        ("create_dashboard", {"title": "a", "panels": [{"visualization": "x", "width": 49}]}),
        ("create_dashboard", {"title": "a", "panels": [{"visualization": "x", "hight": 4}]}),
        ("create_data_view", {"title": "logs *"}),
        ("create_data_view", {"title": "a", "data_view_id": "x/../../y"}),
        ("create_visualization", {"title": "a", "attributes": {}, "kind": "hologram"}),
        ("create_visualization", {"title": "a", "attributes": {}, "references": [VIEW | {"id": "a/b"}]}),
        ("import_objects", {"content": ""}),
    ],
    ids=range(11),
)
def test_arguments_of_the_wrong_shape_are_refused(client: KibanaClient, action: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="cannot take these arguments"):
        act(client, action, **arguments)
