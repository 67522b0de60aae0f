"""How many jobs there were lately, counted in the table of jobs: true for the whole fleet, and after any restart."""

from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, func, select, text

from nms_workers.service import services
from nms_workers.settings import Limit, matches
from nms_workers.store.schema import JOB_STATES, jobs

_LOCK = text("SELECT pg_advisory_xact_lock(hashtext('nms_workers.jobs.rates'))")
_COUNTED = [state for state in JOB_STATES if state != "refused"]


def wait(connection: Connection, limit: Limit, service: str, action: str, requested_by: str) -> float | None:
    """Seconds until one more job is inside this limit; None: it is already.

    Counted are the jobs submitted in the last `limit.within`, whatever became of them, but not those refused. Until
    the transaction of `connection` ends, nobody else can count: two submitters cannot both be the last.
    """
    connection.execute(_LOCK)
    within = timedelta(seconds=limit.within)
    free_in = func.extract("epoch", jobs.c.created_at + within - func.now())
    query = select(free_in).where(jobs.c.state.in_(_COUNTED), jobs.c.created_at > func.now() - within)
    if limit.per == "requester":
        query = query.where(jobs.c.requested_by == requested_by, *_only(limit))
    else:
        query = query.where(jobs.c.service == service, jobs.c.action == action)
    found = connection.scalar(query.order_by(jobs.c.created_at.desc()).offset(limit.jobs - 1).limit(1))
    return None if found is None else float(found)


def _only(limit: Limit) -> list[Any]:
    """A limit of some actions does not count the others."""
    if "*" in limit.actions:
        return []
    names = [
        f"{kind}.{name}"
        for kind, one in services().items()
        for name in one.actions()
        if matches(limit.actions, f"{kind}.{name}")
    ]
    return [(jobs.c.service + "." + jobs.c.action).in_(names)]
