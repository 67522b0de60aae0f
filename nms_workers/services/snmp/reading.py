"""One poll of one device: what is asked, in which requests, and what of it has to be looked at."""

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from nms_workers.errors import ParseError, Refused, TargetError
from nms_workers.records import Record
from nms_workers.services.snmp.fast import Row
from nms_workers.services.snmp.lines import Line, lines_of
from nms_workers.services.snmp.oid import Value
from nms_workers.services.snmp.profile import ALARMS, Profile, Table
from nms_workers.services.snmp.shape import Shape, shape_of
from nms_workers.services.snmp.target import SnmpTarget

UPTIME = "1.3.6.1.2.1.1.3.0"
OBJECT_ID = "1.3.6.1.2.1.1.2.0"

_REQUEST = 20  # rows that one more request is worth
_OF_ONE_TABLE = (Refused, ParseError)  # the agent is at fault in one table: the others are still good


class Session(Protocol):
    """One read of one agent: `FastSession`, or `SlowSession`."""

    def get_many(self, oids: Sequence[str]) -> dict[str, Value]:
        """The values of these instances; those that the agent does not have are left out."""

    def walk(self, base: str) -> Iterator[list[Row]]:
        """Everything below an object, in the agent's order, answer by answer."""


@dataclass
class Answer:
    """What a device answered to one poll, in an order that stays as long as its plan."""

    oids: list[str] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    error: TargetError | None = None

    def add(self, rows: Sequence[Row]) -> None:
        """Take some more."""
        self.oids += [oid for oid, _ in rows]
        self.values += [value for _, value in rows]


