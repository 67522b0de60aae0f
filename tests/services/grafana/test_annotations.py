"""Annotations have no name: one is known by all that it says."""

from typing import Any

import pytest

from nms_workers.errors import Refused
from nms_workers.jobs.wish import Wish, checked
from nms_workers.services.grafana.client import GrafanaClient
from nms_workers.services.grafana.service import Grafana
from tests.services.grafana.support import REMARK, act, twice, undo
from tests.stubs.grafana import GrafanaStub


@pytest.mark.parametrize(
    "more",
    [{}, {"end": "2026-01-02T05:00:00+01:00"}, {"dashboard": "hosts"}, {"dashboard": "hosts", "panel": 3}],
    ids=["moment", "span", "dashboard", "panel"],
)
def test_a_remark_and_back(filled: GrafanaStub, client: GrafanaClient, more: dict[str, Any]) -> None:
    asked = REMARK | more
    change = twice(client, "create_annotation", **asked)
    (made,) = filled.annotations.values()
    assert (made["text"], made["time"], made["tags"]) == ("deployed 2.3\non all", 1767323045678, ["a", "b"])
    assert change.after["id"] == made["id"]
    other = act(client, "create_annotation", **asked | {"text": "something else"})
    assert other.changed
    assert undo(client, "create_annotation", asked, change).changed
    assert [one["text"] for one in filled.annotations.values()] == ["something else"]
    assert not undo(client, "create_annotation", asked, change).changed


def test_a_remark_without_a_time_is_of_when_it_was_wished(filled: GrafanaStub, client: GrafanaClient) -> None:
    """The time stands in the job, so that a job that runs twice makes one annotation."""
    declared = Grafana.actions()["create_annotation"]
    _, kept = checked(Wish("grafana", "create_annotation", "g", {"text": "now"}, "ann"), declared)
    for _ in range(2):
        change = declared.run(client, **declared.validate(kept))
    assert not change.changed
    (made,) = filled.annotations.values()
    undo(client, "create_annotation", kept, change)
    assert filled.annotations == {}
    assert made["text"] == "now"


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"end": "2026-01-02T03:00:00Z"}, "ends before it begins"),
        ({"panel": 3}, "a panel belongs to a dashboard"),
        ({"time": "2026-01-02T03:04:05"}, "time"),
        ({"time": "0001-01-01T00:00:00Z"}, "time"),
        ({"text": ""}, "text"),
        ({"text": "a\x00b"}, "text"),
        ({"tags": ["x"] * 51}, "tags"),
    ],
)
def test_a_remark_that_cannot_be_made(
    filled: GrafanaStub, client: GrafanaClient, other: dict[str, Any], why: str
) -> None:
    with pytest.raises(Refused, match=why):
        act(client, "create_annotation", **REMARK | other)
    assert filled.annotations == {}
