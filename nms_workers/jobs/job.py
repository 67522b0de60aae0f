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


@dataclass(frozen=True)
class Job:
    """One durable, audited run of an action. `state` is one of `store.schema.JOB_STATES`."""

    id: uuid.UUID
    service: str
    action: str
    target: str
    arguments: dict[str, Any]
    requested_by: str
    reason: str
    state: str
    attempts: int
    created_at: datetime
    claimed_at: datetime | None
    finished_at: datetime | None
    worker: str | None
    result: dict[str, Any] | None
    error: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None

    @property
    def done(self) -> bool:
        """Whether it reached the one state it ends in."""
        return self.state in FINAL

    @property
    def task(self) -> str:
        """The Celery task that runs it."""
        return f"nms.{self.service}.{self.action}"

    def as_json(self) -> dict[str, Any]:
        """The job with ids and times as text."""
        return {
            key: value.isoformat() if isinstance(value, datetime) else str(value) if key == "id" else value
            for key, value in asdict(self).items()
        }


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


def newest(engine: Engine, limit: int = 50) -> Sequence[Job]:
    """The newest jobs first."""
    with engine.connect() as connection:
        rows = connection.execute(select(jobs).order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(limit))
        return [from_row(row) for row in rows]
