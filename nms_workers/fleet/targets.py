"""From settings to the fleet: rows of `targets` and `schedules`, then the inventory every worker reads.

Only what changed is touched: a target keeps its id, its phase and its clients while its own settings stay the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, select, text
from sqlalchemy.dialects.postgresql import insert

from nms_workers.fleet.inventory import Inventory, Target
from nms_workers.fleet.slots import phase
from nms_workers.service import services
from nms_workers.settings import Settings, TargetConfig
from nms_workers.store.schema import targets

_OWN = ("source", "state", "settings", "options", "worker", "updated_at")
_INSERT = insert(targets)
_UPSERT = _INSERT.on_conflict_do_update(
    index_elements=["service", "name"], set_={column: _INSERT.excluded[column] for column in _OWN}
)

_SET_GONE = text("UPDATE targets SET state = 'gone', updated_at = :now WHERE id = ANY(CAST(:ids AS int[]))")

_DROP_OTHERS = text("""
    DELETE FROM schedules s WHERE NOT EXISTS (
        SELECT 1 FROM unnest(CAST(:ids AS int[]), CAST(:polls AS text[])) AS w(target_id, poll)
        WHERE (w.target_id, w.poll) = (s.target_id, s.poll))
""")

# A schedule whose interval changed is audited from now on: under the new interval it had other slots.
_SET_SCHEDULES = text("""
    INSERT INTO schedules AS old (target_id, poll, every_ms, phase_ms, audited_until)
    SELECT *, CAST(:now AS timestamptz)
    FROM unnest(CAST(:ids AS int[]), CAST(:polls AS text[]), CAST(:every AS int[]), CAST(:phases AS int[]))
    ON CONFLICT (target_id, poll) DO UPDATE
    SET every_ms = excluded.every_ms, phase_ms = excluded.phase_ms, audited_until = excluded.audited_until
    WHERE old.every_ms <> excluded.every_ms
""")


@dataclass
class Synced:
    """What a sync changed, as `service/name`."""

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [f"{what}: {', '.join(names[:_NAMED])}{_more(names)}" for what, names in vars(self).items() if names]
        return "; ".join(parts) or "no target changed"


_NAMED = 20


def _more(names: list[str]) -> str:
    return f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""


def sync(engine: Engine, inventory: Inventory, settings: Settings, now: datetime) -> Synced:
    """Make the database and the inventory agree with the settings.

    Targets of the file that are not in it any more become `gone`; their history stays. Targets of other sources
    (discovery, import) are left as they are.

    Raises:
        sqlalchemy.exc.SQLAlchemyError, redis.RedisError: a store is away; a later sync does the rest.
    """
    with engine.begin() as connection:
        result = _sync_rows(connection, settings, now)
        active = [_target(row, settings) for row in _active(connection)]
        _sync_schedules(connection, active, now)
    inventory.publish(active)
    return result


def _sync_rows(connection: Connection, settings: Settings, now: datetime) -> Synced:
    result = Synced()
    rows = connection.execute(select(targets).where(targets.c.source == "file").with_for_update())
    known = {(row.service, row.name): row for row in rows}
    wanted = []
    for target in settings.targets:
        row = known.pop((target.service, target.name), None)
        values = _values(target)
        if row is not None and all(getattr(row, column) == value for column, value in values.items()):
            continue
        (result.added if row is None or row.state == "gone" else result.changed).append(
            f"{target.service}/{target.name}"
        )
        wanted.append({"service": target.service, "name": target.name, "updated_at": now, **values})
    if wanted:
        connection.execute(_UPSERT, wanted)
    left = [row for row in known.values() if row.state != "gone"]
    if left:
        result.gone.extend(f"{row.service}/{row.name}" for row in left)
        connection.execute(_SET_GONE, {"ids": [row.id for row in left], "now": now})
    return result


def _values(target: TargetConfig) -> dict[str, Any]:
    options: dict[str, Any] = {"every": target.every, "skip": target.skip, "max_series": target.max_series}
    if target.health is not None:
        options["health"] = target.health.model_dump(mode="json", exclude_unset=True)
    return {
        "source": "file",
        "state": "paused" if target.paused else "active",
        "settings": target.validated().model_dump(mode="json", exclude_unset=True),
        "options": options,
        "worker": target.worker,
    }


def _active(connection: Connection) -> list[Row[Any]]:
    """Active targets of services this installation has."""
    rows = connection.execute(select(targets).where(targets.c.state == "active").order_by(targets.c.id))
    return [row for row in rows if row.service in services()]


def _target(row: Row[Any], settings: Settings) -> Target:
    options: Mapping[str, Any] = row.options
    own, skip = options.get("every", {}), options.get("skip", ())
    polls = services()[row.service].polls()
    every = {
        name: float(own.get(name) or settings.every.get(f"{row.service}.{name}") or poll.every)
        for name, poll in polls.items()
        if name not in skip
    }
    return Target(
        id=row.id,
        service=row.service,
        name=row.name,
        settings=row.settings,
        every=every,
        max_series=options.get("max_series", 10_000),
        worker=row.worker,
    )


def _sync_schedules(connection: Connection, active: list[Target], now: datetime) -> None:
    wanted = [
        (target.id, poll, every_ms := int(every * 1000), phase(target.service, target.name, poll, every_ms))
        for target in active
        for poll, every in target.every.items()
    ]
    columns: list[list[Any]] = [list(column) for column in zip(*wanted, strict=True)] or [[], [], [], []]
    ids, polls, intervals, phases = columns
    connection.execute(_DROP_OTHERS, {"ids": ids, "polls": polls})
    connection.execute(_SET_SCHEDULES, {"ids": ids, "polls": polls, "every": intervals, "phases": phases, "now": now})
