"""Secrets are masked before a line leaves this host, and before it is kept anywhere on it."""

import tomllib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from nms_workers import masking
from nms_workers.masking import Mask


@cache
def masks() -> tuple[Mask, ...]:
    """The table."""
    table = tomllib.loads((Path(__file__).parent / "masks.toml").read_text(encoding="utf-8"))
    return tuple(Mask.of(row) for row in table["mask"])


def masked(lines: Sequence[str]) -> list[str]:
    """The lines of one entry, as many, without secrets."""
    return masking.masked(masks(), lines)
