"""The audit of jobs: what happened to each, when, by whom and why. PostgreSQL refuses to change or delete a line."""

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, insert, select

from nms_workers.records import MAX_TEXT
from nms_workers.store.schema import job_events


@dataclass(frozen=True)
class JobEvent:
    """One line of the audit. `event`: submitted, claimed, retry, left, waiting, cancelled, a final state, ..."""

    ts: datetime
    event: str
    who: str
    why: str

    def as_json(self) -> dict[str, Any]:
        """The line with its time as text."""
        return {"ts": self.ts.isoformat(), "event": self.event, "who": self.who, "why": self.why}


def tell(connection: Connection, job_id: uuid.UUID, event: str, who: str, why: str = "") -> None:
    """Write a line inside the transaction that did what it tells."""
    told = why.replace("\x00", "\N{REPLACEMENT CHARACTER}")[:MAX_TEXT]
    connection.execute(insert(job_events).values(job_id=job_id, event=event, who=who, why=told))


def history(engine: Engine, job_id: uuid.UUID) -> list[JobEvent]:
    """All that happened to a job, in order."""
    query = select(job_events.c.ts, job_events.c.event, job_events.c.who, job_events.c.why)
    with engine.connect() as connection:
        rows = connection.execute(query.where(job_events.c.job_id == job_id).order_by(job_events.c.id))
        return [JobEvent(*row) for row in rows]