class Reading:
    """What one poll reads of one device, kept from run to run.

    Once the device is asked for everything that its profiles name (the plan), then only for what it has: names and
    descriptions are remembered, and all else is walked, in columns or whole tables, whichever takes less. The plan is
    made anew when the device restarts, when it says that something changed, and after `static_every`.

    Args:
        profiles: those that fit the device.
        target: for its version and `static_every`.
        fresh: names and descriptions are what the poll is about, and read every time.
    """

    def __init__(self, profiles: Sequence[Profile], target: SnmpTarget, *, fresh: bool = False) -> None:
        self._tables = [table for profile in profiles for table in profile.table]
        scalars = [table.oid_of(column) for table in self._tables if table.scalar for column in table.column]
        self._scalars = list(dict.fromkeys(scalars))
        self._changed_by = [oid for profile in profiles for oid in profile.changed_by]
        self._poll = profiles[0].poll if profiles else ""
        self._target, self._fresh = target, fresh
        self._there: list[str] = []
        self._walks: list[str] = []
        self._facts: list[Row] = []
        self._mark: tuple[Value, ...] = ()
        self._uptime = 0
        self._read_at: float | None = None
        self._shape: Shape | None = None

    def read(self, session: Session, *, entities: bool = False) -> Iterator[Record]:
        """The samples as one block, what fires, and where asked for the rows that are something by themselves.

        What was read before an error is yielded before it is raised.
        """
        answer = self._answer(session)
        oids, values = answer.oids, answer.values
        shape = self._shape
        if shape is None or not shape.fits(oids, values):
            shape = shape_of(self._tables, oids, values)
            if answer.error is None:
                self._shape = shape
        if entities:
            yield from shape.entities
        if len(shape.layout):
            yield shape.block(values)
        if shape.watches:
            yield from shape.events(ALARMS[self._poll], values)
        if answer.error is not None:
            raise answer.error

    def lines(self, session: Session) -> tuple[list[Line], TargetError | None]:
        """The rows as they are, and the error that ended them."""
        answer = self._answer(session)
        return lines_of(self._tables, answer.oids, answer.values), answer.error

    def _answer(self, session: Session) -> Answer:
        asked = dict.fromkeys([UPTIME, *self._changed_by, *self._there])
        head = session.get_many(list(asked))
        if self._is_new(head):
            return self._plan(session)
        answer = Answer()
        answer.add(self._facts)
        answer.add([(oid, head[oid]) for oid in self._there if oid in head])
        for base in self._walks:
            rows, error = _walked(session, base)
            answer.add(rows)
            answer.error = answer.error or error
            if error is not None and not isinstance(error, _OF_ONE_TABLE):
                break
        return answer

    def _is_new(self, head: dict[str, Value]) -> bool:
        """Whether the plan is to be made: at first, after a restart of the device, when it says so, after a while."""
        uptime = head.get(UPTIME)
        uptime = uptime if isinstance(uptime, int) else 0
        mark = tuple(head.get(oid) for oid in self._changed_by)
        since = None if self._read_at is None else time.monotonic() - self._read_at
        new = since is None or since > self._target.static_every or uptime < self._uptime or mark != self._mark
        self._uptime, self._mark = uptime, mark
        return new

    def _plan(self, session: Session) -> Answer:
        """Read everything, see what there is, and choose how to walk it from now on."""
        self._facts, self._walks, self._there, self._shape, self._read_at = [], [], [], None, None
        answer, walked = Answer(), list[Row]()
        try:
            found = _scalars(session, self._target, self._scalars)
        except TargetError as exc:
            answer.error = exc
            return answer
        for tables in _by_oid(self._tables):
            rows, error = self._plan_table(session, tables)
            walked += rows
            answer.error = answer.error or error
            if error is not None and not isinstance(error, _OF_ONE_TABLE):
                break
        else:
            self._read_at = time.monotonic()
        self._there = list(found)
        answer.add(self._facts)
        answer.add(list(found.items()))
        answer.add(walked)
        return answer

    def _plan_table(self, session: Session, tables: Sequence[Table]) -> tuple[list[Row], TargetError | None]:
        """Plan the tables that lie at one place; what later walks give of them. One that cannot be read whole is asked
        for again every time, so that it is told as long as it lasts.
        """
        base = tables[0].oid
        columns = {table.oid_of(column): column.role for table in tables for column in table.column}
        by_column: dict[str, list[Row]] = {}
        rows, error = _walked(session, base)
        if error is not None:
            self._walks.append(base)
            return rows, error
        for row in rows:
            if (column := _column(columns, row[0], base)) is not None:
                by_column.setdefault(column, []).append(row)
        wanted = [one for one in columns if one in by_column and (self._fresh or columns[one] == "metric")]
        if wanted and len(rows) <= sum(len(by_column[one]) + _REQUEST for one in wanted):
            self._walks.append(base)  # names and all: cheaper than a request for each column
            return rows, None
        self._walks += wanted
        self._facts += [row for one, found in by_column.items() if one not in wanted for row in found]
        return [row for one in wanted for row in by_column[one]], None


def _walked(session: Session, base: str) -> tuple[list[Row], TargetError | None]:
    """What is below an object, and what ended it before its end."""
    rows: list[Row] = []
    try:
        for some in session.walk(base):
            rows += some
    except TargetError as exc:
        return rows, exc
    return rows, None


def _scalars(session: Session, target: SnmpTarget, oids: Sequence[str]) -> dict[str, Value]:
    """Those that the device has. Version 1 refuses a whole request when one is missing, so there each is walked to."""
    if target.version != "1":
        return session.get_many(oids)
    found: dict[str, Value] = {}
    for oid in oids:
        for rows in session.walk(oid.removesuffix(".0")):
            found |= {at: value for at, value in rows if at == oid}
    return found


def _by_oid(tables: Sequence[Table]) -> list[list[Table]]:
    """Tables that two profiles read are walked once."""
    found: dict[str, list[Table]] = {}
    for table in tables:
        if not table.scalar:
            found.setdefault(table.oid, []).append(table)
    return list(found.values())


def _column(columns: Collection[str], oid: str, base: str) -> str | None:
    arcs = oid[len(base) + 1 :].split(".")
    for depth in range(1, len(arcs)):
        if (column := f"{base}.{'.'.join(arcs[:depth])}") in columns:
            return column
    return None
