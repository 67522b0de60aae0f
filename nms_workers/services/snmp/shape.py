"""What one poll of one device looks like: made once from a whole answer, and used as long as answers look the same.

An answer is a list of object identifiers and a list of values. As long as the identifiers are those of the last time,
the values go straight into the block of a known layout, and nothing is looked at one by one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nms_workers.errors import ParseError
from nms_workers.records import Entity, Event, Layout, SampleBlock, Series, series
from nms_workers.services.snmp.lines import Attributes, Labels, Line, lines_of, names_of
from nms_workers.services.snmp.oid import Value
from nms_workers.services.snmp.profile import Alarm, Column, Table


@dataclass(frozen=True)
class Watch:
    """One row that is an event while it is not well.

    Args:
        place: of the state in an answer.
        words: the names of its numbers.
        conditions: (place, number) that must hold, too.
    """

    alarm: Alarm
    object: str
    place: int
    words: Mapping[str, str]
    conditions: tuple[tuple[int, int], ...]
    labels: Labels

    def event(self, kind: str, values: Sequence[Value]) -> Event | None:
        """The event that an answer fires, if it does."""
        state = values[self.place]
        if not isinstance(state, int) or state in self.alarm.good:
            return None
        if any(values[place] != number for place, number in self.conditions):
            return None
        word = self.words.get(str(state), str(state))
        message = Template(self.alarm.message).safe_substitute(self.labels, state=word)
        fingerprint = ":".join([self.object, *self.labels.values()])
        return Event(kind, message, self.alarm.severity, fingerprint, "firing", {**self.labels, "state": word})


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
        watches: the rows that may be events.
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
    watches: tuple[Watch, ...]

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

    def events(self, kind: str, values: Sequence[Value]) -> Iterator[Event]:
        """What fires in an answer that fits."""
        for watch in self.watches:
            if (event := watch.event(kind, values)) is not None:
                yield event


@dataclass(frozen=True)
class _Member:
    """One series: its labels, its column, the place of its value, and what that is multiplied by."""

    series: Series
    column: Column
    place: int
    scale: float
    width: str = ""  # the metric that tells how wide it is, where agents have it in 32 or 64 bits


def shape_of(tables: Sequence[Table], oids: list[str], values: Sequence[Value]) -> Shape:
    """The shape of an answer.

    Args:
        tables: those that were asked for; what is in none of them is left out.

    Raises:
        ParseError: the agent names a row twice.
    """
    if len(set(oids)) != len(oids):
        raise ParseError("the agent names a row twice", hint="its SNMP agent is at fault")
    lines = lines_of(tables, oids, values)
    names = names_of(lines)
    kept = _told_apart(list(_members(tables, lines, names)))
    kept += _widths(kept)
    facts = [
        line.cells[column.object][0]
        for line in lines
        for column in line.table.column
        if column.role == "attribute" and column.object in line.cells
    ]
    words = [
        (at, {float(n): w for n, w in one.column.words.items()}) for at, one in enumerate(kept) if one.column.words
    ]
    return Shape(
        oids=oids,
        layout=Layout([one.series for one in kept]),
        pick=_picker([one.place for one in kept]),
        scale=np.array([one.scale for one in kept]),
        plus=np.array([one.column.plus for one in kept]),
        none=np.array([np.nan if one.column.none is None else one.column.none for one in kept]),
        words=tuple(words),
        fact_places=tuple(facts),
        facts=tuple(values[place] for place in facts),
        entities=tuple(_entities(lines, names)),
        watches=tuple(_watches(lines, names)),
    )


def _members(
    tables: Sequence[Table], lines: Sequence[Line], names: Mapping[int, tuple[Labels, Attributes]]
) -> Iterator[_Member]:
    numbers = _numbers(lines)
    preferred = {column.behind for table in tables for column in table.column}
    for line in lines:
        labels = tuple(names[id(line)][0].items())
        there = numbers[line.table.family, line.index]
        for column in line.table.column:
            place, value = line.cells.get(column.object, (0, None))
            if column.role == "attribute" or not isinstance(value, int | float) or column.behind in there:
                continue
            metric = column.metric or column.metrics.get(str(there.get(column.by)), "")
            scale = _scale(line.table, column, there)
            if metric and scale is not None:
                in_both = metric.endswith("_total") and (column.behind or column.object in preferred)
                width = line.table.width if in_both else ""
                yield _Member(series(metric, labels), column, place, scale, width)


def _widths(members: Sequence[_Member]) -> list[_Member]:
    """How many bits the narrowest counter of each row has: known wherever its counter is, whatever that says."""
    narrowest: dict[Series, _Member] = {}
    for one in members:
        if one.width:
            name = series(one.width, one.series.labels)
            if name not in narrowest or one.column.bits < narrowest[name].column.bits:
                narrowest[name] = one
    return [
        _Member(name, Column(one.series.metric, "", plus=one.column.bits), one.place, 0.0)
        for name, one in narrowest.items()
    ]


def _scale(table: Table, column: Column, row: Mapping[str, int | float]) -> float | None:
    """What a value is multiplied by; None where the row does not say."""
    scale = column.scale
    for name in column.times:
        words = next((one.words for one in table.column if one.object == name), {})
        factor = words.get(str(row.get(name))) if words else row.get(name)
        if factor is None:
            return None
        scale *= factor
    if column.decimals:
        scale *= 10.0 ** -row.get(column.decimals, 0)
    return scale


def _told_apart(members: Sequence[_Member]) -> list[_Member]:
    """Two tables may call their rows the same: the later one is called after its object, too."""
    seen: set[Series] = set()
    kept = []
    for one in members:
        if one.series in seen and one.series.labels:
            (name, value), *rest = one.series.labels
            other = series(one.series.metric, ((name, f"{value} ({one.column.object})"), *rest))
            one = _Member(other, one.column, one.place, one.scale, one.width)  # noqa: PLW2901 - the same member by another name
        if one.series not in seen:
            seen.add(one.series)
            kept.append(one)
    return kept


def _entities(lines: Sequence[Line], names: Mapping[int, tuple[Labels, Attributes]]) -> Iterator[Entity]:
    found: dict[tuple[str, str], Attributes] = {}
    for line in lines:
        labels, about = names[id(line)]
        if line.table.entity:
            found.setdefault((line.table.entity, next(iter(labels.values()))), {}).update(about)
    for (kind, key), about in found.items():
        yield Entity(kind, key, about)


def _watches(lines: Sequence[Line], names: Mapping[int, tuple[Labels, Attributes]]) -> Iterator[Watch]:
    for line in lines:
        alarm = line.table.alarm
        if alarm is None or not {alarm.object, *alarm.when} <= line.cells.keys():
            continue
        words = next(one.enum for one in line.table.column if one.object == alarm.object)
        conditions = tuple((line.cells[name][0], number) for name, number in alarm.when.items())
        place = line.cells[alarm.object][0]
        yield Watch(alarm, line.table.object, place, words, conditions, names[id(line)][0])


def _numbers(lines: Sequence[Line]) -> dict[tuple[str, str], dict[str, int | float]]:
    """The numbers of each row, with those of the tables that share its attributes."""
    found: dict[tuple[str, str], dict[str, int | float]] = {}
    for line in lines:
        told = found.setdefault((line.table.family, line.index), {})
        told |= {name: value for name, (_, value) in line.cells.items() if isinstance(value, int | float)}
    return found


def _picker(places: Sequence[int]) -> Callable[[Sequence[Value]], Sequence[Any]]:
    if len(places) > 1:
        return itemgetter(*places)
    return lambda values: [values[place] for place in places]  # itemgetter of one gives no sequence
