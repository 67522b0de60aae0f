"""What exists and what happens at targets: entities, links and events of a batch."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec
import psycopg

from nms_workers.records import Event
from nms_workers.store.slot import SlotResult

_Seen = dict[tuple[int, bytes], tuple[SlotResult, tuple[str, ...], dict[str, Any]]]


def write(connection: psycopg.Connection[Any], results: Sequence[SlotResult], kept: Callable[[datetime], bool]) -> None:
    """Write the entities, links and events of these slots inside the caller's transaction.

    Args:
        kept: whether an event of this time has a place.
    """
    entities: _Seen = {
        (result.target_id, _digest(one.kind, one.key)): (result, (one.kind, one.key), one.attributes)
        for result in sorted(results, key=_finished)
        for one in result.entities
    }
    links: _Seen = {
        (result.target_id, _digest(one.kind, *one.a, *one.b)): (result, (one.kind, *one.a, *one.b), one.attributes)
        for result in sorted(results, key=_finished)
        for one in result.links
    }
    _see(connection, _SEE_ENTITIES, entities)
    _see(connection, _SEE_LINKS, links)
    _miss(connection, results)
    _tell(connection, results, kept)


def _see(connection: psycopg.Connection[Any], statement: str, seen: _Seen) -> None:
    if not seen:
        return
    rows = [
        (target_id, digest, result.poll, as_json(attributes), result.finished, *names)
        for (target_id, digest), (result, names, attributes) in sorted(seen.items(), key=lambda item: item[0])
    ]
    connection.execute(statement, [list(column) for column in zip(*rows, strict=True)])


def _miss(connection: psycopg.Connection[Any], results: Sequence[SlotResult]) -> None:
    """What a complete run did not name is gone since that run."""
    runs = [(r.target_id, kind, r.finished) for r in results if r.complete for kind in r.enumerated]
    if runs:
        columns = [list(column) for column in zip(*runs, strict=True)]
        connection.execute(_MISS.format(table="entities"), columns)
        connection.execute(_MISS.format(table="links"), columns)


_SEE = """
INSERT INTO {table} AS old (target_id, digest, poll, attributes, last_seen, first_seen, {names})
SELECT target_id, digest, poll, attributes, seen, seen, {names}
FROM unnest(%b::int[], %b::bytea[], %b::text[], %b::jsonb[], %b::timestamptz[], {arrays})
    AS new (target_id, digest, poll, attributes, seen, {names})
ON CONFLICT (target_id, digest) DO UPDATE
SET attributes = excluded.attributes, poll = excluded.poll, last_seen = excluded.last_seen,
    gone_at = CASE WHEN old.gone_at > excluded.last_seen THEN old.gone_at END
