"""IPFIX information elements, as a table: which one feeds which field of a flow.

`elements.csv` names the elements of the IANA registry, and of NetFlow v9 where the registry only reserves the number:

| column | meaning |
|---|---|
| number, name, type | as registered |
| field | a field of `FLOW`, or one of the words below; empty: known, and not kept |
| rank | which one counts when a record has several for the same field: the lowest that is not 0 |
| rule | how its number is to be read, where the type does not say it: a unit, `label` (the upper 20 of 24 bits) ... |

Words that are no field: `start`, `end`, `duration` and `boot` become the times; `icmp_type` and `icmp_code` one
number; `ttl` both bounds; `sampling_*` and `sampler` the interval; `reverse_*` a flow of its own the other way;
`interface_name` and `interface_description` come in options.

Source: https://www.iana.org/assignments/ipfix; RFC 3954 section 8; RFC 5103 for the reverse direction.
"""

import csv
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

REVERSE = 29305  # the enterprise number that stands for "the same element, the other way" (RFC 5103 section 6.1)
VARIABLE = 65535  # the length that says "each record tells" (RFC 7011 section 7)

SCOPES = {1: 144, 2: 10, 3: 141, 4: 210, 5: 145}
"""The scopes of NetFlow v9 (RFC 3954 section 6.1: system, interface, line card, cache, template) as elements."""

REVERSED = ("octets", "packets", "tcp_control_bits", "class_of_service", "icmp_type_code")
"""What differs on the way back, beside all that changes sides."""


class Field(NamedTuple):
    """One field of a template: what and how many bytes."""

    enterprise: int
    number: int
    length: int


class Element(NamedTuple):
    """A row of the table."""

    name: str
    type: str
    field: str
    rank: int
    rule: str


def _read() -> dict[int, Element]:
    with Path(__file__).with_name("elements.csv").open(newline="", encoding="ascii") as file:
        return {
            int(row["number"]): Element(row["name"], row["type"], row["field"], int(row["rank"] or 0), row["rule"])
            for row in csv.DictReader(file)
        }


ELEMENTS = _read()


@lru_cache(maxsize=4096)
def element(enterprise: int, number: int) -> Element | None:
    """What the table knows of an element; of those that tell of the way back only some are kept."""
    known = ELEMENTS.get(number)
    if enterprise == 0 or known is None:
        return known if enterprise == 0 else None
    if enterprise != REVERSE:
        return None
    field = f"reverse_{known.field}" if known.field in REVERSED else ""
    return Element(f"reverse {known.name}", known.type, field, known.rank, known.rule)


def name(field: Field) -> str:
    """How people know a field: its name in the registry, else `enterprise.number`."""
    known = element(field.enterprise, field.number)
    return known.name if known else f"{field.enterprise}.{field.number}"
