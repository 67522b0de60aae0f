"""Samples out of wide JSON answers, by a table: which field is which metric.

A table is a CSV file beside the service that reads it; one row is one number of the answer:

| column | meaning |
|---|---|
| field | the way to it, names joined by dots; `*` stands for any one name. A `\\.` is a dot inside a name |
| metric | its metric; empty: the field is known, and not wanted |
| scale | what it is multiplied by to reach the metric's unit, rounded once; empty: 1 |
| labels | `name=text` pairs joined by commas; `{0}` in a text is what the first `*` stood for |
| none | optional: a value that means "no such thing", which is left out: `-1` |
| words | optional: `word=number` pairs joined by commas, with `*` for any other word: `green=0,yellow=1,*=2` |

Numbers and booleans count; numbers written as text count where a row names them. Other texts, nulls and lists do not.
A row whose last name is `**` knows everything below. Type, unit and description of a metric stand in `metrics.csv`.
"""

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from nms_workers.errors import ConfigError
from nms_workers.records import Sample

_DOT = re.compile(r"(?<!\\)\.")
MAX_DEPTH = 32  # of an answer; deeper than any vendor nests


@dataclass(frozen=True)
class Row:
    """What one row of a table says of its field."""

    metric: str
    scale: Fraction
    labels: tuple[tuple[str, str], ...]
    none: str
    words: Mapping[str, float]

    def number(self, value: Any) -> float | None:
        """The value in the metric's unit; None when it is no number, or stands for none."""
        if str(value) == self.none:
            return None
        if self.words:
            return self.words.get(str(value), self.words.get("*"))
        if not isinstance(value, int | float | str):
            return None
        try:
            return float(value) * self.scale.numerator / self.scale.denominator  # 0.001 itself is no exact float
        except ValueError:
            return None


@dataclass
class _Node:
    """One name on the way to a field: what may follow, and the row that ends here."""

    names: dict[str, "_Node"] = field(default_factory=dict)
    row: Row | None = None
    all_below: bool = False


class MappingTable:
    """The table of one kind of answer.

    Args:
        path: the CSV file.

    Raises:
        ConfigError: a field stands in it twice, or a row is not as described above.
    """

    def __init__(self, path: Path) -> None:
        self._root = _Node()
        self.rows: dict[str, Row] = {}
        with path.open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                self._add(path, row)

    def samples(self, answer: Mapping[str, Any], labels: Mapping[str, str] | None = None) -> Iterator[Sample]:
        """A sample for each number that the table has, in the order of the answer.

        Args:
            answer: decoded JSON.
            labels: of every sample, over those of the table.
        """
        more = labels or {}
        for row, value, stars in _meet(self._root, answer, ()):
            if row is not None and row.metric and (number := row.number(value)) is not None:
                own = {name: text.format(*stars) for name, text in row.labels}
                yield Sample(row.metric, number, own | dict(more))

    def unknown(self, answer: Mapping[str, Any]) -> list[str]:
        """The numbers of an answer that the table does not have, sorted: a newer version of the target has them."""
        return sorted(set(_unmet(self._root, answer, ())))

    def _add(self, path: Path, row: Mapping[str, str]) -> None:
        names = [name.replace("\\.", ".") for name in _DOT.split(row["field"])]
        node = self._root
        for name in names:
            if name == "**":
                node.all_below = True
            else:
                node = node.names.setdefault(name, _Node())
        if row["field"] in self.rows:
            raise ConfigError(f"{path.name} names {row['field']} twice")
        try:
            made = Row(
                metric=row["metric"],
                scale=Fraction(row["scale"] or 1),
                labels=tuple(_pairs(row["labels"])),
                none=row.get("none") or "\x00",  # no value is this
                words={word: float(number) for word, number in _pairs(row.get("words") or "")},
            )
        except ValueError as exc:
            raise ConfigError(f"{path.name}, {row['field']}: {exc}") from None
        self.rows[row["field"]] = made
        if names[-1] != "**":
            node.row = made


def _meet(node: _Node, value: Any, stars: tuple[str, ...]) -> Iterator[tuple[Row | None, Any, tuple[str, ...]]]:
    """Each leaf that a row leads to, with what the stars on the way stood for."""
    if not isinstance(value, Mapping):
        yield node.row, value, stars
        return
    for name, below in value.items():
        if (next_node := node.names.get(name)) is not None:
            yield from _meet(next_node, below, stars)
        elif (next_node := node.names.get("*")) is not None:
            yield from _meet(next_node, below, (*stars, name))


def _unmet(node: _Node | None, value: Any, way: tuple[str, ...]) -> Iterator[str]:
    """Each number that no row leads to, by its dotted name."""
    if node is not None and node.all_below:
        return
    if not isinstance(value, Mapping):
        if isinstance(value, int | float) and (node is None or node.row is None):
            yield ".".join(way)
        return
    if len(way) >= MAX_DEPTH:
        yield ".".join(way)
        return
    for name, below in value.items():
        next_node = None if node is None else node.names.get(name) or node.names.get("*")
        yield from _unmet(next_node, below, (*way, name))


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for pair in filter(None, text.split(",")):
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"{pair!r} is no name=text")
        yield name, value
