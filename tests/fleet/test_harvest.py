"""What a run brought in, on its way to what is stored."""

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nms_workers.errors import ParseError
from nms_workers.fleet import harvest
from nms_workers.fleet.harvest import Harvest
from nms_workers.records import Entity, Event, Layout, Link, Record, Sample, SampleBlock, series
from nms_workers.store.slot import NETWORK_FLOAT

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def stored(brought: Harvest) -> dict[tuple[datetime, str], float]:
    """What the blocks say, by time and series."""
    blocks, layouts = brought.blocks(NOW)
    by_digest = {layout.digest: layout for layout in layouts}
    found = [
        ((block.ts, str(one)), value)
        for block in blocks
        for one, value in zip(
            by_digest[block.digest].members, np.frombuffer(block.values, NETWORK_FLOAT).tolist(), strict=True
        )
    ]
    assert len(dict(found)) == len(found)
    return dict(found)


def bring(*records: Record, volatile: bool = False, max_series: int = 100) -> Harvest:
    brought = Harvest(volatile, max_series)
    for record in records:
        brought.add(record)
    return brought


def block(names: list[str], ts: datetime | None = None) -> SampleBlock:
    return SampleBlock(Layout([series(name) for name in names]), np.arange(len(names), dtype=np.float64), ts)


_samples = st.lists(
    st.tuples(st.sampled_from("abcde"), st.sampled_from("xyz"), st.floats()), unique_by=lambda one: one[:2]
)


@given(_samples, st.booleans())
def test_every_sample_is_stored_with_its_value(found: list[tuple[str, str, float]], volatile: bool) -> None:
    kept = stored(bring(*(Sample(m, v, {"l": label}) for m, label, v in found), volatile=volatile))
    assert kept.keys() == {(NOW, f'{m}{{l="{label}"}}') for m, label, _ in found}
    for metric, label, value in found:
        here = kept[NOW, f'{metric}{{l="{label}"}}']
        assert here == value or (math.isnan(here) and math.isnan(value))


@given(_samples, st.randoms())
def test_the_order_of_yielding_makes_no_difference(found: list[tuple[str, str, float]], random: object) -> None:
    samples = [Sample(m, v, {"l": label}) for m, label, v in found]
    first, _ = bring(*samples).blocks(NOW)
    random.shuffle(samples)  # type: ignore[attr-defined]
    assert bring(*samples).blocks(NOW)[0] == first


def test_equal_sets_share_one_layout() -> None:
    _, first = bring(Sample("a", 1), Sample("b", 2)).blocks(NOW)
    _, second = bring(Sample("b", 3), Sample("a", 4)).blocks(NOW)
    assert first[0] is second[0]


def test_samples_of_other_moments_are_blocks_of_their_own() -> None:
    early = NOW - timedelta(minutes=1)
    kept = stored(bring(Sample("a", 1), Sample("a", 2, ts=early), Sample("b", 3, ts=early)))
    assert kept == {(NOW, "a"): 1, (early, "a"): 2, (early, "b"): 3}


def test_a_volatile_poll_has_a_layout_for_each_label_set() -> None:
    samples = [Sample(metric, 1, {"query": query}) for metric in ("calls", "seconds") for query in ("q1", "q2", "q3")]
    assert sorted(map(len, bring(*samples, volatile=True).blocks(NOW)[1])) == [2, 2, 2]
    assert sorted(map(len, bring(*samples).blocks(NOW)[1])) == [6]


def test_a_sample_that_comes_twice_is_counted_and_the_first_kept() -> None:
    brought = bring(Sample("a", 1), Sample("a", 2), Sample("a", 3), Sample("b", 4))
    assert stored(brought) == {(NOW, "a"): 1, (NOW, "b"): 4}
    assert brought.faults == "2 samples came twice in one read, the first was kept"


def test_a_block_that_comes_twice_is_counted_and_the_first_kept() -> None:
    brought = bring(block(["a", "b"]), block(["a", "b"]), block(["a", "b"], NOW - timedelta(seconds=1)))
    assert len(brought.blocks(NOW)[0]) == 2
    assert brought.faults == "2 samples came twice in one read, the first was kept"


def test_beyond_the_budget_samples_are_dropped_and_counted() -> None:
    brought = bring(block(["x", "y"]), *(Sample(f"m{n}", n) for n in range(5)), block(["u", "v"]), max_series=5)
    assert len(stored(brought)) == 5
    assert brought.faults == "4 samples beyond the target's max_series of 5 were dropped"


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda n: Event("k", f"m{n}"), "events"),
        (lambda n: Entity("k", f"m{n}"), "entities"),
        (lambda n: Link("k", ("a", "1"), ("b", f"{n}")), "links"),
    ],
)
def test_what_is_no_sample_is_bounded_too(make: type, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harvest, "MAX_OF_EACH", 10)
    brought = bring(*(make(n) for n in range(13)))
    assert getattr(brought, what) == [make(n) for n in range(10)]
    assert brought.faults == f"3 {what} beyond 10 in one read were dropped"


@pytest.mark.parametrize("record", [Event("k", "m"), Entity("k", "m"), Sample("a", 1), block(["a"])])
def test_it_knows_whether_it_holds_anything(record: Record) -> None:
    assert not Harvest(volatile=False, max_series=1)
    assert bring(record)


@pytest.mark.parametrize("junk", [None, 3, ("a", 1), {"a": 1}])
def test_what_is_no_record_is_refused(junk: object) -> None:
    with pytest.raises(ParseError, match="which is no record"):
        bring(junk)  # type: ignore[arg-type]
