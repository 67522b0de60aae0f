"""What our actions want of one interface, and what they found there: the state that a change keeps for its undo.

Everything here is read back from the kernel; nothing is remembered elsewhere. So a value has one form, the one the
kernel gives back: bursts are rounded to what a timer of microseconds can tell.
"""

import math
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from nms_workers.records import Attributes
from nms_workers.services.traffic_control.match import Match
from nms_workers.services.traffic_control.values import SMALLEST_BYTES, Bytes, Delay, Rate, Share

_LONGEST_BURST = 100.0  # seconds at its rate; the kernel's field holds 274
_SMALLEST_BURST = 10_000  # bytes: a few frames


class _Values(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Limits(_Values):
    """What a class of packets may take.

    Args:
        rate: what it has for certain, in bits per second.
        ceil: what it may take while there is more, in bits per second; default: the rate.
        burst: bytes it may send at once after a rest; default: what the rate gives in 10 ms.
        priority: 0 to 7; the lowest is offered first what is left over.
    """

    rate: Rate
    ceil: Rate | None = None
    burst: Bytes | None = None
    priority: Annotated[int, Field(ge=0, le=7)] = 3

    @model_validator(mode="after")
    def _settled(self) -> Self:
        object.__setattr__(self, "ceil", self.rate if self.ceil is None else self.ceil)
        object.__setattr__(self, "burst", settled_burst(self.rate, self.burst))
        if self.most < self.rate:
            raise ValueError("ceil is below rate")
        return self

    @property
    def most(self) -> int:
        """`ceil`, which is always known after validation."""
        return self.ceil or self.rate

    @property
    def bucket(self) -> int:
        """`burst`, which is always known after validation."""
        return self.burst or _SMALLEST_BURST


class Policer(_Values):
    """How fast an interface may receive.

    Args:
        rate: bits per second.
        burst: bytes that pass at once after a rest; default: what the rate gives in 10 ms.
        queue: bytes that may wait; what comes on top is dropped; default: what the rate gives in 50 ms, and the burst.
    """

    rate: Rate
    burst: Bytes | None = None
    queue: Bytes | None = None

    @model_validator(mode="after")
    def _settled(self) -> Self:
        object.__setattr__(self, "burst", settled_burst(self.rate, self.burst))
        object.__setattr__(self, "queue", self.queue or self.rate // 8 // 20 + self.bucket)
        return self

    @property
    def bucket(self) -> int:
        """`burst`, which is always known after validation."""
        return self.burst or _SMALLEST_BURST


class Emulation(_Values):
    """A worse line than there is, for what an interface sends.

    Args:
        delay, jitter: seconds; each packet waits `delay`, give or take `jitter`.
        loss, duplicate, reorder: shares of all packets, 0 to 1; reordering needs a delay to overtake.
        queue: packets that may wait.
    """

    delay: Delay = 0.0
    jitter: Delay = 0.0
    loss: Share = 0.0
    duplicate: Share = 0.0
    reorder: Share = 0.0
    queue: Annotated[int, Field(ge=1, le=1_000_000)] = 1000

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not (self.delay or self.loss or self.duplicate):
            raise ValueError("name a delay, loss or duplicate")
        if (self.jitter or self.reorder) and not self.delay:
            raise ValueError("jitter and reorder need a delay")
        return self


class Shape(_Values):
    """A match and its limits; without limits: there is no such shape."""

    match: Match
    limits: Limits | None = None


class Part(_Values):
    """Some of what is ours at one interface. What is not set was not looked at; None is "there is none"."""

    shapes: Annotated[tuple[Shape, ...], Field(max_length=4000)] = ()
    default_class: Limits | None = None
    ingress: Policer | None = None
    emulation: Emulation | None = None

    def as_json(self) -> Attributes:
        """The parts that are set, as JSON that makes the same `Part` again."""
        return self.model_dump(mode="json", include=self.model_fields_set)


def settled_burst(rate: int, burst: int | None) -> int:
    """Bytes as the kernel gives them back: it keeps the whole microseconds that the burst takes at its rate.

    Args:
        rate: bits per second.
        burst: bytes; default: 10 ms at the rate.

    Raises:
        ValueError: the burst would take longer than 100 s.
    """
    per_second = rate // 8
    wanted = burst or max(per_second // 100, _SMALLEST_BURST)
    if wanted > per_second * _LONGEST_BURST:
        raise ValueError(f"a burst of {wanted} bytes takes longer than {_LONGEST_BURST:g} s at {rate} bit/s")
    microseconds = int(1_000_000 * (float(wanted) / per_second))
    size = burst_of(per_second, microseconds)
    return size if size >= SMALLEST_BYTES else burst_of(per_second, microseconds + 1)


def burst_of(bytes_per_second: int, microseconds: int) -> int:
    """The least bytes that pyroute2 turns into just so many microseconds."""
    size = math.ceil(microseconds * bytes_per_second / 1_000_000)
    while int(1_000_000 * (float(size) / bytes_per_second)) < microseconds:  # its division may fall just short
        size += 1
    return size
