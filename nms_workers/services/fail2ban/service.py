"""Fail2ban: what is polled, and what may be changed. Every action looks first and verifies afterwards."""

import math
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from pydantic import AfterValidator, Field

from nms_workers.arguments import Address, AddressToCutOff
from nms_workers.change import Change, about_to_change
from nms_workers.errors import Refused
from nms_workers.records import Attributes, Entity, Event, Record, Sample
from nms_workers.service import Service, action, poll
from nms_workers.services.fail2ban.client import Fail2banClient
from nms_workers.services.fail2ban.conversation import ShuttingDown
from nms_workers.services.fail2ban.results import Ban, Jail, JailSettings, Network, network_of, text_of
from nms_workers.services.fail2ban.target import Fail2banTarget, JailName

_LONGEST = 1_000_000_000  # seconds; 31 years
_SAME_BAN = 1.0  # seconds: a restarted server rounds the times of the bans it brings back
_LISTED = 100  # of what a change names one by one

Seconds = Annotated[int, Field(ge=1, le=_LONGEST)]


def _no_zero(value: int) -> int:
    if value == 0:
        raise ValueError("a ban of 0 seconds is none; -1 bans for ever")
    return value


BanTime = Annotated[int, Field(ge=-1, le=_LONGEST), AfterValidator(_no_zero)]


