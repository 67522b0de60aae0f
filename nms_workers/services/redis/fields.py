"""What the fields of `INFO`, `CLUSTER INFO` and `MEMORY STATS` mean: `fields.csv` as a lookup.

One row of the table is one field. In a field `*` stands for a name (a command), `#` for a number, and a dot leads into
a compound value (`slave#.lag` of `slave0:ip=...,lag=1`). `poll` says whose samples it is; without a metric the field
is known and says nothing to measure. A value is multiplied by `scale`; one equal to `none` means "no such thing yet"
and is left out; `values` turns words into numbers, with `*` for any other word. In `labels` `{0}` is what `*` or `#`
stood for, `{type}` a value beside it, `{address}` the host and port beside it. Type, unit and description stand in
`metrics.csv`.
Source: https://redis.io/docs/latest/commands/info/ and https://valkey.io/commands/info/.
"""

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from nms_workers.records import Sample
from nms_workers.services.redis.target import joined

_WILDCARDS = {"*": "(.+)", "#": r"(\d+)"}
_WILD = re.compile(r"([*#])")


@dataclass(frozen=True)
class Field:
    """One row of `fields.csv`."""

    poll: str
    field: str
    metric: str
    scale: float
    none: str
    values: Mapping[str, float]
    labels: tuple[tuple[str, str], ...]

    def number(self, raw: object) -> float | None:
        """The value in the metric's unit; None when it is no number."""
        if self.values:
            return self.values.get(str(raw), self.values.get("*"))
        try:
            return float(str(raw).removesuffix("%")) * self.scale
        except ValueError:
            return None


@dataclass(frozen=True)
class Value:
    """One value as the server named it, and the compound value it stands in."""

    name: str
    raw: object
    beside: Mapping[str, object]


@cache
def fields() -> tuple[Field, ...]:
    """The rows of `fields.csv`, in order."""
    with Path(__file__).with_name("fields.csv").open(encoding="utf-8", newline="") as lines:
        return tuple(_field(row) for row in csv.DictReader(lines))


def samples(poll: str, values: Mapping[str, Any], labels: dict[str, str]) -> Iterator[Sample]:
    """The samples of one poll.

    Args:
        poll: which rows of the table.
        values: fields as the server names them; compound values as mappings.
        labels: added to every sample.
    """
    for value in flat(values):
        match = _match(value.name)
        if match is None or match[0].poll != poll or not match[0].metric:
            continue
        field, names = match
        number = field.number(value.raw)
        if number is not None and str(value.raw) != field.none:
            own = {name: text.format(*names, **value.beside) for name, text in field.labels}
            yield Sample(field.metric, number, own | labels)


def unknown(values: Mapping[str, Any]) -> list[str]:
    """Names of the values that the table does not know, or that are no number where it promises one."""
    return [value.name for value in flat(values) if not _known(value)]


def flat(values: Mapping[str, Any]) -> Iterator[Value]:
    """Every single value; those inside a compound value as `name.inner`."""
    for name, raw in values.items():
        if isinstance(raw, Mapping):
            address = joined(str(raw["ip"]), raw["port"]) if {"ip", "port"} <= raw.keys() else ""
            beside = {**raw, "address": address}
            yield from (Value(f"{name}.{inner}", item, beside) for inner, item in raw.items())
        else:
            yield Value(name, raw, {})


def _known(value: Value) -> bool:
    match = _match(value.name)
    return match is not None and (not match[0].metric or match[0].number(value.raw) is not None)


@lru_cache(maxsize=8192)
def _match(name: str) -> tuple[Field, tuple[str, ...]] | None:
    exact, patterns = _index()
    if name in exact:
        return exact[name], ()
    for pattern, field in patterns:
        if found := pattern.fullmatch(name):
            return field, found.groups()
    return None


@cache
def _index() -> tuple[dict[str, Field], tuple[tuple[re.Pattern[str], Field], ...]]:
    rows = [(field, _WILD.search(field.field)) for field in fields()]
    exact = {field.field: field for field, wild in rows if not wild}
    return exact, tuple((_pattern(field.field), field) for field, wild in rows if wild)


def _pattern(text: str) -> re.Pattern[str]:
    parts = (_WILDCARDS.get(part) or re.escape(part) for part in _WILD.split(text))
    return re.compile("".join(parts))


def _field(row: Mapping[str, str]) -> Field:
    return Field(
        poll=row["poll"],
        field=row["field"],
        metric=row["metric"],
        scale=float(row["scale"] or 1),
        none=row["none"],
        values={word: float(number) for word, number in (pair.split("=") for pair in row["values"].split())},
        labels=tuple((name, text) for name, text in (pair.split("=") for pair in row["labels"].split(",") if pair)),
    )
