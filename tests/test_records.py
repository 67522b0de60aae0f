"""Records are checked when they are made, so that nothing behind them has to."""

import math
from datetime import UTC, datetime

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nms_workers import records
from nms_workers.errors import ParseError
from nms_workers.records import Entity, Event, Layout, Link, Sample, SampleBlock, Series, series

NAIVE = datetime(2026, 1, 1)  # noqa: DTZ001 - what must be refused
SURROGATE = b"\xff".decode(errors="surrogateescape")


@pytest.mark.parametrize(
    "metric", ["", "9lives", "a-b", "a b", "ä", "up\n", 'x"y', "a" * (records.MAX_NAME + 1), "up{job='x'}"]
)
def test_a_metric_name_follows_openmetrics(metric: str) -> None:
    with pytest.raises(ParseError, match="is not a metric name"):
        Sample(metric, 1)


@pytest.mark.parametrize("metric", ["up", "_x", "node:cpu:rate5m", "a" * records.MAX_NAME])
def test_a_good_metric_name_is_taken(metric: str) -> None:
    assert Sample(metric, 1).series == Series(metric, ())


@pytest.mark.parametrize("label", ["", "9", "a:b", "a-b", "é", "a\n", "a" * (records.MAX_NAME + 1)])
def test_a_label_name_follows_openmetrics(label: str) -> None:
    with pytest.raises(ParseError, match="is not a label name"):
        Sample("up", 1, {label: "x"})


@pytest.mark.parametrize("value", ["x" * (records.MAX_LABEL_VALUE + 1), SURROGATE])
def test_a_label_value_is_bounded_unicode(value: str) -> None:
    with pytest.raises(ParseError, match="label name of up must be text"):
        Sample("up", 1, {"name": value})


def test_labels_are_bounded_and_named_once() -> None:
    with pytest.raises(ParseError, match="each once"):
        series("up", (("a", "1"), ("a", "2")))
    with pytest.raises(ParseError, match="at most 64 labels"):
        Sample("up", 1, {f"l{n}": "x" for n in range(records.MAX_LABELS + 1)})


def test_labels_are_sorted_and_turned_into_text() -> None:
    one = Sample("up", 1, {"port": 80, "host": "h"}).series  # type: ignore[dict-item]
    assert one.labels == (("host", "h"), ("port", "80"))
    assert str(one) == 'up{host="h",port="80"}'
    assert Sample("up", 1, {"host": "h", "port": "80"}).series == one


@pytest.mark.parametrize(
    ("given", "kept"), [(1, 1.0), ("2.5", 2.5), (True, 1.0), (b"3", 3.0), (np.float32(0.5), 0.5), ("inf", math.inf)]
)
def test_a_value_is_what_float_takes(given: object, kept: float) -> None:
    value = Sample("up", given).value  # type: ignore[arg-type]
    assert type(value) is float
    assert value == kept


def test_nan_is_kept() -> None:
    assert math.isnan(Sample("up", math.nan).value)


@pytest.mark.parametrize("value", ["n/a", "", None, [], 1j, 10**400])
def test_a_value_that_is_no_number_is_refused_by_name(value: object) -> None:
    with pytest.raises(ParseError, match=r"^up has the value .*, which is no number$"):
        Sample("up", value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "make",
    [
        lambda ts: Sample("up", 1, ts=ts),
        lambda ts: Event("k", "m", ts=ts),
        lambda ts: SampleBlock(Layout([series("up")]), np.ones(1), ts),
    ],
)
def test_a_time_names_its_zone(make: type) -> None:
    with pytest.raises(ParseError, match="time zone"):
        make(NAIVE)
    assert make(NAIVE.replace(tzinfo=UTC)).ts.tzinfo is UTC


def test_a_layout_names_a_series_once() -> None:
    with pytest.raises(ParseError, match=r'series a\{x="1"\} appears twice'):
        Layout([series("a", (("x", "1"),)), series("b"), series("a", (("x", "1"),))])


_series = st.builds(
    lambda name, labels: series(name, tuple(labels.items())),
    st.from_regex(r"[a-z_:][a-z0-9_:]{0,20}", fullmatch=True),
    st.dictionaries(st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True), st.text(max_size=30), max_size=4),
)


