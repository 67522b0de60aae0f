"""The health of every target: checks, states with patience, and containers that are restarted when they are ill.

It runs as a task of the control workers that beat sends every `health.every`, and is no process of its own: beat has a
leader already, so nobody else has to elect one; whichever worker takes the task finds all it must know in the table
`health`, so a round that dies with its worker is followed by the next; and two rounds at once cannot count a check
twice, since a row is only changed by who saw it as it is.

A restart is a job like every other: guards look at it, the audit holds why, and the docker service acts on labelled
containers only. Here it is only decided (`fleet/repair.py`).
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import redis
from pydantic import ValidationError
from sqlalchemy import Connection, Engine, Row, select, text
from sqlalchemy.dialects.postgresql import insert

from nms_workers.errors import NmsError, Outcome
from nms_workers.fleet.clients import Clients
from nms_workers.fleet.harvest import Harvest
from nms_workers.fleet.health_checks import EngineHealth, Seen, Subject, check_all
from nms_workers.fleet.inventory import Inventory
from nms_workers.fleet.repair import Decision, Patient, Ward, since
from nms_workers.records import Event, Sample, Severity
from nms_workers.services.docker.client import DockerClient
from nms_workers.settings import Checks, Health, Settings, picks
from nms_workers.store.schema import health, jobs, targets
from nms_workers.store.slot import SlotResult
from nms_workers.store.writer import Writer
from nms_workers.transport.deadline import deadline

log = logging.getLogger(__name__)

POLL = "fleet.health"  # what the ledger calls it; no poll of a service has a dot in its name
UNHEALTHY, GIVEN_UP = "target_unhealthy", "restart_given_up"  # kinds of events that last
METRIC = "target_healthy"

_WELL = ("ok", "partial", "unchanged", "auth", "refused")  # it answered, whatever it answered
_ILL = ("unreachable", "timeout", "parse")
_SHARE = 0.8  # of the interval that one round may take
_ENGINE_SECONDS = 5.0
_OVER = ("succeeded", "unchanged", "failed", "refused", "cancelled", "expired")
_LOCK = 7264418

# What polls found since the last look, by target: whether one went well, and what the newest one that did not says.
_POLLED = text("""
    SELECT r.target_id, bool_or(r.outcome = ANY(:well)) AS well,
           (array_agg(r.poll || ': ' || r.outcome || ': ' || r.detail ORDER BY r.finished DESC)
            FILTER (WHERE r.outcome = ANY(:ill)))[1] AS detail
    FROM poll_runs r
    JOIN schedules s USING (target_id, poll)
    LEFT JOIN health h USING (target_id)
    WHERE r.due > CAST(:now AS timestamptz) - interval '1 hour'
      AND r.finished > coalesce(h.checked_at, CAST(:now AS timestamptz) - make_interval(secs => :every))
      AND (r.outcome = ANY(:well) OR r.outcome = ANY(:ill))
    GROUP BY r.target_id
