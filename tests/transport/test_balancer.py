"""Shares, removal and return, by a clock that the test moves."""

from collections import Counter

import pytest

from nms_workers.transport.balancer import Balancer


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_smooth_shares() -> None:
    balancer = Balancer({"a": 5, "b": 1, "c": 1})
    assert [balancer.choose() for _ in range(7)] == list("aabacaa")  # nginx's own example
    assert Counter(balancer.choose() for _ in range(700)) == {"a": 500, "b": 100, "c": 100}


def test_out_after_failures_in_a_row_and_back_after_the_probe() -> None:
    clock = Clock()
    balancer = Balancer({"a": 1, "b": 1}, failures=2, probe=30, clock=clock)
    assert balancer.failed("a") is False
    assert balancer.succeeded("a") is False  # it was never out
    assert [balancer.failed("a"), balancer.failed("a"), balancer.failed("a")] == [False, True, False]
    assert balancer.down() == {"a"}
    assert Counter(balancer.choose() for _ in range(10)) == {"b": 10}

    clock.now += 31
    probed = [balancer.choose() for _ in range(10)]
    assert probed.count("a") == 1  # one probe, not a flood
    balancer.failed("a")
    assert Counter(balancer.choose() for _ in range(10)) == {"b": 10}

    clock.now += 31
    assert "a" in [balancer.choose() for _ in range(2)]
    assert balancer.succeeded("a") is True
    assert balancer.down() == set()
    assert Counter(balancer.choose() for _ in range(10)) == {"a": 5, "b": 5}


def test_all_down_asks_the_one_due_soonest() -> None:
    clock = Clock()
    balancer = Balancer({"a": 9, "b": 1}, failures=1, probe=30, clock=clock)
    balancer.failed("b")
    clock.now += 5
    balancer.failed("a")
    assert balancer.choose() == "b"
    assert balancer.choose() == "a"  # b is being tried


@pytest.mark.parametrize("weights", [{"a": 1}, {"a": 100, "b": 1}])
def test_a_retry_goes_elsewhere_if_it_can(weights: dict[str, int]) -> None:
    assert Balancer(weights).choose(["a"]) == list(weights)[-1]
