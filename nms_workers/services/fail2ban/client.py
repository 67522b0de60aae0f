"""The fail2ban client: reads and changes the jails of one server. Usable without the fleet.

client = Fail2banClient(Fail2banTarget(socket="/run/fail2ban/fail2ban.sock"))
print(client.get_banned("sshd"))
"""

import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from nms_workers.errors import ParseError, Refused, TargetError
from nms_workers.services.fail2ban import configuration
from nms_workers.services.fail2ban.conversation import Conversation, NoSuchJail
from nms_workers.services.fail2ban.results import Ban, Jail, JailSettings, JailStatus, Network, text_of
from nms_workers.services.fail2ban.target import JAIL_NAME, Fail2banTarget

J = TypeVar("J", str, JailStatus)
T = TypeVar("T")

_SETTINGS = JailSettings.__struct_fields__
_NAME = re.compile(JAIL_NAME)
_VERSION = re.compile(r"(\d{1,4})\.(\d{1,4})[\w.+-]{0,30}", re.ASCII)
_BAN = re.compile(r"(.*?) \t(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) \+ (-?\d{1,12}) = [\d :-]+\Z", re.ASCII | re.DOTALL)
_LONGEST_BAN = 1024  # characters of one line of the list of bans
_AT_ONCE = 500  # addresses in one command

# `set loglevel ...` and its like speak to the server, not to a jail.
_NOT_JAILS = frozenset(
    {"allowipv6", "dbfile", "dbmaxmatches", "dbpurgeage", "loglevel", "logtarget", "syslogsocket", "thread"}
)