class Fail2ban(Service):
    """Fail2ban: jails, bans and settings of one server, over its socket.

    Speaks to 0.11 and newer on the worker's own machine, without `fail2ban-client`. Times of bans come in the server's
    local time: set `timezone` where it is not the worker's.
    """

    kind = "fail2ban"
    Target = Fail2banTarget
    client = Fail2banClient

    @poll(every="30s", enumerates=("server",))
    def server(self, client: Fail2banClient) -> Iterator[Record]:
        """Whether the server answers, how fast, and its version."""
        start = time.perf_counter()
        try:
            about = client.get_server()
        except ShuttingDown:
            yield Sample("fail2ban_up", 0)
            return
        yield Sample("fail2ban_answer_seconds", time.perf_counter() - start)
        yield Sample("fail2ban_up", 1)
        yield Sample("fail2ban_server_info", 1, {"version": about["version"]})
        for stage, count in client.failures.items():
            yield Sample("fail2ban_client_errors_total", count, {"stage": stage})
        yield Entity("server", "fail2ban", {name: _shown(text) for name, text in about.items()})

    @poll(every="30s", enumerates=("jail",))
    def jails(self, client: Fail2banClient) -> Iterator[Record]:
        """Counters, settings, log files and actions of each jail."""
        jails = client.get_jails()
        yield Sample("fail2ban_jails", len(jails))
        for jail in jails:
            yield from _of_jail(jail)

    @poll(every="30s", enumerates=("ban",))
    def bans(self, client: Fail2banClient) -> Iterator[Record]:
        """Who is banned and for how much longer; each ban is an event that lasts as long as it does."""
        bans = client.get_banned()
        now = datetime.now(UTC)
        current = {(ban.jail, ban.address): ban for ban in bans}
        before: dict[tuple[str, str], Ban] = client.remember("bans", current) or {}
        for key, ban in current.items():
            yield Entity(
                "ban", f"{ban.jail}/{_shown(ban.address)}", _attributes(ban) | {"remaining": ban.remaining(now)}
            )
            old = before.get(key)
            if old is not None and not _same(old, ban):  # it ended, and came again between two reads
                yield _ended(old, now)
            message = f"{ban.jail} banned {_shown(ban.address)} {_duration(ban)}"
            yield _event("firing", message, ban, ban.banned_at)
        for key in before.keys() - current.keys():
            yield _ended(before[key], now)
        yield from _summary(bans, now)

    @action(undo="unban_ip", runs_at="edge", serialize_by="jail", looks_first=True)
    def ban_ip(
        self, client: Fail2banClient, jail: JailName, address: AddressToCutOff, seconds: Seconds | None = None
    ) -> Change:
        """Ban an address or network by a jail, for the jail's ban time, or for `seconds`.

        Fail2ban keeps one ban time a jail: a shorter ban is lifted by a job of its own, a longer one is refused.
        """
        bantime = client.get_settings(jail).bantime
        if seconds is not None and 0 <= bantime < seconds:
            hint = "use a jail that bans for so long, or set_jail"
            raise Refused(f"jail {jail} bans for {bantime} s, and fail2ban takes no longer time for one ban", hint=hint)
        lifted_after = None if seconds == bantime else seconds
        if client.is_banned(jail, address):
            banned = {"banned": True}
            message = f"{text_of(address)} is banned by {jail} already"
            return Change(False, message, banned, banned, undo_after=lifted_after)
        about_to_change({"banned": False})
        client.ban(jail, address)
        if not client.is_banned(jail, address):
            raise Refused(f"{jail} did not ban {text_of(address)}", hint="see fail2ban's log")
        after = {"banned": True, "seconds": seconds or (None if bantime < 0 else bantime)}
        message = f"{jail} banned {text_of(address)}"
        return Change(True, message, {"banned": False}, after, undo_after=lifted_after)

    @action(undo="ban_ip", runs_at="edge", serialize_by="jail", looks_first=True)
    def unban_ip(self, client: Fail2banClient, jail: JailName, address: Address) -> Change:
        """Lift the ban of exactly this address or network."""
        if not client.is_banned(jail, address):
            return Change(False, f"{text_of(address)} is not banned by {jail}", {"banned": False}, {"banned": False})
        about_to_change({"banned": True})
        client.unban(jail, address)
        if client.is_banned(jail, address):
            raise Refused(
                f"{jail} still bans {text_of(address)}", hint="was it banned again at once? see fail2ban's log"
            )
        return Change(True, f"{jail} lifted the ban of {text_of(address)}", {"banned": True}, {"banned": False})

    @action(
        runs_at="edge", confirm=True, serialize_by="jail", looks_first=True, idempotent=False
    )  # it would lift later bans as well
    def unban_all(self, client: Fail2banClient, jail: JailName | None = None) -> Change:
        """Lift every ban of a jail, or of all jails."""
        bans = client.get_banned(jail)
        if not bans:
            return Change(False, "nobody was banned", _counted(bans), _counted(bans))
        about_to_change(_counted(bans))
        if jail is None:
            client.unban_everywhere()
        else:
            client.unban_each(jail, [ban.address for ban in bans])
        known = {(ban.jail, ban.address, ban.banned_at) for ban in bans}
        after = client.get_banned(jail)
        if left := [ban for ban in after if (ban.jail, ban.address, ban.banned_at) in known]:
            raise Refused(f"{len(left)} of {len(bans)} are still banned", hint="see fail2ban's log")
        return Change(True, f"lifted {len(bans)} bans", _counted(bans), _counted(after))

    @action(undo="restore_jail", runs_at="edge", serialize_by="jail", looks_first=True)
    def set_jail(
        self,
        client: Fail2banClient,
        jail: JailName,
        bantime: BanTime | None = None,
        findtime: Seconds | None = None,
        maxretry: Annotated[int, Field(ge=1, le=100_000)] | None = None,
    ) -> Change:
        """Change a running jail's ban time (-1: for ever), find time or retries; until it is loaded anew.

        The ban time also becomes that of those who are banned now, unless the jail makes their bans longer each time.
        """
        given = {"bantime": bantime, "findtime": findtime, "maxretry": maxretry}
        wanted = {name: value for name, value in given.items() if value is not None}
        if not wanted:
            raise Refused("set_jail needs something to set", hint="give bantime, findtime or maxretry")
        return _set(client, jail, wanted)

    @action(runs_at="edge", serialize_by="jail", looks_first=True)
    def restore_jail(self, client: Fail2banClient, jail: JailName, before: dict[str, int]) -> Change:
        """Give a jail the settings back that it had before `set_jail`."""
        try:
            wanted = msgspec.convert(before, JailSettings)
        except msgspec.ValidationError as exc:
            raise Refused(f"that is no `before` of set_jail: {exc}") from None
        return _set(client, jail, msgspec.structs.asdict(wanted))

    @action(undo="del_ignore", runs_at="edge", serialize_by="jail", looks_first=True)
    def add_ignore(self, client: Fail2banClient, jail: JailName, address: Address) -> Change:
        """Let the filter of a jail never ban this address or network; a ban it has stays."""
        before = client.get_ignored(jail)
        if _named(address, before):
            return Change(False, f"{jail} ignores {text_of(address)} already", _ignored(before), _ignored(before))
        about_to_change(_ignored(before))
        client.add_ignored(jail, address)
        after = client.get_ignored(jail)
        if not _named(address, after):
            raise Refused(f"{jail} does not ignore {text_of(address)}", hint="see fail2ban's log")
        return Change(True, f"{jail} ignores {text_of(address)}", _ignored(before), _ignored(after))

    @action(undo="add_ignore", runs_at="edge", serialize_by="jail", looks_first=True)
    def del_ignore(self, client: Fail2banClient, jail: JailName, address: Address) -> Change:
        """Let the filter of a jail ban this address or network again."""
        before = client.get_ignored(jail)
        if not _named(address, before):
            return Change(False, f"{jail} does not ignore {text_of(address)}", _ignored(before), _ignored(before))
        about_to_change(_ignored(before))
        client.del_ignored(jail, address)
        after = client.get_ignored(jail)
        if _named(address, after):
            raise Refused(f"{jail} still ignores {text_of(address)}", hint="see fail2ban's log")
        return Change(True, f"{jail} does not ignore {text_of(address)} any more", _ignored(before), _ignored(after))

    @action(runs_at="edge", serialize_by="jail", looks_first=True)
    def reload_jail(self, client: Fail2banClient, jail: JailName) -> Change:
        """Load a running jail anew from its configuration files; its bans stay."""
        before = _described(client, jail)
        about_to_change(before)
        client.load(jail)
        after = _described(client, jail)
        if before == after:
            return Change(False, f"{jail} was loaded anew, and is as it was", before, after)
        changed = ", ".join(name for name in before if before[name] != after[name])
        return Change(True, f"{jail} was loaded anew; changed: {changed}", before, after)

    @action(undo="stop_jail", runs_at="edge", serialize_by="jail", looks_first=True)
    def start_jail(self, client: Fail2banClient, jail: JailName) -> Change:
        """Start a jail that was stopped, from its configuration files; bans that have not ended come back."""
        if client.is_running(jail):
            return Change(False, f"{jail} runs already", {"running": True}, {"running": True})
        about_to_change({"running": False})
        client.load(jail)
        return Change(True, f"{jail} was started", {"running": False}, {"running": True} | _described(client, jail))

    @action(undo="start_jail", runs_at="edge", confirm=True, serialize_by="jail", looks_first=True)
    def stop_jail(self, client: Fail2banClient, jail: JailName) -> Change:
        """Stop a jail: it looks for nobody any more, and its bans are lifted until it is started again."""
        if not client.is_running(jail):
            return Change(False, f"no jail {jail} runs", {"running": False}, {"running": False})
        before = {"running": True} | _described(client, jail) | _counted(client.get_banned(jail))
        about_to_change(before)
        client.stop(jail)
        if client.is_running(jail):
            raise Refused(f"{jail} still runs", hint="see fail2ban's log")
        return Change(True, f"{jail} was stopped", before, {"running": False})


