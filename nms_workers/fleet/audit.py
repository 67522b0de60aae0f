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

log = logging.getLogger(__name__)

# A fleet that was down for longer was not running: its slots were never due. Naming each would bury the ledger.
LONGEST_GAP = timedelta(minutes=15)

_SKIP_GAPS = text("""
    UPDATE schedules SET audited_until = :now
    WHERE audited_until IS NULL OR audited_until < :now - make_interval(secs => :gap + every_ms * 0.0018 + 5)
    RETURNING target_id, poll
""")

_ACCOUNT = text("""
    WITH bounds AS (
        SELECT s.target_id, s.poll, s.every_ms, s.phase_ms,
               extract(epoch FROM s.audited_until) * 1000 AS from_ms,
               extract(epoch FROM CAST(:now AS timestamptz)) * 1000 - s.every_ms * 1.8 - 5000 AS until_ms
        FROM schedules s JOIN targets t ON t.id = s.target_id AND t.state = 'active'
    ), due AS (
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
        WHERE NOT EXISTS (
            SELECT 1 FROM poll_runs r WHERE (r.target_id, r.poll, r.due) = (d.target_id, d.poll, d.due))
        AND NOT EXISTS (
            SELECT 1 FROM unnest(CAST(:after AS bigint[]), CAST(:until AS bigint[])) AS p(after_ms, until_ms)
            WHERE d.ms > p.after_ms AND d.ms <= p.until_ms)
        ON CONFLICT DO NOTHING
        RETURNING outcome
    ), moved AS (
        UPDATE schedules s
        SET audited_until = greatest(s.audited_until, to_timestamp(b.until_ms / 1000.0))
        FROM bounds b WHERE (s.target_id, s.poll) = (b.target_id, b.poll)
    )
    SELECT outcome, count(*) AS found FROM missing GROUP BY outcome
""")


def audit(engine: Engine, client: "redis.Redis", now: datetime) -> dict[str, int]:
    """Account for every slot that must have ended by `now`.

    Returns:
        how many slots were found missing, by outcome.

    Raises:
        sqlalchemy.exc.SQLAlchemyError, redis.RedisError: a store is away; the next audit covers what this did not.
    """
    marks: Mapping[bytes, bytes] = client.hgetall(STARTED)  # type: ignore[assignment]
    started = {slot.decode(): worker.decode() for slot, worker in marks.items()}
    stops = pauses(client)
    with engine.begin() as connection:
        # one audit at a time: two would insert the same rows and one would wait for the other anyway
        if not connection.scalar(text("SELECT pg_try_advisory_xact_lock(7264417)")):
            return {}
        skipped = connection.execute(_SKIP_GAPS, {"now": now, "gap": LONGEST_GAP.total_seconds()}).all()
        known = {
            "now": now,
            "slots": list(started),
            "workers": list(started.values()),
            "after": [stop.after_ms for stop in stops],
            "until": [stop.until_ms for stop in stops],
        }
        found = connection.execute(_ACCOUNT, known).all()
    if skipped:
        log.info("audit: %d schedules begin now: they are new, or the fleet was not running", len(skipped))
    _forget_started(client, started, now)
    return {row.outcome: row.found for row in found}


def _forget_started(client: "redis.Redis", started: Mapping[str, str], now: datetime) -> None:
    """Drop the marks of slots that are long accounted for: their workers died and cannot."""
    oldest = (now - timedelta(days=1)).timestamp() * 1000
    stale = [slot for slot in started if int(slot.rpartition(":")[2]) < oldest]
    if stale:
        client.hdel(STARTED, *stale)