""")


@dataclass(frozen=True)
class Restart:
    """A container that is to be restarted: where it is, for which target, for the n-th time, and why."""

    engine: str
    container: str
    target: str
    attempt: int
    why: str


@dataclass(frozen=True)
class Asked:
    """The job that came of it; `refused`: why a guard does not let it run."""

    job: UUID
    refused: str = ""


Ask = Callable[[Connection, Restart], Asked]
"""Writes the job of a restart in a transaction. Raises NmsError where there can be none."""


@dataclass(frozen=True)
class Condition:
    """How a target is: its row in the table `health`, and what this round tells of it."""

    state: str
    since: datetime
    checked_at: datetime
    failures: int = 0
    successes: int = 0
    detail: str = ""
    restarts: tuple[datetime, ...] = ()
    given_up: bool = False
    held: str = ""
    job: UUID | None = None
    told: tuple[Event, ...] = ()

    @classmethod
    def of(cls, row: Row[Any] | None, now: datetime) -> "Condition":
        """The one that is kept; a new one where there is none."""
        if row is None or row.state is None:
            return cls("unknown", now, now)
        kept = {name: getattr(row, name) for name in cls.__dataclass_fields__ if name != "told"}
        return cls(**kept | {"restarts": tuple(row.restarts)})

    def after(self, seen: Seen, rules: Health, now: datetime) -> "Condition":
        """With what a check found. It takes so many in a row to change the state, one way or the other."""
        if seen.well is None:
            return replace(self, checked_at=now, detail=seen.detail or self.detail)
        if seen.well:
            one = replace(self, checked_at=now, failures=0, successes=self.successes + 1, detail="")
            well = one.state != "healthy" and one.successes >= rules.successes
            return replace(one, state="healthy", since=now, given_up=False, held="") if well else one
        one = replace(self, checked_at=now, failures=self.failures + 1, successes=0, detail=seen.detail)
        ill = one.state != "unhealthy" and one.failures >= rules.failures
        return replace(one, state="unhealthy", since=now) if ill else one

    def tell(self, kind: str, message: str, severity: Severity = "info") -> "Condition":
        """With one more event of this moment."""
        return replace(self, told=(*self.told, Event(kind, message[:2000], severity=severity)))


@dataclass(frozen=True)
class Round:
    """One look at all targets.

    Args:
        settings: those in force.
        worker: this process' name in the ledger.
        ask: has a container restarted.
    """

    engine: Engine
    inventory: Inventory
    clients: Clients
    settings: Settings
    writer: Writer
    worker: str
    ask: Ask

    @property
    def rules(self) -> Health:
        """What the settings say of health."""
        return self.settings.health

    def run(self) -> dict[str, int]:
        """Check, decide, keep, tell.

        Returns:
            how many targets are in each state.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: PostgreSQL is away; the next round does it.
        """
        now = datetime.now(UTC)
        with self.engine.connect() as connection:
            rows = {row.id: row for row in connection.execute(_known()) if row.target_state == "active"}
            polled = connection.execute(
                _POLLED, {"well": list(_WELL), "ill": list(_ILL), "now": now, "every": self.rules.every}
            ).all()
        found = {row.target_id: Seen(bool(row.well), (row.detail or "")[:1000]) for row in polled}
        subjects = [self._subject(row, found.get(row.id)) for row in rows.values()]
        seen = dict(
            check_all(
                subjects,
                self._engines(subjects),
                timeout=self.rules.timeout,
                limit=self.rules.every * _SHARE,
                commands=self.rules.commands,
            )
        )
        with self.engine.begin() as connection:
            kept = self._keep(connection, rows, seen, now)
        counts: dict[str, int] = {}
        for row, condition in kept:
            counts[condition.state] = counts.get(condition.state, 0) + 1
            self._tell(row, condition, now)
        return counts

    def _subject(self, row: Row[Any], polled: Seen | None) -> Subject:
        where = row.options.get("found", {})
        return Subject(
            id=row.id,
            service=row.service,
            name=row.name,
            settings=row.settings,
            checks=_checks(row, self.rules),
            polled=polled,
            elsewhere=row.worker is not None,
            engine=where.get("engine", ""),
            container=where.get("container", ""),
        )

    def _engines(self, subjects: Iterable[Subject]) -> dict[str, EngineHealth]:
        """How the containers are, of each engine that has some of them; one that cannot be asked is left out."""
        wanted = {one.engine for one in subjects if one.container and one.checks.docker}
        known: dict[str, EngineHealth] = {}
        if not wanted:
            return known
        try:
            active = [one for one in self.inventory.all().values() if one.service == "docker" and one.name in wanted]
        except redis.RedisError as exc:
            log.warning("the engines of containers are not known: Redis is away (%s)", type(exc).__name__)
            return known
        for target in active:
            try:
                client = self.clients.get(target)
                assert isinstance(client, DockerClient)  # noqa: S101 - the service `docker` has no others
                with deadline(_ENGINE_SECONDS):
                    known[target.name] = EngineHealth.of(client)
            except NmsError as exc:
                log.warning("%s: the health of its containers cannot be read: %s", target, exc)
        return known

    def _keep(
        self, connection: Connection, looked_at: Mapping[int, Row[Any]], seen: Mapping[int, Seen], now: datetime
    ) -> list[tuple[Row[Any], Condition]]:
        """Write what was seen, and have ill containers restarted. A row that another round changed is left out."""
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        rows = list(connection.execute(_known()))
        kept: dict[str, tuple[Row[Any], Condition]] = {}
        for row in rows:
            before = looked_at.get(row.id)
            if row.id in seen and row.target_state == "active" and before and row.checked_at == before.checked_at:
                kept[_name(row)] = row, Condition.of(row, now).after(seen[row.id], self.rules, now)
        over = _ended(connection, [condition.job for _, condition in kept.values() if condition.job])
        for name, (row, condition) in kept.items():
            kept[name] = row, _settled(condition, over)
        self._repair(connection, rows, kept, now)
        _write(connection, kept.values())
        return list(kept.values())

    def _repair(
        self,
        connection: Connection,
        rows: Sequence[Row[Any]],
        kept: dict[str, tuple[Row[Any], Condition]],
        now: datetime,
    ) -> None:
        rules = self.rules.repair
        active = [row for row in rows if row.target_state == "active"]
        conditions = {
            _name(row): kept[_name(row)][1] if _name(row) in kept else Condition.of(row, now) for row in active
        }
        patients = {_name(row): self._patient(row, conditions[_name(row)], now) for row in active}
        ward = Ward(patients, {_name(row) for row in rows if row.target_state == "gone"})
        sick = {name for name, one in conditions.items() if one.state == "unhealthy"}
        for name, decision in ward.decide(rules, now, sick).items():
            if name in kept:
                row, condition = kept[name]
                condition = self._do(connection, patients[name], condition, decision, now)
                if missing := ward.unknown(patients[name]):
                    condition = replace(condition, detail=f"{condition.detail} (it depends on {missing[0]}: no target)")
                kept[name] = row, condition

    def _patient(self, row: Row[Any], condition: Condition, now: datetime) -> Patient:
        where = row.options.get("found", {})
        facts = {"type": row.service, "name": row.name, "engine": where.get("engine", "")}
        return Patient(
            name=_name(row),
            unhealthy=condition.state == "unhealthy" and condition.failures >= self.rules.failures,
            engine=where.get("engine", ""),
            container=where.get("container", ""),
            allowed=bool(row.options.get("restart")) or picks(self.rules.repair.allow, **facts),
            depends_on=tuple(row.options.get("depends_on", ())),
            restarts=since(condition.restarts, self.rules.repair, now),
            given_up=condition.given_up,
            busy=condition.job is not None,
        )

    def _do(
        self, connection: Connection, patient: Patient, condition: Condition, decision: Decision, now: datetime
    ) -> Condition:
        """What was decided, and how that changes the condition."""
        rules = self.rules.repair
        what = f"the container {patient.container} of {patient.name}"
        if decision.given_up:
            why = f"{what} was restarted {rules.attempts} times in {rules.within:g} s and is not healthy: look at it"
            log.critical("%s", why)
            return replace(condition, given_up=True, held=why)
        if not decision.attempt:
            new = condition.held != decision.held
            told = condition.tell("restart_held", f"{what} is not restarted: {decision.held}") if new else condition
            return replace(told, held=decision.held)
        restart = Restart(patient.engine, patient.container, patient.name, decision.attempt, condition.detail)
        counted = replace(condition, failures=0, held="", restarts=(*patient.restarts, now))
        number = f"attempt {decision.attempt} of {rules.attempts}"
        try:
            with connection.begin_nested():
                asked = self.ask(connection, restart)
        except NmsError as exc:
            return counted.tell("restart_failed", f"{what} cannot be restarted, {number}: {exc}", "error")
        if asked.refused:
            return counted.tell("restart_refused", f"{what}, {number}: {asked.refused}", "error")
        log.warning("%s is restarted, %s, by job %s", what, number, asked.job)
        told = counted.tell("restart_requested", f"{what} is restarted, {number}, by job {asked.job}", "warning")
        return replace(told, job=asked.job)

    def _tell(self, row: Row[Any], condition: Condition, now: datetime) -> None:
        """The sample and the events of one target, as if a poll had read them."""
        harvest = Harvest(volatile=False, max_series=10)
        if condition.state != "unknown":
            harvest.add(Sample(METRIC, condition.state == "healthy"))
        for event in (*condition.told, *_lasting(row, condition)):
            harvest.add(event)
        blocks, layouts = harvest.blocks(now)
        result = SlotResult(
            target_id=row.id,
            service=row.service,
            target=row.name,
            poll=POLL,
            due=now,
            started=now,
            finished=datetime.now(UTC),
            outcome=Outcome.OK,
            worker=self.worker,
            blocks=tuple(blocks),
            events=tuple(harvest.events),
            enumerated=(UNHEALTHY, GIVEN_UP),
            complete=True,
        )
        self.writer.put(result, layouts)


def _name(row: Row[Any]) -> str:
    return f"{row.service}/{row.name}"


def _known() -> Any:
    """All targets that are active or gone, with their health if they were looked at."""
    kept = [column for column in health.c if column is not health.c.target_id]
    return (
        select(
            targets.c.id,
            targets.c.service,
            targets.c.name,
            targets.c.state.label("target_state"),
            targets.c.settings,
            targets.c.options,
            targets.c.worker,
            *kept,
        )
        .outerjoin(health, health.c.target_id == targets.c.id)
        .where(targets.c.state.in_(("active", "gone")))
        .order_by(targets.c.id)
    )


def _checks(row: Row[Any], rules: Health) -> Checks:
    """The target's own, else those of its kind, else how its polls go."""
    usual = rules.checks.get(row.service, Checks())
    try:
        return Checks.model_validate(row.options["health"]) if "health" in row.options else usual
    except ValidationError:  # written by another version
        log.warning("%s: its health checks are not understood, those of its kind are used", _name(row))
        return usual


