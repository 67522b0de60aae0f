"""What the tests compare: the ledger with the clock, and the values in the database with those that were yielded."""

import json
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from nms_workers.fleet.slots import phase
from tests.real.fleet import until


class Run(NamedTuple):
    """One read as the server numbered it: how many values it brought, and their sum."""

    target: str
    poll: str
    sequence: int
    values: int
    total: float


class Slot(NamedTuple):
    """A row of the ledger. `due` is milliseconds since the epoch."""

    target: str
    poll: str
    due: int
    outcome: str
    worker: str
    detail: str
    samples: int


_SLOTS = """
SELECT t.name, r.poll, (extract(epoch FROM r.due) * 1000)::bigint, r.outcome, r.worker, r.detail, r.samples
FROM poll_runs r JOIN targets t ON t.id = r.target_id WHERE NOT r.manual AND r.poll <> 'fleet.health'
ORDER BY t.name, r.poll, r.due
"""
_RUNS = """
SELECT t.name, l.poll, b.values FROM sample_blocks b
JOIN layouts l ON l.id = b.layout_id JOIN targets t ON t.id = l.target_id WHERE l.poll <> 'fleet.health'
"""
_SERIES = """
SELECT s.metric FROM layouts l JOIN series s ON s.id = l.series_ids[1] WHERE l.poll <> 'fleet.health'
GROUP BY s.metric
"""


@dataclass(frozen=True)
class Ledger:
    """The database and the journal of one fleet."""

    url: str
    journal: Path

    def rows(self, statement: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with psycopg.connect(self.url, connect_timeout=5) as connection:
            return connection.execute(statement, arguments).fetchall()

    def slots(self, target: str = "", poll: str = "") -> list[Slot]:
        """The scheduled slots of the ledger, in the order of their due times."""
        found = [Slot(*row) for row in self.rows(_SLOTS)]
        return [one for one in found if target in ("", one.target) and poll in ("", one.poll)]

    def outcomes(self, target: str = "", poll: str = "") -> Counter[str]:
        """How many slots ended how."""
        return Counter(slot.outcome for slot in self.slots(target, poll))

    def last_ok(self, target: str, poll: str) -> float:
        """When the last good slot was due, in seconds since the epoch; 0: there is none."""
        return max((slot.due / 1000 for slot in self.slots(target, poll) if slot.outcome == "ok"), default=0.0)

    def stored(self) -> list[Run]:
        """The reads in the database."""
        assert {metric for (metric,) in self.rows(_SERIES)} <= {"probe_sequence"}, "the first series is the sequence"
        found = self.rows(_RUNS)
        return sorted(Run(target, poll, int(values[0]), len(values), sum(values)) for target, poll, values in found)

    def yielded(self) -> list[Run]:
        """The reads in the journal: those that came to an end."""
        if not self.journal.exists():
            return []
        return sorted(Run(*json.loads(line)) for line in self.journal.read_text().splitlines())

    def assert_nothing_lost_or_double(self, seconds: float = 45.0) -> list[Run]:
        """Every read that came to an end is in the database, once, with all of its values; nothing else is there."""

        def arrived() -> bool:
            return {run.sequence for run in self.yielded()} <= {run.sequence for run in self.stored()}

        until(arrived, "every read in the journal is in the database", seconds)
        stored = self.stored()
        numbers = Counter(run.sequence for run in stored)
        assert [number for number, times in numbers.items() if times > 1] == [], "reads that were stored twice"
        yielded = {run.sequence: run for run in self.yielded()}
        known = [run for run in stored if run.sequence in yielded]
        assert known == sorted(yielded[run.sequence] for run in known)
        later = [run for run in stored if run.sequence not in yielded]
        assert not later, f"in the database, and never yielded: {later}"
        return stored

    def assert_complete(
        self, target: str, poll: str, every: float, since: float, until_: float | None = None
    ) -> list[Slot]:
        """Each slot due from `since` until `until_` (seconds since the epoch; None: now) has one row: those rows.

        The slots are computed from the clock. It waits until the audit has been there, since a slot that left no trace
        is named by it.
        """
        every_ms, start, end = int(every * 1000), int(since * 1000), int((until_ or time.time()) * 1000)
        first = phase("probe", target, poll, every_ms)
        wanted = set(range(start + (first - start) % every_ms, end, every_ms))
        assert wanted, "the window holds a slot"

        def missing() -> set[int]:
            return wanted - {slot.due for slot in self.slots(target, poll)}

        until(lambda: not missing(), f"all {len(wanted)} slots of {target} {poll} have a row", 75.0)
        rows = [slot for slot in self.slots(target, poll) if start <= slot.due < end]
        assert {slot.due for slot in rows} == wanted, "rows of slots that never were"
        assert len(rows) == len(wanted), "slots with two rows"
        return rows