WHERE excluded.last_seen >= old.last_seen
"""
_SEE_ENTITIES = _SEE.format(table="entities", names="kind, key", arrays="%b::text[], %b::text[]")
_SEE_LINKS = _SEE.format(
    table="links",
    names="kind, a_kind, a_key, b_kind, b_key",
    arrays="%b::text[], %b::text[], %b::text[], %b::text[], %b::text[]",
)

_MISS = """
UPDATE {table} AS it SET gone_at = missed.at
FROM (
    SELECT old.id, min(run.at) AS at
    FROM unnest(%b::int[], %b::text[], %b::timestamptz[]) AS run (target_id, kind, at)
    JOIN {table} AS old USING (target_id, kind)
    WHERE old.gone_at IS NULL AND old.last_seen < run.at
    GROUP BY old.id
) AS missed
WHERE it.id = missed.id
"""


class _Firing(NamedTuple):
    """A row of `firing`."""

    target_id: int
    digest: bytes
    poll: str
    kind: str
    fingerprint: str
    severity: str
    message: str
    since: datetime
    last_seen: datetime


class _Condition:
    """What fires at the targets of a batch, before and after it; told are only beginnings, ends and new severities."""

    def __init__(self, firing: Iterable[_Firing]) -> None:
        self.now = {(one.target_id, one.digest): one for one in firing}
        self.before = dict(self.now)
        self.told: list[tuple[SlotResult, Event, datetime]] = []

    def take(self, result: SlotResult) -> None:
        """Go on by one slot; slots must come in the order of time."""
        named = set()
        for event in result.events:
            at = event.ts or result.finished
            key = (result.target_id, _digest(event.kind, event.fingerprint))
            if event.state == "firing":
                named.add(key)
                self._fires(key, result, event, at)
            elif event.state == "occurred" or self.now.pop(key, None) is not None:
                self.told.append((result, event, at))
        if result.complete:
            self._resolve(result, named)

    def _fires(self, key: tuple[int, bytes], result: SlotResult, event: Event, at: datetime) -> None:
        old = self.now.get(key)
        if old is None or old.severity != event.severity:
            self.told.append((result, event, at))
        self.now[key] = _Firing(
            *key, result.poll, event.kind, event.fingerprint, event.severity, event.message,
            old.since if old else at, result.finished,
        )  # fmt: skip

    def _resolve(self, result: SlotResult, named: set[tuple[int, bytes]]) -> None:
        for key, one in list(self.now.items()):
            ours = (one.target_id, one.poll) == (result.target_id, result.poll) and one.kind in result.enumerated
            if ours and key not in named and one.last_seen < result.finished:
                del self.now[key]
                end = Event(one.kind, one.message, fingerprint=one.fingerprint, state="resolved")
                self.told.append((result, end, result.finished))


def _tell(connection: psycopg.Connection[Any], results: Sequence[SlotResult], kept: Callable[[datetime], bool]) -> None:
    """Enter events. One that goes on firing is told once; one a complete run does not name any more is resolved."""
    telling = sorted((r for r in results if r.events or (r.complete and r.enumerated)), key=_finished)
    if not telling:
        return
    targets = sorted({result.target_id for result in telling})
    condition = _Condition(map(_Firing._make, connection.execute(_FIRING, [targets])))
    for result in telling:
        condition.take(result)
    _store_firing(connection, condition)
    rows = [_event_row(result, event, at) for result, event, at in condition.told if kept(at)]
    if rows:
        connection.execute(_TELL, [list(column) for column in zip(*sorted(rows), strict=True)])


def _store_firing(connection: psycopg.Connection[Any], condition: _Condition) -> None:
    ended = sorted(condition.before.keys() - condition.now.keys())
    if ended:
        connection.execute(_UNFIRE, [list(column) for column in zip(*ended, strict=True)])
    changed = sorted(one for key, one in condition.now.items() if condition.before.get(key) != one)
    if changed:
        connection.execute(_FIRE, [list(column) for column in zip(*changed, strict=True)])


def _event_row(result: SlotResult, event: Event, at: datetime) -> tuple[object, ...]:
    return (
        result.target_id,
        at,
        _digest(event.kind, event.fingerprint, event.state, event.message),
        event.kind,
        event.severity,
        event.fingerprint,
        event.state,
        event.message,
        as_json(event.attributes),
    )


_FIRING = f"SELECT {', '.join(_Firing._fields)} FROM firing WHERE target_id = ANY(%b::int[]) FOR UPDATE"  # noqa: S608 - column names of our own

_UNFIRE = """
DELETE FROM firing USING unnest(%b::int[], %b::bytea[]) AS ended (target_id, digest)
WHERE firing.target_id = ended.target_id AND firing.digest = ended.digest
"""

_FIRE = """
INSERT INTO firing (target_id, digest, poll, kind, fingerprint, severity, message, since, last_seen)
SELECT * FROM unnest(%b::int[], %b::bytea[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[],
                     %b::timestamptz[], %b::timestamptz[])
ON CONFLICT (target_id, digest) DO UPDATE
SET poll = excluded.poll, severity = excluded.severity, message = excluded.message, last_seen = excluded.last_seen
"""

_TELL = """
INSERT INTO events (target_id, ts, digest, kind, severity, fingerprint, state, message, attributes)
SELECT * FROM unnest(%b::int[], %b::timestamptz[], %b::bytea[], %b::text[], %b::text[], %b::text[], %b::text[],
                     %b::text[], %b::jsonb[])
ON CONFLICT DO NOTHING
"""


def _finished(result: SlotResult) -> datetime:
    return result.finished


def _digest(*parts: str) -> bytes:
    return blake2b(msgspec.msgpack.encode(parts), digest_size=16).digest()


def as_json(attributes: dict[str, Any]) -> str:
    """JSON as `jsonb` takes it: every character but U+0000, which becomes U+FFFD."""
    return msgspec.json.encode(attributes).decode().replace(r"\u0000", r"\ufffd")
