"""What the numbers in the kernel's tables mean: `fields.csv` as a lookup.

One row is one number. `object` and `kind` say whose it is (`*`: of every kind), `path` where it stands, by the kernel's
own names; it is multiplied by `scale`. Type, unit and description stand in `metrics.csv`. The kernel keeps some times
in ticks of 64 ns and shares in units of 1 / (2**32 - 1).
Source: linux/include/uapi/linux/pkt_sched.h, gen_stats.h and if_link.h.
"""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from nms_workers.records import Sample


@dataclass(frozen=True)
class Field:
    """One row of `fields.csv`."""

    object: str
    kind: str
    path: tuple[str, ...]
    metric: str
    scale: float


@cache
def fields() -> tuple[Field, ...]:
    """The rows of `fields.csv`, in order."""
    with Path(__file__).with_name("fields.csv").open(encoding="utf-8", newline="") as lines:
        return tuple(
            Field(row["object"], row["kind"], tuple(row["path"].split(".")), row["metric"], float(row["scale"] or 1))
            for row in csv.DictReader(lines)
        )


def samples(what: str, kind: str, values: Mapping[str, Any], labels: Mapping[str, str]) -> Iterator[Sample]:
    """The samples of one object: those of its kind and those of every kind.

    Args:
        what: `qdisc`, `class`, `action` or `interface`.
        values: the object by the kernel's names, as `tables.plain` gives it.
    """
    for field in _of(what, kind):
        number = _at(values, field.path)
        if number is not None:
            yield Sample(field.metric, number * field.scale, labels)


@cache
def _of(what: str, kind: str) -> tuple[Field, ...]:
    return tuple(field for field in fields() if field.object == what and field.kind in ("*", kind))


def _at(values: Mapping[str, Any], path: tuple[str, ...]) -> float | None:
    found: Any = values
    for name in path:
        if not isinstance(found, Mapping) or name not in found:
            return None
        found = found[name]
    return found if isinstance(found, int | float) else None
