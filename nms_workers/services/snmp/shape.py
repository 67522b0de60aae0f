"""What one poll of one device looks like: made once from a whole answer, and used as long as answers look the same.

An answer is a list of object identifiers and a list of values. As long as the identifiers are those of the last time,
the values go straight into the block of a known layout, and nothing is looked at one by one.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nms_workers.errors import ParseError
from nms_workers.records import Entity, Layout, SampleBlock, Series, series
from nms_workers.services.snmp import ports
from nms_workers.services.snmp.oid import Value
from nms_workers.services.snmp.profile import Column, Format, Table

Attributes = dict[str, Any]
Labels = dict[str, str]


@dataclass
class Line:
    """One row of one table as an answer had it: column to (its place in the answer, its value)."""

    table: Table
    index: str
    cells: dict[str, tuple[int, Value]]


@dataclass(frozen=True)
class Shape:
    """Where in an answer the values of a layout are, and what is done to them.

    Args:
        oids: the identifiers of an answer that fits.
        layout: the series, in the order of `places`.
        scale, plus, none: of each series: what its values are multiplied by, what is added then, and the value that
            means "not known" (NaN: there is no such value).
        words: (position, what a number of an enumeration counts as).
        facts: places and values of what is no number: when one of them changes, the shape is made anew.
        entities: the rows that are something by themselves.
    """

    oids: list[str]
    layout: Layout
    pick: Callable[[Sequence[Value]], Sequence[Any]]
    scale: NDArray[np.float64]
    plus: NDArray[np.float64]
    none: NDArray[np.float64]
    words: tuple[tuple[int, Mapping[float, float]], ...]
    fact_places: tuple[int, ...]
    facts: tuple[Value, ...]
    entities: tuple[Entity, ...]

    def fits(self, oids: list[str], values: Sequence[Value]) -> bool:
        """Whether an answer has the same rows, which say the same of themselves."""
        return oids == self.oids and tuple(values[place] for place in self.fact_places) == self.facts

    def block(self, values: Sequence[Value]) -> SampleBlock:
        """The samples of an answer that fits.

        Raises:
            ParseError: where there was a number there is none any more.
        """
        try:
            numbers = np.array(self.pick(values), dtype=np.float64)
        except (TypeError, ValueError):
            raise ParseError("a counter or gauge came back as text", hint="its SNMP agent is at fault") from None
        numbers[numbers == self.none] = np.nan
        for position, words in self.words:
            numbers[position] = words.get(numbers[position], np.nan)
        return SampleBlock(self.layout, numbers * self.scale + self.plus)


def shape_of(tables: Sequence[Table], oids: list[str], values: Sequence[Value]) -> Shape:
    """The shape of an answer.

    Args:
        tables: those that were asked for; what is in none of them is left out.

    Raises:
        ParseError: the agent names a row twice.
    """
    if len(set(oids)) != len(oids):
        raise ParseError("the agent names a row twice", hint="its SNMP agent is at fault")
    lines = _lines(tables, oids, values)
    names, numbers = _names(lines), _numbers(lines)
    twins = {column.behind for table in tables for column in table.column}
    members: list[tuple[Series, Column, int]] = []
    widths: dict[Series, tuple[int, int]] = {}  # of the counters that agents may have in either
    fact_places: list[int] = []
    entities: dict[tuple[str, str], Attributes] = {}
    for line in lines:
        labels, about = names[line.table.oid, line.index]
        if line.table.entity:
            entities.setdefault((line.table.entity, next(iter(labels.values()))), about).update(about)
        for column in line.table.column:
            if column.object not in line.cells:
                continue
            place, value = line.cells[column.object]
            if column.role == "attribute":
                fact_places.append(place)
            elif (
                isinstance(value, int | float)
                and column.behind not in numbers[line.table.entity or line.table.oid, line.index]
            ):
                members.append((series(column.metric, tuple(labels.items())), column, place))
                if line.table.width and (column.behind or column.object in twins) and column.metric.endswith("_total"):
                    one = series(line.table.width, tuple(labels.items()))
                    widths[one] = min((column.bits, place), widths.get(one, (column.bits, place)))
    for one, (
        bits,
        place,
    ) in widths.items():  # it is known wherever its counter is: nothing of the value, and the width
        members.append((one, Column(one.metric, "", scale=0.0, plus=bits), place))
    return _assembled(oids, values, members, fact_places, entities)


def _assembled(
    oids: list[str],
    values: Sequence[Value],
    members: Sequence[tuple[Series, Column, int]],
    fact_places: Sequence[int],
    entities: Mapping[tuple[str, str], Attributes],
) -> Shape:
    places = [place for _, _, place in members]
    columns = [column for _, column, _ in members]
    words = [(at, {float(n): w for n, w in one.words.items()}) for at, one in enumerate(columns) if one.words]
    return Shape(
        oids=oids,
        layout=Layout([member for member, _, _ in members]),
        pick=_picker(places),
        scale=np.array([one.scale for one in columns]),
        plus=np.array([one.plus for one in columns]),
        none=np.array([np.nan if one.none is None else one.none for one in columns]),
        words=tuple(words),
        fact_places=tuple(fact_places),
        facts=tuple(values[place] for place in fact_places),
        entities=tuple(Entity(kind, key, about) for (kind, key), about in entities.items()),
    )


def _picker(places: Sequence[int]) -> Callable[[Sequence[Value]], Sequence[Any]]:
    if len(places) > 1:
        return itemgetter(*places)
    return lambda values: [values[place] for place in places]  # itemgetter of one gives no sequence


def _lines(tables: Iterable[Table], oids: Sequence[str], values: Sequence[Value]) -> list[Line]:
    """The rows of the answer, those of one table together."""
    by_column = {table.oid_of(column): (table, column) for table in tables for column in table.column}
    depths = sorted({column.count(".") + 1 for column in by_column}, reverse=True)
    found: dict[tuple[str, str], Line] = {}
    for place, (oid, value) in enumerate(zip(oids, values, strict=True)):
        if (match := _column(by_column, depths, oid)) is None:
            continue
        table, column, index = match
        line = found.setdefault((table.oid, index), Line(table, index, {}))
        line.cells[column.object] = (place, value)
    return list(found.values())


def _column(
    by_column: Mapping[str, tuple[Table, Column]], depths: Sequence[int], oid: str
) -> tuple[Table, Column, str] | None:
    arcs = oid.split(".")
    for depth in depths:
        if (match := by_column.get(".".join(arcs[:depth]))) is not None:
            table, column = match
            return table, column, "" if table.scalar else ".".join(arcs[depth:])
    return None


def _numbers(lines: Sequence[Line]) -> dict[tuple[str, str], set[str]]:
    """Which columns of each row hold a number."""
    found: dict[tuple[str, str], set[str]] = {}
    for line in lines:
        told = found.setdefault((line.table.entity or line.table.oid, line.index), set())
        told |= {name for name, (_, value) in line.cells.items() if isinstance(value, int | float)}
    return found


def _names(lines: Sequence[Line]) -> dict[tuple[str, str], tuple[Labels, Attributes]]:
    """Labels and attributes of each row: rows of one entity share them, whichever table they are in."""
    about: dict[tuple[str, str], Attributes] = {}
    for line in lines:
        told = about.setdefault((line.table.entity or line.table.oid, line.index), {})
        for column in line.table.column:
            if column.role == "attribute" and column.object in line.cells:
                told[column.name] = written(line.cells[column.object][1], column.format)
    interfaces = {index: told for (kind, index), told in about.items() if kind == "interface"}
    identities = ports.identities(interfaces)
    found: dict[tuple[str, str], tuple[Labels, Attributes]] = {}
    for line in lines:
        told = about[line.table.entity or line.table.oid, line.index]
        if line.table.entity == "interface":
            labels = {"interface": identities[line.index]}
            told["index"] = line.index
        else:
            labels = {name: _label(line, source, told) for name, source in line.table.labels.items()}
        found[line.table.oid, line.index] = (labels, told)
    return _unique(found)


def _unique(
    found: dict[tuple[str, str], tuple[Labels, Attributes]],
) -> dict[tuple[str, str], tuple[Labels, Attributes]]:
    """Rows of one table whose labels are the same get their index as one more label."""
    count: dict[tuple[str, tuple[tuple[str, str], ...]], int] = {}
    for (table, _), (labels, _) in found.items():
        key = (table, tuple(labels.items()))
        count[key] = count.get(key, 0) + 1
    return {
        (table, index): ((labels if count[table, tuple(labels.items())] == 1 else labels | {"index": index}), about)
        for (table, index), (labels, about) in found.items()
    }


def _label(line: Line, source: str, about: Attributes) -> str:
    if source == "index":
        return line.index
    if source.startswith("index."):
        arcs = line.index.split(".")
        at = int(source.removeprefix("index."))
        return arcs[at] if at < len(arcs) else line.index
    column = next(one for one in line.table.column if one.object == source)
    told = about.get(column.name) if column.role == "attribute" else line.cells.get(source, (0, ""))[1]
    return str(told or line.index)


def written(value: Value, how: Format) -> str | int | float:
    """A fact as people write it; octets that are no text as hexadecimal digits."""
    if not isinstance(value, bytes):
        return "" if value is None else value
    if how == "text":
        text = value.rstrip(b"\x00").decode("utf-8", errors="replace")
        return text if text.isprintable() or not value else " ".join(text.split())
    if how == "address" and len(value) == 4:
        return ".".join(map(str, value))
    return value.hex(":") if how == "mac" else value.hex()
