"""From a wish to a committed job: the row first, then the message. A row whose message got lost is sent again."""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from kombu.exceptions import OperationalError
from sqlalchemy import Engine, func, select, update
from sqlalchemy.dialects.postgresql import insert

from nms_workers.errors import NmsError, Refused
from nms_workers.jobs.job import Job, from_row, new_id
from nms_workers.service import Action, service
from nms_workers.store.schema import jobs, targets

MAX_ATTEMPTS = 3
UNHEARD = timedelta(seconds=15)  # a message that nobody took for so long is sent again: running twice is harmless
SWEPT_AT_ONCE = 500
LONGEST = {"requested_by": 200, "reason": 2_000, "idempotency_key": 200}  # characters

Publish = Callable[[Job], None]


@dataclass(frozen=True)
class Wish:
    """What somebody wants done. The same idempotency key is the same job."""

    service: str
    action: str
    target: str
    arguments: Mapping[str, object]
    requested_by: str
    reason: str = ""
    idempotency_key: str | None = None


def submit(engine: Engine, publish: Publish, wish: Wish) -> Job:
    """Commit a job and publish it.

    Returns:
        the job: queued, refused by a guard, or the earlier one of the same idempotency key.

    Raises:
        Refused: the arguments do not fit the action, or the key was used for another wish.
        ConfigError, NmsError: no such service, action or target.
    """
    job = record(engine, wish, new_id())
    if job.state == "queued":
        try:
            publish(job)
        except OperationalError:
            return job  # the broker is away; the sweep publishes it
    return job


def record(engine: Engine, wish: Wish, job_id: uuid.UUID) -> Job:
    """Commit the row of a wish, or find the one there is. Raises as `submit` does."""
    declared = action_of(wish.service, wish.action)
    _check_texts(wish)
    arguments, refusal = _guard(declared, wish)
    with engine.begin() as connection:
        target_id = connection.scalar(
            select(targets.c.id).where(
                targets.c.service == wish.service, targets.c.name == wish.target, targets.c.state == "active"
            )
        )
        if target_id is None:
            raise NmsError(
                f"there is no active {wish.service} target {wish.target!r}", hint="see `nms-workers targets`"
            )
        values: dict[str, Any] = {
            "id": job_id,
            "service": wish.service,
            "action": wish.action,
            "target_id": target_id,
            "target": wish.target,
            "arguments": arguments,
            "requested_by": wish.requested_by,
            "reason": wish.reason,
            "idempotency_key": wish.idempotency_key,
            "state": "refused" if refusal else "queued",
            "error": refusal,
            "finished_at": func.now() if refusal else None,
        }
        row = connection.execute(insert(jobs).values(values).on_conflict_do_nothing().returning(jobs)).one_or_none()
        if row is not None:
            return from_row(row)
        same = jobs.c.id == job_id
        if wish.idempotency_key is not None:
            same |= jobs.c.idempotency_key == wish.idempotency_key
        job = from_row(connection.execute(select(jobs).where(same)).one())
    wanted = (wish.service, wish.action, wish.target, arguments)
    if (job.service, job.action, job.target, job.arguments) != wanted:
        raise Refused(
            f"the idempotency key {wish.idempotency_key!r} names another job, {job.id}", hint="use a key of its own"
        )
    return job


def action_of(kind: str, name: str) -> Action:
    """The declaration of an action.

    Raises:
        ConfigError, NmsError: there is none; the message lists those there are.
    """
    actions = service(kind).actions()
    if name not in actions:
        raise NmsError(f"{kind} has no action {name!r}", hint="it has: " + (", ".join(actions) or "none"))
    return actions[name]


def _check_texts(wish: Wish) -> None:
    for name, longest in LONGEST.items():
        value = getattr(wish, name)
        if value is not None and (len(value) > longest or "\x00" in value):
            raise Refused(f"{name} must be text of at most {longest} characters, without NUL")


def _guard(declared: Action, wish: Wish) -> tuple[dict[str, Any], str | None]:
    """The arguments as JSON, and why the job is refused, if it is."""
    arguments = dict(wish.arguments)
    confirmed = arguments.pop("confirm", None) if declared.confirm else wish.target
    model = declared.arguments.model_validate(declared.validate(arguments))
    refusal = None
    if confirmed != wish.target:
        refusal = f"{wish.action} destroys data: it needs the argument confirm={wish.target}"
    if r"\u0000" in model.model_dump_json():
        raise Refused(f"{wish.action} cannot take these arguments: one holds the character NUL")
    return model.model_dump(mode="json"), refusal


def end_lease(engine: Engine, job_id: uuid.UUID, worker: str) -> None:
    """The process that ran this job died: the next sweep need not wait until its lease runs out."""
    with engine.begin() as connection:
        connection.execute(
            update(jobs)
            .where(jobs.c.id == job_id, jobs.c.state == "running", jobs.c.worker == worker)
            .values(leased_until=func.now() - timedelta(seconds=1))
        )


def sweep(engine: Engine, publish: Publish) -> int:
    """Publish again what nobody picked up and what a dead worker left, and fail what died too often.

    Returns:
        how many jobs were published, `SWEPT_AT_ONCE` at most; the next sweep goes on.

    Raises:
        kombu.exceptions.OperationalError: the broker is away; a later sweep publishes the rest.
    """
    with engine.begin() as connection:
        left = (jobs.c.state == "running") & (jobs.c.leased_until < func.now())
        connection.execute(
            update(jobs)
            .where(left, jobs.c.attempts >= MAX_ATTEMPTS)
            .values(
                state="failed",
                finished_at=func.now(),
                leased_until=None,
                error=f"its worker died or took too long, {MAX_ATTEMPTS} times",
            )
        )
        # a queue may just be long: each time a message is sent again it is given twice the time
        since = func.greatest(jobs.c.created_at, jobs.c.claimed_at)  # NULL is left out
        sent = func.coalesce(jobs.c.published_at, jobs.c.created_at)
        unheard = (jobs.c.state == "queued") & (sent < func.now() - func.greatest(UNHEARD, sent - since))
        due = select(jobs.c.id).where(left | unheard).order_by(jobs.c.created_at).limit(SWEPT_AT_ONCE)
        rows = connection.execute(
            update(jobs)
            .where(jobs.c.id.in_(due.with_for_update(skip_locked=True).scalar_subquery()))
            .values(state="queued", leased_until=None, published_at=func.now())
            .returning(jobs)
        ).all()
    for row in rows:
        publish(from_row(row))
    return len(rows)
