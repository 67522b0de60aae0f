"""When to ask again: what may be repeated, for faults that pass, with full jitter, never past the deadline."""

from collections.abc import Callable

from pydantic import BaseModel, Field
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential

from nms_workers.errors import Refused, Timeout, Unreachable
from nms_workers.service import TargetSettings
from nms_workers.transport.deadline import time_left

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})  # RFC 9110 section 9.2.1, without TRACE


class RetrySettings(BaseModel):
    """How often and how soon.

    Args:
        attempts: tries in all; 1 never repeats.
        base, cap: seconds; the n-th wait is drawn evenly from 0 to min(cap, base * 2**(n-1)), so that clients that
            failed together do not come back together.
    """

    model_config = TargetSettings.model_config

    attempts: int = Field(default=3, ge=1, le=10)
    base: float = Field(default=0.2, gt=0, le=60)
    cap: float = Field(default=5.0, gt=0, le=300)


class Throttled(Refused):
    """Too many requests (429), and the target says when to come back: after `seconds`."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message, hint=f"it takes requests again in {seconds:.0f} s: poll less often")
        self.seconds = seconds


class Overloaded(Unreachable):
    """No service just now (502, 503), and the target says when to come back: after `seconds`."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message, hint=f"it expects to be back in {seconds:.0f} s")
        self.seconds = seconds


def retrying(settings: RetrySettings, on_retry: Callable[[], None]) -> Retrying:
    """Call it with a function: `retrying(...)(function)`. The last error is raised as it is.

    Repeated are `Unreachable`, `Timeout` and `Throttled`: other refusals, wrong credentials and wrong answers do not
    get better by asking again.
    """
    backoff = wait_random_exponential(multiplier=settings.base, max=settings.cap)

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return error.seconds if isinstance(error, Throttled | Overloaded) else backoff(state)

    return Retrying(
        retry=retry_if_exception_type((Unreachable, Timeout, Throttled)),
        stop=lambda state: state.attempt_number >= settings.attempts or state.upcoming_sleep >= time_left(),
        wait=wait,
        before_sleep=lambda _: on_retry(),
        reraise=True,
    )
