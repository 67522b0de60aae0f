"""What all sections share: durations, names, and how strict they are."""

from decimal import Decimal
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
)

from nms_workers.errors import ConfigError
from nms_workers.service import LONGEST, SHORTEST, seconds


def _duration(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a duration is a number and a unit: 500ms, 30s, 5m, 1h, 2d")  # noqa: TRY004 - pydantic's way
    try:
        return seconds(value) if isinstance(value, str) else value
    except ConfigError as exc:
        raise ValueError(str(exc)) from None


def _duration_text(value: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if value % length == 0:
            return f"{value // length:g}{unit}"
    return f"{Decimal(repr(value)).normalize():f}s"  # never with an exponent: it must be readable again


def _interval(value: float) -> float:
    if not SHORTEST <= value <= LONGEST:
        raise ValueError(f"an interval is from {_duration_text(SHORTEST)} to {_duration_text(LONGEST)}")
    return value


Duration = Annotated[
    float, BeforeValidator(_duration), Field(gt=0, le=100 * 365 * 86_400), PlainSerializer(_duration_text)
]


Interval = Annotated[Duration, AfterValidator(_interval)]


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:@/-]{0,99}$")]


class Section(BaseModel):
    """Base of the sections: unknown keys are refused, a wrong value is never repeated in the message."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
