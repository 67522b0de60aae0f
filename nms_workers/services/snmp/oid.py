"""Object identifiers: written as text without a leading dot, compared as tuples of numbers (RFC 2578 section 3.5)."""

import re
from typing import Annotated, TypeAlias

from pydantic import AfterValidator

_OID = re.compile(r"\.?[0-2](?:\.(?:0|[1-9][0-9]{0,9})){1,127}\Z", re.ASCII)
_LAST_ARC = 2**32 - 1

Value: TypeAlias = int | float | str | bytes | None
"""What an agent answers: numbers, OIDs and addresses as text, octet strings as bytes."""


def oid(text: str) -> str:
    """The identifier in its one form: digits and dots, no leading dot.

    Raises:
        ValueError: it is none.
    """
    if not _OID.match(text):
        raise ValueError(f"{text[:80]!r} is no object identifier: write numbers and dots, 1.3.6.1.2.1.1.3.0")
    arcs = arcs_of(text)
    if max(arcs) > _LAST_ARC or (arcs[0] < 2 and arcs[1] > 39):
        raise ValueError(f"{text[:80]!r} has a number that no object identifier can have")
    return text.lstrip(".")


def arcs_of(text: str) -> tuple[int, ...]:
    """Its numbers, which compare as agents order them."""
    return tuple(map(int, text.strip(".").split(".")))


Oid = Annotated[str, AfterValidator(oid)]