def _of_jail(jail: Jail) -> Iterator[Record]:
    status, settings = jail.status, jail.settings
    values = {
        "failing_addresses": status.failing,
        "failures_total": status.failures,
        "banned_addresses": status.banned,
        "bans_total": status.bans,
        "ban_time_seconds": math.inf if settings.bantime < 0 else settings.bantime,
        "find_time_seconds": settings.findtime,
        "max_retries": settings.maxretry,
        "log_sources": len(status.sources),
        "ignored_networks": len(jail.ignored),
    }
    for name, value in values.items():
        yield Sample(f"fail2ban_jail_{name}", value, {"jail": status.name})
    lists = {"sources": status.sources, "actions": jail.actions, "ignored": jail.ignored}
    listed = {name: [_shown(text) for text in texts[:_LISTED]] for name, texts in lists.items()}
    yield Entity("jail", status.name, msgspec.structs.asdict(settings) | listed)


def _set(client: Fail2banClient, jail: str, wanted: dict[str, int]) -> Change:
    before = client.get_settings(jail)
    had = msgspec.structs.asdict(before)
    different = {name: value for name, value in wanted.items() if had[name] != value}
    if not different:
        return Change(False, f"{jail} was set so already", had, had)
    about_to_change(had)
    client.set_settings(jail, different)
    after = msgspec.structs.asdict(client.get_settings(jail))
    if after != had | wanted:
        raise Refused(f"{jail} did not take {different}", hint="see fail2ban's log")
    return Change(True, f"{jail}: " + ", ".join(f"{name} {value}" for name, value in different.items()), had, after)


