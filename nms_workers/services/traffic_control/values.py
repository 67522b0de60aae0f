"""Values that people write and the kernel takes: interface names, rates, sizes, times, shares.

Rates are bits per second; the kernel counts bytes, so a rate is rounded down to whole bytes. Words as in tc(8): `kbit`,
`mbit`, `gbit` are powers of 1000, `kibit`, `mibit`, `gibit` of 1024.
"""

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

_RATE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?) ?(bit|kbit|mbit|gbit|kibit|mibit|gibit)\Z", re.IGNORECASE)
_UNITS = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9, "kibit": 2**10, "mibit": 2**20, "gibit": 2**30}

SLOWEST, FASTEST = 8_000, 32_000_000_000  # bits per second; the kernel's field holds 2**32 bytes per second

SMALLEST_BYTES = 1_600  # one full Ethernet frame


def _bits(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = _RATE.match(value)
    if not match:
        raise ValueError("write a rate as a number and a unit: 10mbit, 512kbit, 1.5gbit")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def _whole_bytes(bits: int) -> int:
    return bits // 8 * 8


def _microseconds(seconds: float) -> float:
    return round(seconds, 6)


Rate = Annotated[int, BeforeValidator(_bits), Field(ge=SLOWEST, le=FASTEST), AfterValidator(_whole_bytes)]
"""Bits per second: `10mbit`, `1.5gbit`, or a plain number."""

Bytes = Annotated[int, Field(ge=SMALLEST_BYTES, le=1_000_000_000)]
"""A bucket smaller than a frame would never let one through."""

Delay = Annotated[float, Field(ge=0, le=60), AfterValidator(_microseconds)]
"""Seconds, in steps of a microsecond."""

Share = Annotated[float, Field(ge=0, le=1), AfterValidator(_microseconds)]
"""A share of all packets, 0 to 1, in steps of a millionth."""
