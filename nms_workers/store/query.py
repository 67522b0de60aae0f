"""Reading the history. Every answer is bounded, and a list of plain dictionaries: what the CLI and the API print."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Engine, Executable, Select, func, select, text
from sqlalchemy.dialects.postgresql import array

from nms_workers.errors import NmsError
from nms_workers.records import Witnesses
from nms_workers.store.rates import Seen, rates
from nms_workers.store.schema import entities as entities_table
from nms_workers.store.schema import events as events_table
from nms_workers.store.schema import firing as firing_table
from nms_workers.store.schema import layouts, poll_runs, series
from nms_workers.store.schema import targets as targets_table

Row = dict[str, Any]
Resolution = Literal["raw", "5m", "1h"]

MAX_ROWS = 100_000
MAX_SERIES = 10_000

# What one member of a block is: for each resolution the table, and the arrays of a level and of a counter.
_SOURCES: dict[str, tuple[str, str, str]] = {
    "raw": ("sample_blocks", '"values"', '"values"'),
    "5m": ("rollups_5m", "mean", "last"),
    "1h": ("rollups_1h", "mean", "last"),
}

_READ = """
SELECT member.number, block.ts, block.{values}[member.position] AS value
FROM unnest(CAST(:layouts AS int[]), CAST(:positions AS int[]), CAST(:numbers AS int[]))
    AS member (layout_id, position, number)