def _described(client: Fail2banClient, jail: str) -> Attributes:
    """What loading a jail anew may change."""
    found = client.get_jail(jail)
    lists = {"sources": found.status.sources, "actions": found.actions, "ignored": found.ignored}
    return msgspec.structs.asdict(found.settings) | {name: sorted(texts) for name, texts in lists.items()}


def _counted(bans: Iterable[Ban]) -> Attributes:
    bans = list(bans)
    listed = [f"{ban.jail}/{_shown(ban.address)}" for ban in bans[:_LISTED]]
    return {"banned": len(bans), "first": listed}


def _ignored(texts: Iterable[str]) -> Attributes:
    return {"ignored": sorted(texts)}


def _named(network: Network, texts: Iterable[str]) -> bool:
    return any(network_of(text) == network for text in texts)


def _same(one: Ban, other: Ban) -> bool:
    return abs((one.banned_at - other.banned_at).total_seconds()) <= _SAME_BAN


def _ended(ban: Ban, now: datetime) -> Event:
    """The end of a ban: by time, and then its moment is known, or because somebody lifted it.

    The fleet tells it once, whichever process tells it first, and also when no process does that saw the ban.
    """
    expired = ban.ends_at is not None and ban.ends_at <= now
    how = "ended in time" if expired else "was lifted"
    return _event(
        "resolved", f"the ban of {_shown(ban.address)} by {ban.jail} {how}", ban, ban.ends_at if expired else None
    )


def _event(state: Literal["firing", "resolved"], message: str, ban: Ban, ts: datetime | None) -> Event:
    """Without the time in its fingerprint: a restarted server brings bans back a second earlier or later."""
    fingerprint = f"ban:{ban.jail}:{_shown(ban.address)}"
    return Event("ban", message, state=state, fingerprint=fingerprint, attributes=_attributes(ban), ts=ts)


def _attributes(ban: Ban) -> Attributes:
    ends_at = None if ban.ends_at is None else ban.ends_at.isoformat()
    return {
        "jail": ban.jail,
        "address": _shown(ban.address),
        "banned_at": ban.banned_at.isoformat(),
        "seconds": ban.seconds,
        "ends_at": ends_at,
    }


def _summary(bans: Iterable[Ban], now: datetime) -> Iterator[Sample]:
    ending: dict[str, list[float]] = {}
    for ban in bans:
        remaining = ban.remaining(now)
        ending.setdefault(ban.jail, []).append(math.inf if remaining is None else remaining)
    for jail, remainders in ending.items():
        yield Sample("fail2ban_jail_permanent_bans", remainders.count(math.inf), {"jail": jail})
        yield Sample("fail2ban_jail_next_unban_seconds", min(remainders), {"jail": jail})


def _duration(ban: Ban) -> str:
    return "for ever" if ban.seconds is None else f"for {ban.seconds} s"


def _shown(text: str) -> str:
    """The name of what is banned, fit for a line and a key: a filter may ban anything it finds in a log."""
    return text if text.isprintable() and 0 < len(text) <= 200 else ascii(text)[:200]