@given(st.lists(_series, unique=True, max_size=20))
def test_a_layout_comes_back_from_its_body(members: list[Series]) -> None:
    layout = Layout(members)
    again = Layout.from_body(layout.body)
    assert again.members == tuple(members)
    assert again.digest == layout.digest
    assert len(layout.digest) == 16


def test_the_order_of_series_makes_the_layout() -> None:
    a, b = series("a"), series("b")
    assert Layout([a, b]).digest != Layout([b, a]).digest


@pytest.mark.parametrize("values", [np.ones(2), np.ones((1, 1)), np.ones(0), np.float64(1)])
def test_a_block_fits_its_layout(values: np.ndarray) -> None:
    with pytest.raises(ParseError, match="for a layout of 1 series"):
        SampleBlock(Layout([series("up")]), values)


@pytest.mark.parametrize("dtype", [np.int64, np.float32, object])
def test_a_block_is_of_float64(dtype: type) -> None:
    with pytest.raises(ParseError, match="must be float64"):
        SampleBlock(Layout([series("up")]), np.ones(1, dtype=dtype))


_BAD_TEXT = ["", "x" * (records.MAX_TEXT + 1), "a\x00b", SURROGATE, None, 7]


@pytest.mark.parametrize("text", _BAD_TEXT)
@pytest.mark.parametrize(
    "make",
    [
        lambda text: Event(text, "m"),
        lambda text: Event("k", text),
        lambda text: Entity(text, "key"),
        lambda text: Entity("kind", text),
        lambda text: Link(text, ("a", "1"), ("b", "2")),
        lambda text: Link("k", ("a", text), ("b", "2")),
        lambda text: Link("k", ("a", "1"), (text, "2")),
    ],
)
def test_text_is_bounded_unicode_without_nul(make: type, text: object) -> None:
    with pytest.raises(ParseError, match="must be text of 1 to"):
        make(text)


@pytest.mark.parametrize("text", ["a\x00b", "x" * (records.MAX_TEXT + 1), 7])
def test_a_fingerprint_is_text(text: object) -> None:
    with pytest.raises(ParseError, match="event fingerprint"):
        Event("k", "m", fingerprint=text)  # type: ignore[arg-type]


def test_an_event_is_known_by_its_kind_unless_it_says_otherwise() -> None:
    assert Event("failover", "m").fingerprint == "failover"
    assert Event("failover", "m", fingerprint="db1").fingerprint == "db1"


@pytest.mark.parametrize("wrong", [{"severity": "bad"}, {"state": "over"}, {"severity": None}])
def test_severity_and_state_are_closed(wrong: dict[str, str]) -> None:
    with pytest.raises(ParseError, match="has the severity"):
        Event("k", "m", **wrong)  # type: ignore[arg-type]


def test_a_link_has_two_ends_of_two_parts() -> None:
    with pytest.raises(ParseError, match="each end of link"):
        Link("k", ("a", "1", "x"), ("b", "2"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "attributes",
    [{"a": object()}, {1: "x"}, ["x"], {"a": SURROGATE}, {"a": "x" * records.MAX_ATTRIBUTES}, {"a": 2**70 + 1j}],
)
@pytest.mark.parametrize(
    "make",
    [
        lambda attributes: Event("k", "m", attributes=attributes),
        lambda attributes: Entity("k", "m", attributes),
        lambda attributes: Link("k", ("a", "1"), ("b", "2"), attributes),
    ],
)
def test_attributes_are_bounded_json(make: type, attributes: object) -> None:
    with pytest.raises(ParseError, match="attributes of"):
        make(attributes)


@pytest.mark.parametrize(
    "record",
    [
        Event("k", "m", severity="critical", state="firing", attributes={"a": [1, None, {"b": 2}]}),
        Entity("k", "key", {"a": 1}),
        Link("k", ("a", "1"), ("b", "2"), {"x": "y"}),
    ],
)
def test_what_can_be_made_can_be_spooled(record: msgspec.Struct) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(record), type=type(record)) == record