JOIN {table} AS block ON block.layout_id = member.layout_id AND block.ts >= :since AND block.ts < :until
WHERE {condition}
ORDER BY block.ts DESC
LIMIT :limit
"""


class QueryError(NmsError):
    """The question cannot be answered as it was asked."""


def samples(  # noqa: PLR0913 - every argument but the engine is a filter of its own
    engine: Engine,
    *,
    metric: str | None = None,
    service: str | None = None,
    target: str | None = None,
    labels: Mapping[str, str] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    rate: bool = False,
    witnesses: Mapping[str, Witnesses] | None = None,
    resolution: Resolution = "raw",
    limit: int = 1000,
) -> list[Row]:
    """Samples of the series that match, oldest first; of more than `limit` the newest.

    Args:
        labels: those a series must have, among others.
        since, until: aware; default: the last hour.
        rate: the increase per second between a sample and the one before, a counter's reset handled.
        witnesses: of services that have them, by kind: what tells a counter's wrap from a reset.
        resolution: `5m` and `1h` give the mean of each window (the last value where `rate` is asked for).

    Returns:
        `ts`, `service`, `target`, `metric`, `labels`, `value` (NaN where none was measured).

    Raises:
        QueryError: more than 10 000 series match, or the limit is out of range.
    """
    _check(limit)
    until = until or datetime.now(UTC) + timedelta(days=1)
    since = since or datetime.now(UTC) - timedelta(hours=1)
    table, level, counter = _SOURCES[resolution]
    values = counter if rate else level
    condition = f"block.{values}[member.position] <> 'NaN'" if rate else "true"
    statement = text(_READ.format(table=table, values=values, condition=condition))
    with engine.connect() as connection:
        found = _series(connection, metric, service, target, labels or {})
        members = _members(connection, [one["id"] for one in found])
        if not members:
            return []
        columns = dict(zip(("layouts", "positions", "numbers"), map(list, zip(*members, strict=True)), strict=True))
        # the first sample of a series has no rate: read one more of each
        wanted = min(limit + (len(found) if rate else 0), MAX_ROWS + MAX_SERIES)
        read = connection.execute(statement, columns | {"since": since, "until": until, "limit": wanted}).all()
        rows = [(number, ts, value) for number, ts, value in reversed(read)]
        if rate and rows:
            said = _Testimony(connection, found, witnesses or {})
            said.hear(statement, {"since": rows[0][1], "until": until})
            rows = _rates(rows, {one["id"]: one for one in found}, said)
    names = {one.pop("id"): one for one in found}
    return [{"ts": ts, **names[number], "value": value} for number, ts, value in rows[-limit:]]


def runs(  # noqa: PLR0913 - every argument but the engine is a filter of its own
    engine: Engine,
    *,
    finished_after: datetime | None = None,
    service: str | None = None,
    target: str | None = None,
    poll: str | None = None,
    outcome: str | None = None,
    limit: int = 1000,
) -> list[Row]:
    """Slots that ended, in the order in which they ended; of more than `limit` the newest.

    Returns:
        `service`, `target`, `poll`, `due`, `started`, `finished`, `outcome`, `samples`, `milliseconds`, `worker`,
        `detail`, `manual`.
    """
    _check(limit)
    after = finished_after or datetime.now(UTC) - timedelta(hours=1)
    ledger = (
        select(
            targets_table.c.service,
            targets_table.c.name.label("target"),
            *(column for column in poll_runs.c if column is not poll_runs.c.target_id),
        )
        .join(targets_table, targets_table.c.id == poll_runs.c.target_id)
        # a slot is due within the hours before it ends: other partitions need not be read
        .where(poll_runs.c.finished > after, poll_runs.c.due > after - timedelta(hours=2))
        .where(*_of(service, target), *_equal({poll_runs.c.poll: poll, poll_runs.c.outcome: outcome}))
        .order_by(poll_runs.c.finished.desc())
        .limit(limit)
    )
    return _rows(engine, ledger)[::-1]


def percentiles(
    engine: Engine,
    *,
    since: datetime | None = None,
    service: str | None = None,
    target: str | None = None,
    by_target: bool = True,
) -> list[Row]:
    """How polls went since then (default: an hour ago), slowest first.

    Args:
        by_target: one row for each poll of each target; False: for each poll of each service.

    Returns:
        `service`, `target` (only by target), `poll`, `runs`, `outcomes` (outcome to number), `p50_ms`, `p95_ms`,
        `p99_ms` (None when nothing ran).
    """
    since = since or datetime.now(UTC) - timedelta(hours=1)
    name = [targets_table.c.name.label("target")] if by_target else []
    keys: list[ColumnElement[str]] = [targets_table.c.service, *name, poll_runs.c.poll]
    outcomes = (
        select(*keys, poll_runs.c.outcome, func.count().label("number"))
        .join(targets_table, targets_table.c.id == poll_runs.c.target_id)
        .where(poll_runs.c.due >= since, *_of(service, target))
        .group_by(*keys, poll_runs.c.outcome)
    )
    spread = func.percentile_cont(array([0.5, 0.95, 0.99])).within_group(poll_runs.c.milliseconds)
    times = (
        select(*keys, func.count().label("runs"), spread.label("spread"))
        .join(targets_table, targets_table.c.id == poll_runs.c.target_id)
        .where(poll_runs.c.due >= since, *_of(service, target))
        .group_by(*keys)
    )
    names = ("service", "target", "poll") if by_target else ("service", "poll")
    counted: dict[tuple[str, ...], dict[str, int]] = {}
    for row in _rows(engine, outcomes):
        counted.setdefault(tuple(row[name] for name in names), {})[row["outcome"]] = row["number"]
    rows = _rows(engine, times)
    for row in rows:
        row["p50_ms"], row["p95_ms"], row["p99_ms"] = row.pop("spread") or (None, None, None)
        row["outcomes"] = counted.get(tuple(row[name] for name in names), {})
    return sorted(rows, key=lambda row: -(row["p95_ms"] or 0.0))


_TARGETS = text(
    """
    SELECT t.id, t.service, t.name, t.state, t.source, t.worker, max(good.finished) AS last_ok,
        coalesce(jsonb_object_agg(s.poll, newest.outcome) FILTER (WHERE newest.outcome IS NOT NULL), '{}') AS outcomes
    FROM targets AS t
    LEFT JOIN schedules AS s ON s.target_id = t.id
    LEFT JOIN LATERAL (
        SELECT outcome FROM poll_runs WHERE target_id = t.id AND poll = s.poll ORDER BY due DESC LIMIT 1
    ) AS newest ON true
    LEFT JOIN LATERAL (
        SELECT finished FROM poll_runs
        WHERE target_id = t.id AND poll = s.poll AND outcome IN ('ok', 'unchanged') ORDER BY due DESC LIMIT 1
    ) AS good ON true
    GROUP BY t.id
    ORDER BY t.service, t.name
    LIMIT :limit
    """
)


def targets(engine: Engine, *, limit: int = MAX_ROWS) -> list[Row]:
    """Every target and how it fares.

    Returns:
        `id`, `service`, `name`, `state`, `source`, `worker`, `last_ok` (when a poll of it last went well; None: not
        within the ledger's retention), `outcomes` (poll to its newest outcome).
    """
    _check(limit)
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(_TARGETS, {"limit": limit}).mappings()]


def events(  # noqa: PLR0913 - every argument but the engine is a filter of its own
    engine: Engine,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    service: str | None = None,
    target: str | None = None,
    kind: str | None = None,
    limit: int = 1000,
) -> list[Row]:
    """What happened, oldest first; of more than `limit` the newest. Default: the last 24 hours.

    Returns:
        `ts`, `service`, `target`, `kind`, `severity`, `fingerprint`, `state`, `message`, `attributes`.
    """
    _check(limit)
    table = events_table.c
    since = since or datetime.now(UTC) - timedelta(hours=24)
    until = until or datetime.now(UTC) + timedelta(days=1)
    found = (
        _with_target(events_table, "ts")
        .where(table.ts >= since, table.ts < until, *_of(service, target), *_equal({table.kind: kind}))
        .order_by(table.ts.desc())
        .limit(limit)
    )
    return _rows(engine, found)[::-1]


def firing(engine: Engine, *, service: str | None = None, target: str | None = None, limit: int = 1000) -> list[Row]:
    """What lasts now, oldest first: `service`, `target`, `poll`, `kind`, `severity`, `message`, `since`, ..."""
    _check(limit)
    lasting = _with_target(firing_table).where(*_of(service, target)).order_by(firing_table.c.since).limit(limit)
    return _rows(engine, lasting)


def entities(  # noqa: PLR0913 - every argument but the engine is a filter of its own
    engine: Engine,
    *,
    kind: str | None = None,
    service: str | None = None,
    target: str | None = None,
    gone: bool = False,
    limit: int = 1000,
) -> list[Row]:
    """What exists (or with `gone`, what no longer does).

    Returns:
        `service`, `target`, `poll`, `kind`, `key`, `attributes`, `first_seen`, `last_seen`, `gone_at`.
    """
    _check(limit)
    table = entities_table.c
    presence = table.gone_at.is_not(None) if gone else table.gone_at.is_(None)
    found = (
        _with_target(entities_table)
        .where(presence, *_of(service, target), *_equal({table.kind: kind}))
        .order_by(targets_table.c.service, targets_table.c.name, table.kind, table.key)
        .limit(limit)
    )
    return _rows(engine, found)


def _series(
    connection: Connection, metric: str | None, service: str | None, target: str | None, labels: Mapping[str, str]
) -> list[Row]:
    wanted = (
        select(
            series.c.id,
            targets_table.c.service,
            targets_table.c.name.label("target"),
            series.c.metric,
            series.c.labels,
        )
        .join(targets_table, targets_table.c.id == series.c.target_id)
        .where(*_of(service, target), *_equal({series.c.metric: metric}))
        .limit(MAX_SERIES + 1)
    )
    if labels:
        wanted = wanted.where(series.c.labels.contains(dict(labels)))
    found = [dict(row) for row in connection.execute(wanted).mappings()]
    if len(found) > MAX_SERIES:
        raise QueryError(
            f"more than {MAX_SERIES} series match", hint="name a metric, a target or labels to narrow it down"
        )
    return found


def _members(connection: Connection, series_ids: Sequence[int]) -> list[tuple[int, int, int]]:
    """Where these series stand: layout, position from 1, series."""
    if not series_ids:
        return []
    wanted = set(series_ids)
    holding = select(layouts.c.id, layouts.c.series_ids).where(layouts.c.series_ids.overlap(array(series_ids)))
    return [
        (layout_id, position, one)
        for layout_id, held in connection.execute(holding)
        for position, one in enumerate(held, 1)
        if one in wanted
    ]


class _Testimony:
    """What the witnesses of counters said, by moment.

    Args:
        found: the counters, as `_series` gives them.
    """

    def __init__(self, connection: Connection, found: Sequence[Row], witnesses: Mapping[str, Witnesses]) -> None:
        self._connection, self._witnesses = connection, witnesses
        self._ids: dict[tuple[str, str, str, Any], int] = {}
        self._said: dict[int, dict[datetime, float]] = {}
        labels = {(one["service"], one["target"], key) for one in found for key in (_key(one["labels"]), ())}
        for kind, named in witnesses.items():
            asked = sorted({one["target"] for one in found if one["service"] == kind})
            metrics = [named.uptime, named.moved, named.speed, named.bits]
            there = (
                select(series.c.id, targets_table.c.name, series.c.metric, series.c.labels)
                .join(targets_table, targets_table.c.id == series.c.target_id)
                .where(targets_table.c.service == kind, targets_table.c.name.in_(asked), series.c.metric.in_(metrics))
            )
            for number, name, metric, own in connection.execute(there) if asked else ():
                if (kind, name, _key(own)) in labels:
                    self._ids[kind, name, metric, _key(own)] = number

    def hear(self, statement: Executable, span: Mapping[str, datetime]) -> None:
        """Read what they said in this time."""
        members = _members(self._connection, list(self._ids.values()))
        if not members:
            return
        columns = dict(zip(("layouts", "positions", "numbers"), map(list, zip(*members, strict=True)), strict=True))
        bound = {"limit": 4 * (MAX_ROWS + MAX_SERIES)}  # four of each counter at most
        for number, ts, value in self._connection.execute(statement, {**columns, **span, **bound}):
            self._said.setdefault(number, {})[ts] = value

    def seen(self, counter: Row, ts: datetime, value: float) -> Seen:
        """A counter at a moment, with what was said of it then."""
        named = self._witnesses.get(counter["service"])
        if named is None:
            return Seen(ts, value)
        speed = self._of(counter, named.speed, ts)
        size = named.size(counter["metric"])
        most = speed / size if speed > 0 and size else math.nan
        return Seen(ts, value, self._of(counter, named.uptime, ts, {}), self._of(counter, named.moved, ts), most)

    def witnessed(self, counter: Row) -> bool:
        """Whether its service names witnesses."""
        return counter["service"] in self._witnesses

    def wraps(self, counter: Row, ts: datetime) -> bool:
        """Whether it has 32 bits."""
        named = self._witnesses.get(counter["service"])
        return named is not None and (counter["metric"] in named.narrow or self._of(counter, named.bits, ts) == 32)

    def _of(self, counter: Row, metric: str, ts: datetime, labels: Mapping[str, str] | None = None) -> float:
        key = _key(counter["labels"] if labels is None else labels)
        number = self._ids.get((counter["service"], counter["target"], metric, key))
        return math.nan if number is None else self._said.get(number, {}).get(ts, math.nan)


def _key(labels: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(labels.items()))


def _rates(
    rows: Sequence[tuple[int, datetime, float]], counters: Mapping[int, Row], said: _Testimony
) -> list[tuple[int, datetime, float]]:
    rated: list[tuple[int, datetime, float]] = []
    for number, group in groupby(sorted(rows, key=lambda row: row[:2]), key=lambda row: row[0]):
        counter = counters[number]
        seen = [said.seen(counter, ts, value) for _, ts, value in group]
        wraps = said.wraps(counter, seen[-1].ts)
        rated.extend((number, *one) for one in rates(seen, wraps=wraps, witnessed=said.witnessed(counter)))
    return sorted(rated, key=lambda row: row[1])


def _with_target(table: Any, *first: str) -> Select[Any]:
    hidden = {"id", "target_id", "digest"}
    columns = [table.c[name] for name in first] + [targets_table.c.service, targets_table.c.name.label("target")]
    columns += [column for column in table.c if column.name not in hidden | set(first)]
    return select(*columns).join(targets_table, targets_table.c.id == table.c.target_id)


def _of(service: str | None, target: str | None) -> list[ColumnElement[bool]]:
    return _equal({targets_table.c.service: service, targets_table.c.name: target})


def _equal(wanted: Mapping[Any, str | None]) -> list[ColumnElement[bool]]:
    return [column == value for column, value in wanted.items() if value is not None]


def _rows(engine: Engine, statement: Executable) -> list[Row]:
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(statement).mappings()]


def _check(limit: int) -> None:
    if not 1 <= limit <= MAX_ROWS:
        raise QueryError(f"a limit of {limit} is out of range", hint=f"1 to {MAX_ROWS}")
