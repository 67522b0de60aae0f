"""Due times: properties that hold for every target, interval and clock."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from nms_workers.fleet.slots import late, latest_due, phase, settled, tick

names = st.text(min_size=1, max_size=30)
intervals = st.integers(1_000, 7 * 86_400_000)
moments = st.integers(0, 4 * 10**12)


@given(names, names, intervals)
def test_a_phase_is_stable_and_within_the_interval(target: str, poll: str, every_ms: int) -> None:
    first = phase("redis", target, poll, every_ms)
    assert 0 <= first < every_ms
    assert phase("redis", target, poll, every_ms) == first


@given(st.integers(0, 10**6), st.sampled_from([1_000, 30_000, 60_000, 3_600_000]))
@settings(max_examples=25)
def test_phases_spread_evenly(salt: int, every_ms: int) -> None:
    parts, targets = 20, 4_000
    found = [0] * parts
    for number in range(targets):
        found[phase("snmp", f"{salt}-switch-{number}", "interfaces", every_ms) * parts // every_ms] += 1
    expected = targets / parts
    assert sum((one - expected) ** 2 / expected for one in found) < 60  # chi-square, 19 degrees of freedom: p < 1e-5


def test_the_polls_of_one_target_do_not_fire_together() -> None:
    phases = {phase("redis", "cache", poll, 60_000) for poll in ("server", "memory", "clients", "keys", "slowlog")}
    assert len(phases) == 5


@given(moments, intervals, st.data())
def test_the_latest_due_time_is_the_last_one_not_after_now(now: int, every_ms: int, data: st.DataObject) -> None:
    offset = data.draw(st.integers(0, every_ms - 1))
    due = latest_due(now, every_ms, offset)
    assert due <= now < due + every_ms
    assert (due - offset) % every_ms == 0
    assert latest_due(due, every_ms, offset) == due
    assert latest_due(due - 1, every_ms, offset) == due - every_ms


@given(moments, intervals, st.data())
def test_due_times_only_grow(now: int, every_ms: int, data: st.DataObject) -> None:
    offset = data.draw(st.integers(0, every_ms - 1))
    steps = [now, *sorted(now + data.draw(st.integers(0, 10 * every_ms)) for _ in range(5))]
    assert all(a <= b for a, b in pairwise(latest_due(moment, every_ms, offset) for moment in steps))


@given(st.floats(1, 7 * 86_400))
def test_a_slot_is_dispatched_before_it_is_late_and_settled_after_its_run(every: float) -> None:
    assert min(1.0, every / 2) <= tick(every) <= min(10.0, every / 2)
    assert tick(every) < late(every) <= every or every <= tick(every)
    assert settled(every) > every + 0.8 * every
