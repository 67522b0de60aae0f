"""A job's run: claimed by state, so no message can start it twice; it ends in one state with its result."""

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import Engine, func, update
from sqlalchemy.exc import OperationalError
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_random_exponential

from nms_workers.errors import NmsError
from nms_workers.jobs.job import Job, from_row, get
from nms_workers.jobs.submit import MAX_ATTEMPTS, action_of
from nms_workers.records import MAX_TEXT, Attributes
from nms_workers.service import Action, Change, Client
from nms_workers.store.inventory import as_json
from nms_workers.store.schema import jobs
from nms_workers.transport.deadline import deadline

log = logging.getLogger(__name__)

LEASE_MARGIN = 15.0  # seconds a lease outlives the hard limit of a run


def run(engine: Engine, job: Job, worker: str, client_of: Callable[[Job], Client]) -> Job:
    """Run a queued job to its end. One that is running, or has ended, is left as it is.

    Args:
        client_of: gives the client of the job's target.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: PostgreSQL is away; the lease runs out and the job runs again.
    """
    declared = action_of(job.service, job.action)
    claimed = _claim(engine, job, declared, worker)
    if claimed is None:
        return get(engine, job.id)
    try:
        with deadline(declared.deadline):
            change = declared.run(client_of(claimed), **declared.validate(claimed.arguments))
        end = _success(change)
    except NmsError as exc:
        end = _failure(str(exc))
    except SoftTimeLimitExceeded:  # Celery's, for an action that does not look at the deadline
        end = _failure(f"it did not end in its {declared.deadline:g} s")
    except Exception as exc:  # every fault ends the job in one state, with a line for people
        log.exception("job %s (%s on %s): a fault in the action", claimed.id, claimed.action, claimed.target)
        end = _failure(f"a fault in the action: {type(exc).__name__}")
    return _finish(engine, claimed, worker, end)


def _claim(engine: Engine, job: Job, declared: Action, worker: str) -> Job | None:
    with engine.begin() as connection:
        row = connection.execute(
            update(jobs)
            .where(jobs.c.id == job.id, jobs.c.state == "queued", jobs.c.attempts < MAX_ATTEMPTS)
            .values(
                state="running",
                attempts=jobs.c.attempts + 1,
                claimed_at=func.now(),
                leased_until=func.now() + timedelta(seconds=declared.deadline + LEASE_MARGIN),
                worker=worker,
            )
            .returning(jobs)
        ).one_or_none()
    return None if row is None else from_row(row)


def _success(change: Change) -> dict[str, Any]:
    return {
        "state": "succeeded" if change.changed else "unchanged",
        "result": _plain({"changed": change.changed, "message": change.message}),
        "before": _plain(change.before),
        "after": _plain(change.after),
    }


def _plain(attributes: Attributes) -> Attributes:
    """As `jsonb` takes it: a job that was done must not be done again because of what it says."""
    plain: Attributes = msgspec.json.decode(as_json(attributes))
    return plain


def _failure(error: str) -> dict[str, Any]:
    return {"state": "failed", "error": error[:MAX_TEXT].replace("\x00", "\N{REPLACEMENT CHARACTER}")}


@retry(
    retry=retry_if_exception_type(OperationalError),
    wait=wait_random_exponential(multiplier=0.2, max=5),
    stop=stop_after_delay(LEASE_MARGIN - 5),
    reraise=True,
)
def _finish(engine: Engine, job: Job, worker: str, values: dict[str, Any]) -> Job:
    """Write the end, unless somebody else took the job over when the lease had run out."""
    with engine.begin() as connection:
        row = connection.execute(
            update(jobs)
            .where(jobs.c.id == job.id, jobs.c.state == "running", jobs.c.attempts == job.attempts)
            .where(jobs.c.worker == worker)
            .values(finished_at=func.now(), leased_until=None, **values)
            .returning(jobs)
        ).one_or_none()
    return get(engine, job.id) if row is None else from_row(row)
