"""A job as it stands in PostgreSQL, and how to find it."""

import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import uuid_utils
from sqlalchemy import Engine, Row, select

from nms_workers.errors import NmsError
from nms_workers.store.schema import jobs

FINAL = ("succeeded", "unchanged", "failed", "refused", "cancelled", "expired")
GOOD = ("succeeded", "unchanged")
MAX_ATTEMPTS = 3


@dataclass(frozen=True)
class Job:
    """One durable, audited run of an action. `state` is one of `store.schema.JOB_STATES`; columns as there."""

    id: uuid.UUID
    service: str
    action: str
    target: str
    arguments: dict[str, Any]
    requested_by: str
    reason: str
    idempotency_key: str | None
    state: str
    attempts: int
    created_at: datetime
    due_at: datetime | None
    retry_at: datetime | None
    expires_at: datetime | None
    claimed_at: datetime | None
    finished_at: datetime | None
    worker: str | None
    edge: str | None
    lane: str | None
    every: float | None
    undo_after: float | None
    repeats: uuid.UUID | None
    undoes: uuid.UUID | None
    undone_by: uuid.UUID | None
    plan: uuid.UUID | None
    step: int | None
    follows: uuid.UUID | None
    caused_by: uuid.UUID | None
    evidence: dict[str, Any] | None
    asked: list[str] | None
    result: dict[str, Any] | None
    error: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None

    @property
    def done(self) -> bool:
        """Whether it reached the one state it ends in."""
        return self.state in FINAL

    @property
    def good(self) -> bool:
        """Whether its target is as it was wanted."""
        return self.state in GOOD

    @property
    def took_effect(self) -> bool:
        """Whether it changed its target. A later attempt that finds nothing to do finds what an earlier one did."""
        return self.state == "succeeded" or (self.state == "unchanged" and self.attempts > 1)

    @property
    def task(self) -> str:
        """The Celery task that runs it."""
        return f"nms.{self.service}.{self.action}"

    @property
    def queue(self) -> str:
        """The queue of its message."""
        return f"edge.{self.edge}" if self.edge else f"act.{self.service}"

    def as_json(self) -> dict[str, Any]:
        """The job with ids and times as text."""
        return {key: _plain(value) for key, value in asdict(self).items()}


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, uuid.UUID) else value


def from_row(row: Row[Any]) -> Job:
    """The job of a row of `jobs`."""
    return Job(**{name: getattr(row, name) for name in Job.__dataclass_fields__})


def new_id() -> uuid.UUID:
    """A UUIDv7 (RFC 9562): ids sort by time of birth."""
    return uuid.UUID(str(uuid_utils.uuid7()))


def find(engine: Engine, job_id: uuid.UUID) -> Job | None:
    """The job of this id, if there is one."""
    with engine.connect() as connection:
        row = connection.execute(select(jobs).where(jobs.c.id == job_id)).one_or_none()
    return None if row is None else from_row(row)


def get(engine: Engine, job_id: uuid.UUID) -> Job:
    """The job of this id.

    Raises:
        NmsError: there is none.
    """
    job = find(engine, job_id)
    if job is None:
        raise NmsError(f"there is no job {job_id}", hint="`nms-workers jobs list` shows those there are")
    return job


def newest(engine: Engine, limit: int = 50, *, state: str | None = None) -> Sequence[Job]:
    """The newest jobs first, of one state if it is named."""
    query = select(jobs).order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(limit)
    if state is not None:
        query = query.where(jobs.c.state == state)
    with engine.connect() as connection:
        return [from_row(row) for row in connection.execute(query)]


def of_plan(engine: Engine, plan: uuid.UUID) -> Sequence[Job]:
    """The jobs of a plan: its steps, then the undoing of steps."""
    query = select(jobs).where(jobs.c.plan == plan).order_by(jobs.c.undoes.is_not(None), jobs.c.id)
    with engine.connect() as connection:
        return [from_row(row) for row in connection.execute(query)]


def caused_by(engine: Engine, job_id: uuid.UUID) -> Sequence[Job]:
    """The follow-ups of a job, the first one first."""
    query = select(jobs).where(jobs.c.caused_by == job_id).order_by(jobs.c.id)
    with engine.connect() as connection:
        return [from_row(row) for row in connection.execute(query)]
