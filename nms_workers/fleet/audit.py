"""The ledger has no holes: every slot that should have been, by the clock alone, is accounted for.

What ran writes its own row. This names the rest: `lost` when a worker had taken it, `expired` when none did (beat or
the broker was away, or the queue was longer than the interval). A result that still arrives later, from a spool,
replaces such a row.
"""

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta

import redis
from sqlalchemy import Engine, text

from nms_workers.fleet.flight import STARTED
from nms_workers.fleet.pauses import pauses
from nms_workers.store import partitions

log = logging.getLogger(__name__)

# A fleet that was down for longer was not running: its slots were never due. Naming each would bury the ledger.
LONGEST_GAP = timedelta(minutes=15)
AT_ONCE_MS = 60_000  # how much of a gap one audit accounts for (and two slots at least): no statement without end

# A schedule is moved on only by a slot, so it stands at most one interval behind what has settled.
_SKIP_GAPS = text("""
    UPDATE schedules SET audited_until = :now
    WHERE audited_until IS NULL OR audited_until < :now - make_interval(secs => :gap + every_ms * 0.0028 + 5)
    RETURNING target_id, poll
""")

# The lateral join makes it one look into the ledger's index for each slot. Left to itself the planner reads the whole
# ledger, because it takes the slots to be many more than they are.
_ACCOUNT = text("""
    WITH settled AS (
        SELECT s.target_id, s.poll, s.every_ms, s.phase_ms,
               extract(epoch FROM greatest(s.audited_until, CAST(:oldest AS timestamptz))) * 1000 AS from_ms,
               extract(epoch FROM CAST(:now AS timestamptz)) * 1000 - s.every_ms * 1.8 - 5000 AS until_ms
        FROM schedules s JOIN targets t ON t.id = s.target_id AND t.state = 'active'
    ), bounds AS (
        SELECT target_id, poll, every_ms, phase_ms, from_ms,
               least(until_ms, from_ms + greatest(2 * every_ms, :at_once)) AS until_ms
        FROM settled
    ), due AS MATERIALIZED (
        SELECT b.target_id, b.poll, to_timestamp(ms / 1000.0) AS due, ms
        FROM bounds b CROSS JOIN LATERAL generate_series(
            ceil((b.from_ms - b.phase_ms) / b.every_ms)::bigint * b.every_ms + b.phase_ms,
            (ceil((b.until_ms - b.phase_ms) / b.every_ms)::bigint - 1) * b.every_ms + b.phase_ms,
            b.every_ms::bigint) AS ms
    ), started AS (
        SELECT * FROM unnest(CAST(:slots AS text[]), CAST(:workers AS text[])) AS s(slot, worker)
    ), missing AS (
        INSERT INTO poll_runs (target_id, poll, due, finished, outcome, samples, worker, detail, manual)
        SELECT d.target_id, d.poll, d.due, :now,
               CASE WHEN s.slot IS NULL THEN 'expired' ELSE 'lost' END, 0, coalesce(s.worker, ''),
               CASE WHEN s.slot IS NULL THEN 'no worker took it before the next one was due'
                    ELSE 'the worker that took it died' END, false
        FROM due d
        LEFT JOIN started s ON s.slot = concat_ws(':', d.target_id, d.poll, d.ms)
        LEFT JOIN LATERAL (
            SELECT true AS known FROM poll_runs r
            WHERE (r.target_id, r.poll, r.due) = (d.target_id, d.poll, d.due) LIMIT 1) AS run ON true
        WHERE run.known IS NULL AND NOT EXISTS (
            SELECT 1 FROM unnest(CAST(:after AS bigint[]), CAST(:until AS bigint[])) AS p(after_ms, until_ms)
            WHERE d.ms > p.after_ms AND d.ms <= p.until_ms)
        ON CONFLICT DO NOTHING
        RETURNING outcome
    ), moved AS (
        UPDATE schedules s
        SET audited_until = to_timestamp((d.last + 1) / 1000.0)
        FROM (SELECT target_id, poll, max(ms) AS last FROM due GROUP BY target_id, poll) AS d
        WHERE (s.target_id, s.poll) = (d.target_id, d.poll)
    )
    SELECT outcome, count(*) AS found FROM missing GROUP BY outcome
""")


def audit(
    engine: Engine, client: "redis.Redis", now: datetime, retention: partitions.Retention | None = None
) -> dict[str, int]:
    """Account for every slot that must have ended by `now`; after a gap, for some of them at each call.

    A slot older than the ledger is kept is not named.

    Args:
        retention: how long the ledger is kept, where it is not as in `partitions.TABLES`.

    Returns:
        how many slots were found missing, by outcome.

    Raises:
        sqlalchemy.exc.SQLAlchemyError, redis.RedisError: a store is away; the next audit covers what this did not.
    """
    marks: Mapping[bytes, bytes] = client.hgetall(STARTED)  # type: ignore[assignment]
    started = {slot.decode(): worker.decode() for slot, worker in marks.items()}
    stops = pauses(client)
    oldest = _make_partitions(engine, now, retention or {})
    with engine.begin() as connection:
        # one audit at a time: two would insert the same rows and one would wait for the other anyway
        if not connection.scalar(text("SELECT pg_try_advisory_xact_lock(7264417)")):
            return {}
        skipped = connection.execute(_SKIP_GAPS, {"now": now, "gap": LONGEST_GAP.total_seconds()}).all()
        known = {
            "now": now,
            "oldest": oldest,
            "at_once": AT_ONCE_MS,
            "slots": list(started),
            "workers": list(started.values()),
            "after": [stop.after_ms for stop in stops],
            "until": [stop.until_ms for stop in stops],
        }
        # a partition that is new and empty would be read whole for each slot, while this very statement fills it
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        found = connection.execute(_ACCOUNT, known).all()
    if skipped:
        log.info("audit: %d schedules begin now: they are new, or the fleet was not running", len(skipped))
    _forget_started(client, started, now)
    return {row.outcome: row.found for row in found}


def _make_partitions(engine: Engine, now: datetime, retention: partitions.Retention) -> datetime:
    """Make those of the ledger that a slot may need; after an outage some are missing. Returns where they begin."""
    plan = partitions.TABLES["poll_runs"]
    oldest = partitions.bounds(plan.width, now - retention.get("poll_runs", plan.keep))[0]
    with engine.begin() as connection:
        first = connection.scalar(text("SELECT min(audited_until) FROM schedules"))
        start = max(first or now, oldest)
        hours = [start + timedelta(hours=hour) for hour in range(int((now - start) / timedelta(hours=1)) + 1)]
        partitions.ensure(connection, [("poll_runs", moment) for moment in (*hours, now)])
    return oldest


def _forget_started(client: "redis.Redis", started: Mapping[str, str], now: datetime) -> None:
    """Drop the marks of slots that are long accounted for: their workers died and cannot."""
    oldest = (now - timedelta(days=1)).timestamp() * 1000
    stale = [slot for slot in started if int(slot.rpartition(":")[2]) < oldest]
    if stale:
        client.hdel(STARTED, *stale)
