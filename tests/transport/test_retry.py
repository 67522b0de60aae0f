"""When a call is made again, and when it is not."""

import statistics
import time

import pytest

from nms_workers.errors import AuthError, ParseError, Refused, Skipped, TargetError, Timeout, Unreachable
from nms_workers.transport.deadline import deadline
from nms_workers.transport.retry import Overloaded, RetrySettings, Throttled, retrying

QUICK = RetrySettings(attempts=4, base=0.001, cap=0.002)


class Failing:
    """Raises the errors one after the other, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls: list[float] = []

    def __call__(self) -> str:
        self.calls.append(time.monotonic())
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


def test_until_it_answers() -> None:
    retries: list[None] = []
    call = Failing(Unreachable("1"), Timeout("2"), Throttled("3", 0.0))
    assert retrying(QUICK, lambda: retries.append(None))(call) == "answer"
    assert (len(call.calls), len(retries)) == (4, 3)


def test_the_last_error_is_raised_as_it_is() -> None:
    errors = [Unreachable(str(n)) for n in range(9)]
    call = Failing(*errors)
    with pytest.raises(Unreachable) as caught:
        retrying(QUICK, lambda: None)(call)
    assert caught.value is errors[3]
    assert len(call.calls) == 4


@pytest.mark.parametrize("kind", [AuthError, Refused, ParseError, Skipped, ValueError])
def test_not_for_what_does_not_pass(kind: type[Exception]) -> None:
    call = Failing(kind("no"))
    with pytest.raises(kind):
        retrying(QUICK, lambda: None)(call)
    assert len(call.calls) == 1


@pytest.mark.parametrize("kind", [Throttled, Overloaded])
def test_waits_as_long_as_it_is_told(kind: type[Throttled] | type[Overloaded]) -> None:
    call = Failing(kind("later", 0.3))
    retrying(QUICK, lambda: None)(call)
    assert 0.3 <= call.calls[1] - call.calls[0] < 0.6


@pytest.mark.parametrize("error", [Throttled("later", 5.0), Overloaded("later", 5.0)])
def test_never_waits_past_the_deadline(error: TargetError) -> None:
    call = Failing(error)
    started = time.monotonic()
    with deadline(2), pytest.raises(type(error)):
        retrying(QUICK, lambda: None)(call)
    assert time.monotonic() - started < 0.5
    assert len(call.calls) == 1


def test_full_jitter() -> None:
    """Waits spread evenly over 0 to the limit, and the limit doubles up to the cap."""
    waits: list[list[float]] = [[], [], []]
    slow = RetrySettings(attempts=4, base=0.02, cap=0.04)
    for _ in range(40):
        call = Failing(*[Unreachable("x")] * 3)
        retrying(slow, lambda: None)(call)
        for nth, (a, b) in enumerate(zip(call.calls, call.calls[1:], strict=False)):
            waits[nth].append(b - a)
    limits = [0.02, 0.04, 0.04]
    for nth, limit in enumerate(limits):
        assert limit * 0.3 < statistics.median(waits[nth]) < limit * 0.8
        assert min(waits[nth]) < limit * 0.2
