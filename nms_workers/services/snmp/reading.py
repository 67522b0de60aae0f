"""One poll of one device: what is asked, in which requests, and what of it has to be looked at."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nms_workers.errors import TargetError
from nms_workers.records import Record
from nms_workers.services.snmp.fast import FastSession
from nms_workers.services.snmp.oid import Value
from nms_workers.services.snmp.profile import Profile, Table
from nms_workers.services.snmp.shape import Shape, shape_of

UPTIME = "1.3.6.1.2.1.1.3.0"
OBJECT_ID = "1.3.6.1.2.1.1.2.0"

_REQUEST = 20  # rows that one more request is worth


@dataclass(frozen=True)
class Walk:
    """One walk: a whole table, or one column of it."""

    table: Table
    base: str


class Reading:
    """What one poll reads of one device, kept from run to run.

    Args:
        profiles: those that fit the device.
        every: seconds after which facts are read again even when nothing says that they changed.
    """

    def __init__(self, profiles: Sequence[Profile], every: float) -> None:
        self._tables = [table for profile in profiles for table in profile.table]
        self._scalars = [table.oid_of(column) for table in self._tables if table.scalar for column in table.column]
        self._changed_by = [oid for profile in profiles for oid in profile.changed_by]
        self._every = every
        self._walks: list[Walk] = []
        self._facts: list[str] = []
        self._fact_values: list[Value] = []
        self._mark: tuple[Value, ...] = ()
        self._uptime = 0
        self._read_at = 0.0
        self._shape: Shape | None = None

    def read(self, session: FastSession, *, entities: bool = False) -> Iterator[Record]:
        """The samples as one block, and where asked for the rows that are something by themselves.

        What was read before an error is yielded before it is raised.
        """
        head = session.get_many([UPTIME, *self._changed_by, *self._scalars])
        if self._is_new(head):
            self._plan(session, head)
        oids, values = [*self._facts, *head], [*self._fact_values, *head.values()]
        error: TargetError | None = None
        try:
            for walk in self._walks:
                for rows in session.walk(walk.base):
                    oids += [oid for oid, _ in rows]
                    values += [value for _, value in rows]
        except TargetError as exc:
            error = exc
        if self._shape is None or not self._shape.fits(oids, values):
            shape = shape_of(self._tables, oids, values)
            if error is None:
                self._shape = shape
        else:
            shape = self._shape
        if entities:
            yield from shape.entities
        if len(shape.layout):
            yield shape.block(values)
        if error is not None:
            raise error

    def _is_new(self, head: dict[str, Value]) -> bool:
        """Whether facts have to be read: at first, after a restart of the device, when it says so, or after a while."""
        uptime = head.get(UPTIME)
        uptime = uptime if isinstance(uptime, int) else 0
        mark = tuple(head.get(oid) for oid in self._changed_by)
        new = uptime < self._uptime or mark != self._mark or time.monotonic() - self._read_at > self._every
        self._uptime, self._mark = uptime, mark
        return new or not self._read_at

    def _plan(self, session: FastSession, head: dict[str, Value]) -> None:
        """Read what changes seldom, see which columns there are, and choose how to walk the rest."""
        self._facts, self._fact_values, self._walks, self._shape = [], [], [], None
        for table in self._tables:
            if table.scalar:
                continue
            rows = [row for rows in session.walk(table.oid) for row in rows]
            there = [c for c in table.column if any(oid.startswith(f"{table.oid_of(c)}.") for oid, _ in rows)]
            wanted = [column for column in there if column.role == "metric"]
            facts = tuple(f"{table.oid_of(column)}." for column in there if column.role == "attribute")
            if not wanted:
                cells = [row for row in rows if row[0].startswith(facts)] if facts else []
            elif len(rows) <= sum(len(rows) / max(1, len(there)) + _REQUEST for _ in wanted):
                self._walks.append(Walk(table, table.oid))  # names and all: cheaper than a request for each column
                cells = []
            else:
                self._walks += [Walk(table, table.oid_of(column)) for column in wanted]
                cells = [row for row in rows if row[0].startswith(facts)] if facts else []
            self._facts += [oid for oid, _ in cells]
            self._fact_values += [value for _, value in cells]
        self._read_at = time.monotonic()
