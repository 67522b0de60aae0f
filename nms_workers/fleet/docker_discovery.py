"""Labelled containers become rows of `targets`, and go with their containers.

The engine's list of containers is the truth, and everything follows from it: an event only says that it is time to look
again. So nothing has to be remembered, and what came while nobody listened is seen at the next look.

A target that went is in the state `gone` and keeps its history; when its container is back it is what it was before.
Who approved of a container approved of its settings: when they are others, save where it is, it waits again.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from nms_workers.errors import ConfigError
from nms_workers.fleet.labels import Container, Found, claimed, found
from nms_workers.settings import DockerDiscovery, picks
from nms_workers.store.schema import targets

SOURCE = "docker"
_ADDRESS = ("host", "port", "url")
_NAMED = 20


@dataclass
class Reconciled:
    """What a look changed, as `service/name`; and what cannot be a target, by container, and why."""

    active: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    known: int = 0
    faults: dict[str, str] = field(default_factory=dict)

    @property
    def polled_otherwise(self) -> bool:
        """Whether the fleet must be told."""
        return bool(self.active or self.changed or self.gone)

    def __str__(self) -> str:
        lists = {"active": self.active, "waiting": self.waiting, "changed": self.changed, "gone": self.gone}
        parts = [f"{what}: {', '.join(names[:_NAMED])}" for what, names in lists.items() if names]
        return "; ".join([*parts, f"known already: {self.known}"])


def described(
    containers: Sequence[Container],
    rules: DockerDiscovery,
    engine_host: str,
    own: Collection[tuple[str, str]] = (),
) -> tuple[list[Found], dict[str, str]]:
    """The targets that these containers are; and of those that are none, by name, why.

    Two that claim one name: the older container, which comes last in the engine's list, has it.

    Args:
        own: kind and name of the targets of the settings. A container that claims one is that target already, and
            the settings say how it is spoken to.
    """
    kept: dict[tuple[str, str], Found] = {}
    faults: dict[str, str] = {}
    for container in reversed(containers):
        if claimed(container) in own:
            continue
        try:
            one = found(container, rules, engine_host)
        except ConfigError as exc:
            faults[container.name] = str(exc)
            continue
        if holder := kept.get((one.kind, one.name)):
            hint = "leave out nms.service.name, then it is called as its container"
            faults[one.container] = f"{one} is the container {holder.container} already ({hint})"
        elif len(kept) >= rules.max_targets:
            faults[one.container] = f"it is over discovery.docker.max_targets, {rules.max_targets}, and left out"
        else:
            kept[one.kind, one.name] = one
    return list(kept.values()), faults


def reconcile(
    connection: Connection, engine: str, wanted: Sequence[Found], rules: DockerDiscovery, now: datetime
) -> Reconciled:
    """Make the rows of `targets` that came from this engine agree with its containers, in the caller's transaction.

    Args:
        engine: the name of the docker target.
    """
    result = Reconciled()
    mine = (targets.c.source == SOURCE) & (targets.c.options["found"]["engine"].astext == engine)
    same_name = tuple_(targets.c.service, targets.c.name).in_([(one.kind, one.name) for one in wanted])
    query = select(targets).where(mine | same_name).order_by(targets.c.id).with_for_update()
    rows = {(row.service, row.name): row for row in connection.execute(query)}
    for one in wanted:
        row = rows.pop((one.kind, one.name), None)
        if row is not None and (why := _taken(row, engine)):
            result.faults[one.container] = f"{one} is {why}"
            continue
        approved = picks(rules.approve, type=one.kind, name=one.name, engine=engine)
        _enter(connection, result, row, _values(one, row, engine, approved=approved, now=now))
    for row in rows.values():
        if row.state != "gone":
            left = row.options | {"found": row.options["found"] | {"was": row.state}}
            values = {"state": "gone", "options": left, "updated_at": now}
            connection.execute(update(targets).where(targets.c.id == row.id).values(values))
            result.gone.append(f"{row.service}/{row.name}")
    return result


def _taken(row: Row[Any], engine: str) -> str:
    """Why a name cannot be had: somebody else's target is called so."""
    if row.source != SOURCE:
        return f"a target already, which came from: {row.source}"
    holder = row.options["found"]["engine"]
    return f"a container of the engine {holder} already" if holder != engine and row.state != "gone" else ""


def _values(one: Found, row: Row[Any] | None, engine: str, *, approved: bool, now: datetime) -> dict[str, Any]:
    options: dict[str, Any] = {
        "found": {
            "engine": engine,
            "container": one.container,
            "id": one.id,
            "image": one.image,
            "name": one.name,
            "addresses": [one.address],
        },
        "restart": one.restart,
        "depends_on": list(one.depends_on),
    }
    if one.checks is not None:
        options["health"] = one.checks
    return {
        "service": one.kind,
        "name": one.name,
        "source": SOURCE,
        "state": _state(one, row, engine, approved=approved),
        "settings": one.settings,
        "options": options,
        "updated_at": now,
    }


def _state(one: Found, row: Row[Any] | None, engine: str, *, approved: bool) -> str:
    if row is None:
        return "active" if approved else "proposed"
    before = row.options["found"].get("was", "proposed") if row.state == "gone" else row.state
    if before == "paused":
        return "paused"
    same = row.options["found"]["engine"] == engine and _without_address(row.settings) == _without_address(one.settings)
    return "active" if approved or (before == "active" and same) else "proposed"


def _without_address(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in _ADDRESS}


def _enter(connection: Connection, result: Reconciled, row: Row[Any] | None, values: dict[str, Any]) -> None:
    named = f"{values['service']}/{values['name']}"
    compared = ("source", "state", "settings", "options")
    if row is not None and all(getattr(row, column) == values[column] for column in compared):
        result.known += 1
        return
    if row is None:
        connection.execute(insert(targets).values(values))
    else:
        connection.execute(update(targets).where(targets.c.id == row.id).values(values))
    if row is not None and row.state == values["state"]:
        result.changed.append(named)
    elif values["state"] in ("active", "proposed"):
        (result.active if values["state"] == "active" else result.waiting).append(named)