class Fail2banClient:
    """One server. Every method connects anew, so it is safe to share between threads and there is nothing to close.

    Every method raises `Unreachable`, `AuthError`, `Timeout`, `ParseError` or `Refused`; those that name a jail
    `NoSuchJail`, a `Refused`.
    """

    def __init__(self, target: Fail2banTarget) -> None:
        self.target = target
        self._lock = threading.Lock()
        self._remembered: dict[str, Any] = {}
        self.failures: Counter[str] = Counter(connect=0, request=0)

    def close(self) -> None:
        """There is nothing to let go of: a connection ends with the method that opened it."""

    def remember(self, what: str, now: Any) -> Any:
        """What was remembered under this name before; None at first. Tells what changed between two reads."""
        with self._lock:
            before = self._remembered.get(what)
            self._remembered[what] = now
            return before

    @contextmanager
    def talk(self) -> Iterator[Conversation]:
        """A conversation with the server; what fails in it is counted in `failures`."""
        stage = "connect"
        try:
            with Conversation(self.target) as server:
                stage = "request"
                yield server
        except Refused:
            raise
        except TargetError:
            with self._lock:
                self.failures[stage] += 1
            raise

    def get_version(self) -> str:
        """The version of the server, `1.0.2`."""
        with self.talk() as server:
            return _version(server)

    def get_server(self) -> dict[str, str]:
        """Version, log level, log target and database of the server."""
        with self.talk() as server:
            found = {name: server.ask("get", name) for name in ("loglevel", "logtarget", "dbfile")}
            return {"version": _version(server)} | {name: str(value or "none") for name, value in found.items()}

    def get_jails_status(self) -> tuple[JailStatus, ...]:
        """The counters of every jail, by name."""
        with self.talk() as server:
            return tuple(_statuses(server))

    def get_jails(self) -> tuple[Jail, ...]:
        """All that the server tells of every jail, by name."""
        with self.talk() as server:
            return tuple(_while_there(server, _statuses(server), _described))

    def get_jail(self, jail: str) -> Jail:
        """All that the server tells of one jail."""
        with self._jail(jail) as server:
            return _described(server, _status(server, jail))

    def get_settings(self, jail: str) -> JailSettings:
        """Ban time, find time and retries of one jail."""
        with self._jail(jail) as server:
            return _settings(server, jail)

    def get_ignored(self, jail: str) -> tuple[str, ...]:
        """Addresses, networks and names that the filter of this jail never bans."""
        with self._jail(jail) as server:
            return _texts(server.ask("get", jail, "ignoreip"))

    def get_banned(self, jail: str | None = None) -> tuple[Ban, ...]:
        """Who is banned, by one jail or by all; the ban that ends first comes first in its jail."""
        if jail is not None:
            with self._jail(jail) as server:
                return self._bans(server, jail)
        with self.talk() as server:
            return tuple(chain.from_iterable(_while_there(server, _names(server), self._bans)))

    def is_running(self, jail: str) -> bool:
        """Whether the server has this jail."""
        with self.talk() as server:
            return _checked(jail) in _names(server)

    def is_banned(self, jail: str, network: Network) -> bool:
        """Whether exactly this address or network is banned."""
        with self._jail(jail) as server:
            return bool(server.ask("get", jail, "banned", text_of(network)))

    def ban(self, jail: str, network: Network) -> None:
        """Ban an address or network for the jail's ban time."""
        self._set(jail, "banip", text_of(network))

    def unban(self, jail: str, network: Network) -> None:
        """Lift a ban; one that is not there is no error."""
        self._set(jail, "unbanip", text_of(network))

    def unban_each(self, jail: str, addresses: Sequence[str]) -> None:
        """Lift these bans of a jail, as the server names them."""
        for start in range(0, len(addresses), _AT_ONCE):
            self._set(jail, "unbanip", *addresses[start : start + _AT_ONCE])

    def unban_everywhere(self) -> None:
        """Lift every ban of every jail."""
        with self.talk() as server:
            server.ask("unban", "--all", limit=self.target.change_timeout)

    def set_settings(self, jail: str, wanted: Mapping[str, int]) -> None:
        """Change settings of a running jail, by the names of `JailSettings`; its files stay as they are."""
        with self._jail(jail) as server:
            for name in _SETTINGS:
                if name in wanted:
                    server.ask("set", jail, name, str(wanted[name]), limit=self.target.change_timeout)

    def add_ignored(self, jail: str, network: Network) -> None:
        """Let the filter of this jail never ban this address or network."""
        self._set(jail, "addignoreip", text_of(network))

    def del_ignored(self, jail: str, network: Network) -> None:
        """Take an address or network from the list of those never banned."""
        self._set(jail, "delignoreip", text_of(network))

    def load(self, jail: str) -> None:
        """Start a jail, or load a running one anew, from the configuration files of the server.

        Raises:
            Refused: the configuration has no such jail, or is faulty; then nothing was changed.
        """
        stream = configuration.commands(self.target, _checked(jail))
        with self.talk() as server:
            server.ask("reload", jail, ["--if-exists"], stream, limit=self.target.change_timeout)

    def stop(self, jail: str) -> None:
        """Stop a jail: the server lifts its bans, and knows it no more until it is loaded again."""
        with self._jail(jail) as server:
            server.ask("stop", jail, limit=self.target.change_timeout)

    @contextmanager
    def _jail(self, jail: str) -> Iterator[Conversation]:
        """A conversation, once it is sure that this jail is there."""
        _checked(jail)
        with self.talk() as server:
            names = _names(server)
            if jail not in names:
                known = ", ".join(names[:20]) or "none"
                raise NoSuchJail(f"no jail {jail!r} runs", hint=f"those that do: {known}")
            yield server

    def _set(self, jail: str, *words: str) -> None:
        with self._jail(jail) as server:
            server.ask("set", jail, *words, limit=self.target.change_timeout)

    def _bans(self, server: Conversation, jail: str) -> tuple[Ban, ...]:
        lines = _texts(server.ask("get", jail, "banip", "--with-time"))
        now = datetime.now(UTC)
        return tuple(self._ban(jail, line, now) for line in lines)

    def _ban(self, jail: str, line: str, now: datetime) -> Ban:
        match = _BAN.match(line) if len(line) <= _LONGEST_BAN else None
        if match is None:
            raise ParseError(f"a ban of {jail} is told in a form we do not know: {line[:80]!r}")
        try:
            banned_at = self._moment(match[2], now)
            seconds = None if match[3].startswith("-") else int(match[3])
            ends_at = None if seconds is None else datetime.fromtimestamp(banned_at.timestamp() + seconds, UTC)
        except (ValueError, OverflowError, OSError) as exc:
            raise ParseError(f"a ban of {jail} has no time that can be: {exc}") from None
        return Ban(jail=jail, address=match[1], banned_at=banned_at, seconds=seconds, ends_at=ends_at)

    def _moment(self, text: str, now: datetime) -> datetime:
        """The moment of a local time. In the hour that a clock set back has twice: the later one that has been."""
        local = datetime.fromisoformat(text)
        zone = ZoneInfo(self.target.timezone) if self.target.timezone else None
        later, earlier = (local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (1, 0))
        return later if later <= now else earlier


