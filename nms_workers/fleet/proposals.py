"""Targets that were found: rows that wait until a person, or a rule, approves of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError
from sqlalchemy import Connection, Row, func, select, update
from sqlalchemy.dialects.postgresql import insert

from nms_workers.change import Proposal
from nms_workers.errors import ConfigError, Refused
from nms_workers.service import service
from nms_workers.store.schema import targets

_PORTS = {"http": 80, "https": 443}


@dataclass
class Proposed:
    """What became of proposals: names of the new targets, and how many are targets already."""

    waiting: list[str] = field(default_factory=list)
    active: list[str] = field(default_factory=list)
    known: int = 0

    def __str__(self) -> str:
        parts = [f"{what}: {', '.join(names[:20])}" for what, names in vars(self).items() if what != "known" and names]
        return "; ".join([*parts, f"known already: {self.known}"])


def propose(connection: Connection, kind: str, source: str, proposals: Sequence[Proposal]) -> Proposed:
    """Enter those that are no target yet, in the caller's transaction.

    A device is known by an address, by its identity, or by its own name where a target's host is that. One that was
    refused, which is in the state `gone`, is known too, and not proposed again.

    Args:
        source: who found them, `discovery`.

    Raises:
        ConfigError: there is no such service, or its settings are not those of a proposal.
    """
    result = Proposed()
    rows = connection.execute(select(targets).where(targets.c.service == kind).with_for_update())
    names: set[str] = set()
    known: set[object] = set()
    for row in rows:
        names.add(row.name)
        known |= _marks(row)
    for one in proposals:
        settings = _checked(kind, one)
        host, port = _place(kind, settings)
        marks: set[object] = {(address, port) for address in one.addresses}
        marks |= {(str(one.about.get("name", "")).lower(), port), *([one.identity] if one.identity else [])}
        if marks & known:
            result.known += 1
            continue
        name = one.name if one.name not in names else f"{one.name}-{host}"
        if name in names:
            result.known += 1
            continue
        connection.execute(
            insert(targets).values(
                service=kind,
                name=name,
                source=source,
                state="active" if one.approved else "proposed",
                settings=settings,
                options={"found": {**one.about, "addresses": list(one.addresses), "identity": one.identity}},
            )
        )
        names.add(name)
        known |= marks
        (result.active if one.approved else result.waiting).append(name)
    return result


def approve(connection: Connection, kind: str | None, names: Sequence[str], now: datetime) -> list[str]:
    """Make proposed targets active. Those that are already are left as they are.

    Returns:
        those that became active, as `service/name`.

    Raises:
        Refused: there is no such target, or it waits for nothing; nothing is approved then.
    """
    approved = []
    for name in names:
        query = select(targets).where(targets.c.name == name, targets.c.state.in_(("proposed", "active")))
        if kind is not None:
            query = query.where(targets.c.service == kind)
        rows = connection.execute(query.with_for_update()).all()
        if not rows:
            raise Refused(f"no target {name!r} waits for approval", hint="`nms-workers targets` lists them")
        if len(rows) > 1:
            raise Refused(f"{len(rows)} targets are named {name!r}", hint="name the service: --service")
        if rows[0].state == "proposed":
            _checked(rows[0].service, Proposal(name, rows[0].settings))
            this = targets.c.id == rows[0].id
            connection.execute(update(targets).where(this).values(state="active", updated_at=now))
            approved.append(f"{rows[0].service}/{name}")
    return approved


def waiting(connection: Connection) -> int:
    """How many targets wait for approval."""
    return connection.execute(select(func.count()).where(targets.c.state == "proposed")).scalar_one()


def _marks(row: Row[Any]) -> set[object]:
    """What a target is known by."""
    found = row.options.get("found", {})
    host, port = _place(row.service, row.settings)
    hosts = {host, *found.get("addresses", ())}
    return {(host, port) for host in hosts} | ({found["identity"]} if found.get("identity") else set())


def _place(kind: str, settings: Mapping[str, Any]) -> tuple[str, object]:
    """The host, in small letters, and the port that settings name."""
    parts = urlsplit(str(settings.get("url", "")))
    host = str(settings.get("host", "")) or parts.hostname or ""
    return host.lower(), settings.get("port") or parts.port or _PORTS.get(parts.scheme, service(kind).port)


def _checked(kind: str, one: Proposal) -> dict[str, Any]:
    """Its settings, as they are stored.

    Raises:
        ConfigError: they do not fit the service.
    """
    try:
        return service(kind).Target.model_validate(one.settings).model_dump(mode="json", exclude_unset=True)
    except ValidationError as exc:
        where = ", ".join(".".join(map(str, error["loc"])) for error in exc.errors(include_input=False))
        raise ConfigError(f"the settings of {one.name} do not fit {kind}: {where}") from None