def _ended(connection: Connection, wanted: Collection[UUID]) -> dict[UUID, Row[Any] | None]:
    """The restarts that are over, by id; None: the job is not there any more."""
    if not wanted:
        return {}
    found = {row.id: row for row in connection.execute(select(jobs).where(jobs.c.id.in_(wanted)))}
    return {one: found.get(one) for one in wanted if one not in found or found[one].state in _OVER}


def _settled(condition: Condition, over: Mapping[UUID, Row[Any] | None]) -> Condition:
    """Told how its restart ended, when it has. What failed before that says nothing about it."""
    if condition.job is None or condition.job not in over:
        return condition
    job, done = over[condition.job], replace(condition, job=None, failures=0)
    if job is not None and job.state in ("succeeded", "unchanged"):
        return done.tell("restart_done", f"its container was restarted by job {job.id}")
    why = "its job is gone" if job is None else f"job {job.id}: {job.state}: {job.error}"
    return done.tell("restart_failed", why, "error")


def _lasting(row: Row[Any], condition: Condition) -> list[Event]:
    """Told at every round; the store tells it once, and when it is over."""
    lasting = []
    if condition.state == "unhealthy":
        why = f"{_name(row)} is unhealthy: {condition.detail}"[:2000]
        lasting.append(Event(UNHEALTHY, why, severity="error", state="firing"))
    if condition.given_up:
        lasting.append(Event(GIVEN_UP, condition.held[:2000], severity="critical", state="firing"))
    return lasting


def _write(connection: Connection, kept: Iterable[tuple[Row[Any], Condition]]) -> None:
    columns = [column.name for column in health.c if column.name != "target_id"]
    values = [
        {"target_id": row.id}
        | {name: getattr(condition, name) for name in columns}
        | {"restarts": list(condition.restarts)}
        for row, condition in kept
    ]
    if values:
        statement = insert(health)
        excluded = {name: statement.excluded[name] for name in columns}
        connection.execute(statement.on_conflict_do_update(index_elements=["target_id"], set_=excluded), values)


def overview(engine: Engine, now: datetime | None = None) -> list[dict[str, Any]]:
    """How every active target is, as it was last seen: for people and programs."""
    day = (now or datetime.now(UTC)) - timedelta(days=1)
    with engine.connect() as connection:
        rows = [row for row in connection.execute(_known()) if row.target_state == "active"]
    return [
        {
            "service": row.service,
            "target": row.name,
            "state": row.state or "unknown",
            "since": row.since,
            "checked_at": row.checked_at,
            "failures": row.failures or 0,
            "restarts": sum(moment > day for moment in row.restarts or ()),
            "given_up": bool(row.given_up),
            "held": row.held or "",
            "detail": row.detail or "",
        }
        for row in rows
    ]