def _checked(jail: str) -> str:
    if not _NAME.fullmatch(jail) or jail in _NOT_JAILS:
        raise Refused(
            f"{jail[:80]!r} is no name of a jail", hint="letters, digits, _ . and -, at most 64, no dash first"
        )
    return jail


def _version(server: Conversation) -> str:
    answer = server.ask("version")
    if not isinstance(answer, str) or not _VERSION.fullmatch(answer):
        raise ParseError("the server tells no version as fail2ban has it", hint="check the socket")
    return answer


def _release(version: str) -> tuple[int, int]:
    match = _VERSION.match(version)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _names(server: Conversation) -> list[str]:
    """The names of the jails, sorted."""
    text = _pairs(server.ask("status")).get("Jail list")
    if not isinstance(text, str):
        raise ParseError("the status of the server names no jails", hint="is it a fail2ban 0.11 or newer?")
    return [name for name in text.split(", ") if name]


def _statuses(server: Conversation) -> Iterator[JailStatus]:
    if _release(_version(server)) < (1, 1):
        yield from _while_there(server, _names(server), _status)
        return
    answer = server.ask("status", "--all", "short")  # one question for all came with 1.1
    if not isinstance(answer, list) or not answer or not isinstance(answer[-1], dict):
        raise ParseError("`status --all` is answered in a shape we do not know")
    for name, status in sorted(answer[-1].items(), key=str):
        yield _parsed(str(name), status)


def _while_there(server: Conversation, jails: Iterable[J], ask: Callable[[Conversation, J], T]) -> Iterator[T]:
    """What is told of each of these jails; one that was stopped since they were named is left out."""
    for jail in jails:
        try:
            yield ask(server, jail)
        except NoSuchJail:
            continue


def _described(server: Conversation, status: JailStatus) -> Jail:
    return Jail(
        status=status,
        settings=_settings(server, status.name),
        actions=_texts(server.ask("get", status.name, "actions")),
        ignored=_texts(server.ask("get", status.name, "ignoreip")),
    )


def _status(server: Conversation, jail: str) -> JailStatus:
    return _parsed(jail, server.ask("status", jail, "short"))


def _parsed(jail: str, answer: Any) -> JailStatus:
    parts = _pairs(answer)
    filtered, acted = _pairs(parts.get("Filter")), _pairs(parts.get("Actions"))
    return JailStatus(
        name=jail,
        failing=_number(filtered, "Currently failed"),
        failures=_number(filtered, "Total failed"),
        banned=_number(acted, "Currently banned"),
        bans=_number(acted, "Total banned"),
        sources=_texts(filtered.get("File list", filtered.get("Journal matches", []))),
    )


def _settings(server: Conversation, jail: str) -> JailSettings:
    found = {name: server.ask("get", jail, name) for name in _SETTINGS}
    return JailSettings(**{name: _number(found, name) for name in _SETTINGS})


def _pairs(answer: Any) -> dict[str, Any]:
    """A list of (name, value) as a mapping."""
    if not isinstance(answer, list) or not all(isinstance(one, tuple) and len(one) == 2 for one in answer):
        raise ParseError("a status has a shape we do not know", hint="is it a fail2ban 0.11 or newer?")
    return {name: value for name, value in answer if isinstance(name, str)}


def _number(of: Mapping[str, Any], name: str) -> int:
    value = of.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ParseError(f"{name!r} is no number in what fail2ban answers")
    return value


def _texts(answer: Any) -> tuple[str, ...]:
    if not isinstance(answer, list) or not all(isinstance(one, str) for one in answer):
        raise ParseError("a list of fail2ban holds something else than text")
    return tuple(answer)
