"""What is looked at before a job may touch anything. `GUARDS` names every guard; `docs/guards.md` explains them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from functools import cached_property
from ipaddress import IPv6Network
from itertools import islice
from typing import Any

from sqlalchemy import Connection

from nms_workers.arguments import Changes, CutsOff
from nms_workers.errors import NmsError
from nms_workers.jobs.interfaces import here, needed
from nms_workers.jobs.marked import marked
from nms_workers.jobs.protected import hit, protected
from nms_workers.jobs.rates import wait
from nms_workers.jobs.reach import Carrier, Network, nat64, reach, written
from nms_workers.jobs.windows import is_open, next_opening
from nms_workers.jobs.wish import Wish
from nms_workers.service import Action
from nms_workers.settings import Guards, Settings, Window, matches

NAMED = 3  # protected addresses that one refusal names


def refusal(
    connection: Connection, settings: Settings, wish: Wish, declared: Action, arguments: Mapping[str, Any]
) -> str | None:
    """Why this wish must not be done; None: it may.

    Asked twice: when the wish is submitted, and by the worker right before it runs (`wish.job`), with that worker's
    own settings and that host's own addresses.

    Args:
        connection: in the transaction that writes the job, before it does, so that no two get the last of a limit.
        arguments: as the action takes them, typed or as JSON.

    Returns:
        one line for people.

    Raises:
        Refused: the arguments do not fit the action.
        sqlalchemy.exc.SQLAlchemyError: PostgreSQL is away.
    """
    case = _Case(connection, settings, wish, declared, declared.validate(arguments))
    for guard in GUARDS:
        if (guard.at_run or wish.job is None) and (guard.for_undo or wish.undoes is None):
            reason = guard.look(case)
            if reason is not None:
                return f"{case.action} is refused: {reason}"
    return None


@dataclass(frozen=True)
class _Case:
    """A wish and what guards need to judge it."""

    connection: Connection
    settings: Settings
    wish: Wish
    declared: Action
    arguments: Mapping[str, Any]

    @property
    def guards(self) -> Guards:
        return self.settings.guards

    @property
    def action(self) -> str:
        """As patterns name it."""
        return f"{self.wish.service}.{self.wish.action}"

    @cached_property
    def cut_off(self) -> tuple[Network, ...]:
        """The networks it would cut off."""
        return tuple(marked(self.declared.arguments, self.arguments, CutsOff))

    @cached_property
    def carriers(self) -> list[Carrier]:
        """IPv6 networks that carry IPv4 ones by the settings."""
        return [nat64(prefix) for prefix in self.guards.nat64]

    @cached_property
    def due(self) -> datetime:
        """When it is to run."""
        later = self.wish.after or 0.0 if self.wish.job is None else 0.0
        return datetime.now(UTC) + timedelta(seconds=later)


def _denied(case: _Case) -> str | None:
    for key, wrong in (("deny", True), ("allow", False)):
        if matches(getattr(case.guards, key), case.action, case.wish.target) is wrong:
            return f"the settings do not let it run (guards.{key})"
    return None


def _unconfirmed(case: _Case) -> str | None:
    if not case.declared.confirm or case.wish.arguments.get("confirm") == case.wish.target:
        return None
    return f"it destroys data: it needs the argument confirm={case.wish.target}"


def _outside_of_windows(case: _Case) -> str | None:
    mine = [one for one in case.guards.windows if matches(one.actions, case.action, case.wish.target)]
    closed = next((one for one in mine if one.rule == "never" and is_open(one, case.due)), None)
    if closed is not None:
        return f"no such action may run in this window ({_told(closed)})"
    wanted = [one for one in mine if one.rule == "only"]
    if not wanted or any(is_open(one, case.due) for one in wanted):
        return None
    opens = min((at for one in wanted if (at := next_opening(one, case.due))), default=None, key=datetime.timestamp)
    return "it may only run in a maintenance window, and " + (
        f"the next opens at {opens.isoformat(timespec='minutes')}" if opens else "none is left"
    )


def _told(window: Window) -> str:
    if window.since and window.until:
        return f"{window.since.isoformat()} to {window.until.isoformat()}"
    return f"cron {window.cron}, {window.zone}"


def _zoned(case: _Case) -> str | None:
    for network in case.cut_off:
        if isinstance(network, IPv6Network) and network.network_address.scope_id is not None:
            return "an address with a zone (%) cannot be cut off"
    return None


def _too_wide(case: _Case) -> str | None:
    widest = {4: case.guards.widest_ipv4, 6: case.guards.widest_ipv6}
    for network in case.cut_off:
        for one in reach(network, case.carriers):
            if one.prefixlen < widest[one.version]:
                carried = "" if one == network else f", which carries {one}"
                return f"{network}{carried} is wider than /{widest[one.version]} (guards.widest_ipv{one.version})"
    return None


def _protected(case: _Case) -> str | None:
    try:
        everything = list(protected(case.connection, case.settings)) if case.cut_off else []
    except NmsError as exc:  # what is protected cannot be told now: nothing is cut off on a guess
        return str(exc)
    for network in case.cut_off:
        touched = list(islice(hit(network, everything, case.carriers), NAMED + 1))
        if touched:
            more = "; and more" if len(touched) > NAMED else ""
            return f"{written(network)} would cut off {'; '.join(map(str, touched[:NAMED]))}{more}"
    return None


def _reached_through(case: _Case) -> str | None:
    names = set(marked(case.declared.arguments, case.arguments, Changes))
    if not names or not here(case.connection, case.wish):
        return None
    try:
        why = needed(case.settings)
    except NmsError as exc:  # as above
        return str(exc)
    for name in sorted(names & why.keys()):
        if not any(fnmatchcase(name, pattern) for pattern in case.guards.free_interfaces):
            return f"{name} leads to {why[name]}; name it in guards.free_interfaces if it may be changed"
    return None


def _too_often(case: _Case) -> str | None:
    wish = case.wish
    for limit in case.guards.limits:
        if not matches(limit.actions, case.action):
            continue
        seconds = wait(case.connection, limit, wish.service, wish.action, wish.requested_by)
        if seconds is not None:
            who = repr(wish.requested_by) if limit.per == "requester" else "this action"
            most = f"{who} may have {limit.jobs} in {limit.within:g} s (guards.limits)"
            return f"{most}; there is room again in {math.ceil(seconds)} s"
    return None


@dataclass(frozen=True)
class Guard:
    """One thing to look at.

    Args:
        look: gives the reason to refuse, or None.
        at_run: looked at again right before the job runs.
        for_undo: looked at also when the job takes another back: what was allowed to begin must be allowed to end.
    """

    look: Callable[[_Case], str | None]
    at_run: bool
    for_undo: bool


GUARDS = (
    Guard(_denied, at_run=True, for_undo=True),
    Guard(_unconfirmed, at_run=False, for_undo=False),
    Guard(_outside_of_windows, at_run=True, for_undo=False),
    Guard(_zoned, at_run=True, for_undo=True),
    Guard(_too_wide, at_run=True, for_undo=True),
    Guard(_protected, at_run=True, for_undo=True),
    Guard(_reached_through, at_run=True, for_undo=False),  # what is put back was there before
    Guard(_too_often, at_run=False, for_undo=False),  # last: it holds a lock until the job is written
)
