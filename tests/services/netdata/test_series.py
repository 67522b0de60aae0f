"""What becomes of charts that no agent here has: equal names, other units, charts that stand still, many of them."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nms_workers.services.netdata.model import Chart, Dimension, Node
from nms_workers.services.netdata.selection import chooser, simple_pattern
from nms_workers.services.netdata.series import METRIC, ChartSeries
from tests.stubs.netdata import simple_pattern_matches

NODE = Node("guid", "web", reachable=True, own=True)
NOW = 1_700_000_000


def chart(*dimensions: tuple[str, str, float | None], **more: Any) -> Chart:
    """A chart of these dimensions: id, name, value."""
    about = {"name": "c", "family": "f", "context": "ctx", "units": "u", "last_updated": NOW} | more
    return Chart(**about, dimensions={id_: Dimension(name, number) for id_, name, number in dimensions})


@pytest.fixture
def known() -> ChartSeries:
    return ChartSeries(chooser((), ("unwanted",)), stale_after=60)


def test_a_layout_is_made_once(known: ChartSeries) -> None:
    first = known.read(NODE, {"a": chart(("1", "in", 1.0)), "b": chart(("1", "in", 2.0))}, 10).block
    again = known.read(NODE, {"a": chart(("1", "in", 3.0)), "b": chart(("1", "in", None))}, 10).block
    assert first is not None
    assert again is not None
    assert again.layout is first.layout
    assert again.values[0] == 3
    assert math.isnan(again.values[1])


@pytest.mark.parametrize(
    "changed",
    [
        {"a": chart(("1", "in", 1.0))},
        {"a": chart(("1", "in", 1.0)), "b": chart(("1", "in", 1.0), units="v")},
        {"a": chart(("1", "in", 1.0)), "b": chart(("1", "in", 1.0), context="other")},
        {"a": chart(("1", "in", 1.0)), "b": chart(("1", "in", 1.0), ("2", "out", 1.0))},
        {"a": chart(("1", "in", 1.0)), "b": chart(("1", "renamed", 1.0))},
        {"b": chart(("1", "in", 1.0)), "a": chart(("1", "in", 1.0))},
    ],
    ids=["fewer", "unit", "context", "dimension", "name", "order"],
)
def test_a_layout_changes_with_the_charts(known: ChartSeries, changed: dict[str, Chart]) -> None:
    first = known.read(NODE, {"a": chart(("1", "in", 1.0)), "b": chart(("1", "in", 2.0))}, 10).block
    other = known.read(NODE, changed, 10).block
    assert first is not None
    assert other is not None
    assert other.layout.digest != first.layout.digest
    renamed = known.read(Node("guid", "web2", reachable=True, own=True), changed, 10).block
    assert renamed is not None
    assert {dict(one.labels)["node"] for one in renamed.layout.members} == {"web2"}


def test_dimensions_that_share_a_name_go_by_their_ids(known: ChartSeries) -> None:
    block = known.read(NODE, {"a": chart(("x.1", "same", 1.0), ("x.2", "same", 2.0))}, 10).block
    assert block is not None
    assert [dict(one.labels)["dimension"] for one in block.layout.members] == ["x.1", "x.2"]
    assert {one.metric for one in block.layout.members} == {METRIC}


def test_a_chart_that_stands_still_has_no_value(known: ChartSeries) -> None:
    charts = {"a": chart(("1", "in", 1.0)), "b": chart(("1", "in", 2.0), last_updated=NOW - 61)}
    reading = known.read(NODE, charts, 10)
    assert reading.block is not None
    assert (reading.charts, reading.stale) == (2, 1)
    assert str(reading.block.values.tolist()) == "[1.0, nan]"


def test_the_budget_keeps_whole_charts(known: ChartSeries) -> None:
    three = [(str(i), f"d{i}", 1.0) for i in range(3)]
    reading = known.read(NODE, {"a": chart(*three), "b": chart(*three), "c": chart(("1", "in", 1.0))}, 5)
    assert reading.block is not None
    assert [dict(one.labels)["chart"] for one in reading.block.layout.members] == ["a", "a", "a", "c"]
    assert reading.left_out == 3


def test_nothing_chosen_is_no_block(known: ChartSeries) -> None:
    reading = known.read(NODE, {"a": chart(("1", "in", 1.0), context="unwanted")}, 10)
    assert (reading.block, reading.charts, reading.left_out) == (None, 0, 0)


_WORDS = st.lists(st.text("ab.*", min_size=1, max_size=4), max_size=3)


@given(_WORDS, _WORDS, st.text("ab.", min_size=1, max_size=6))
def test_our_choice_is_that_of_a_simple_pattern(include: list[str], exclude: list[str], name: str) -> None:
    assert chooser(include, exclude)(name) == simple_pattern_matches(simple_pattern(include, exclude), name)
