"""Which service answers at a port, confirmed by asking it who it is, without credentials."""

import re
import socket
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import redis
from gufo import snmp
from gufo.snmp.sync import SnmpSession
from psycopg import pq
from psycopg.conninfo import make_conninfo
from pydantic import ValidationError
from redis.backoff import NoBackoff
from redis.retry import Retry

from nms_workers.change import Proposal
from nms_workers.errors import AuthError, TargetError
from nms_workers.service import service
from nms_workers.transport.deadline import deadline, remaining
from nms_workers.transport.http import HttpClient
from nms_workers.transport.http_settings import HttpSettings, HttpTimeouts
from nms_workers.transport.response import Response
from nms_workers.transport.retry import RetrySettings
from nms_workers.transport.sweep import Pace, answers
from nms_workers.transport.tls import TlsSettings

_BODY = 256 * 1024  # bytes of an answer
_EVERY_STATUS = range(300, 600)
_WITHIN = 8  # so many time limits of one exchange are the limit of all that one port is asked


@dataclass(frozen=True)
class Identity:
    """What answers at a port.

    Args:
        kind: of service; empty: it answers, and does not say what it is.
        proof: what it said.
        login: it wants to know who we are before it says more.
        settings: of a target, as far as they are known.
    """

    host: str
    port: int
    kind: str
    proof: str
    version: str = ""
    login: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    def proposal(self, more: Mapping[str, Any]) -> Proposal:
        """The target that it would be.

        Args:
            more: settings of its kind, over those that are known.
        """
        usual = self.port == service(self.kind).port
        about = {"version": self.version, "proof": self.proof, "port": self.port, "login": self.login}
        return Proposal(
            name=f"{self.kind}-{self.host.replace(':', '-')}" + ("" if usual else f"-{self.port}"),
            settings={**self.settings, **more},
            addresses=(self.host,),
            about=about,
        )


def needs(one: Proposal, kind: str) -> str:
    """What its settings lack to be a target, in one line; empty: nothing."""
    try:
        service(kind).Target.model_validate(one.settings)
    except ValidationError as exc:
        faults = exc.errors(include_input=False)
        return "; ".join(
            f"{'.'.join(map(str, e['loc']))} {e['msg'].removeprefix('Value error, ')}".strip() for e in faults
        )
    return ""


class _Ask(msgspec.Struct, forbid_unknown_fields=True):
    path: str
    status: int | None = None
    header: str = ""
    pointer: str | None = None
    matches: str = ""
    body: str = ""
    version: str = ""
    base: str = ""
    settings: dict[str, Any] = {}
    login: bool = False


class _Kind(msgspec.Struct, forbid_unknown_fields=True):
    ports: tuple[int, ...]
    asks: tuple[_Ask, ...]


@cache
def _table() -> dict[str, _Kind]:
    text = Path(__file__).with_name("identities.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), dict[str, _Kind])


def well_known() -> dict[int, tuple[str, ...]]:
    """The kinds that usually are at each port."""
    found: dict[int, tuple[str, ...]] = {}
    usual = {kind: one.ports for kind, one in _table().items()} | {kind: (port,) for kind, (port, _) in _OTHERS.items()}
    for kind, ports in usual.items():
        for port in ports:
            found[port] = (*found.get(port, ()), kind)
    return found


def kinds() -> tuple[str, ...]:
    """The kinds that can be told."""
    return (*_table(), *_OTHERS)


def sweep(
    hosts: Iterable[str],
    ports: Mapping[int, Sequence[str]],
    *,
    rate: float,
    timeout: float,
    progress: Callable[[int, int], None] = lambda asked, found: None,
) -> list[Identity]:
    """Ask each host at each port for the kinds that may be there.

    Args:
        rate: ports a second, over all hosts.
        timeout: seconds of one exchange.
        progress: is told how many ports were asked, and how many answered.
    """
    pace = Pace(rate)
    places = [(host, port, of) for host in hosts for port, of in ports.items()]

    def ask(place: tuple[str, int, Sequence[str]]) -> Identity | None:
        pace()
        return identify(*place, timeout)

    found: list[Identity] = []
    for asked, one in enumerate(answers(places, ask), start=1):
        found += [one] if one else []
        progress(asked, len(found))
    order = {(host, port): number for number, (host, port, _) in enumerate(places)}
    return sorted(found, key=lambda one: order[one.host, one.port])


def identify(host: str, port: int, of: Sequence[str], timeout: float) -> Identity | None:
    """What answers at this port; None when nothing does.

    Args:
        of: the kinds that may be there, in the order they are asked for.
        timeout: seconds of one exchange.
    """
    with deadline(_WITHIN * timeout):
        over_udp = "snmp" in of and _snmp(host, port, timeout)
        if over_udp:
            return over_udp
        if not _open(host, port, timeout):
            return None
        for kind in of:
            if kind in _OTHERS and (told := _OTHERS[kind][1](host, port, timeout)):
                return told
        return _over_http(host, port, [kind for kind in of if kind in _table()], timeout)


def _open(host: str, port: int, timeout: float) -> bool:
    try:
        with socket.create_connection((host, port), remaining(timeout)):
            return True
    except OSError:
        return False


def _over_http(host: str, port: int, of: Sequence[str], timeout: float) -> Identity:
    said = "it does not say what it is"
    for scheme in ("http", "https"):
        base = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        with _client(base, timeout) as client:
            said_now = _Said(client)
            for kind in of:
                for ask in _table()[kind].asks:
                    answer = said_now(ask.path)
                    if answer is not None and (match := _proof(ask, answer)) is not None:
                        settings = {"url": base + ask.base, **ask.settings}
                        version = match.groupdict().get("version") or _at(answer, ask.version) or ""
                        return Identity(host, port, kind, _told(ask, match), version[:100], ask.login, settings)
            said = said_now.last or said
    return Identity(host, port, "", said)


class _Said:
    """What a server says to each path, asked once. One that does not speak HTTP is asked no more."""

    def __init__(self, client: HttpClient) -> None:
        self._client, self._answers = client, dict[str, Response | None]()
        self._deaf = False
        self.last = ""

    def __call__(self, path: str) -> Response | None:
        if path not in self._answers and not self._deaf:
            self._answers[path] = self._ask(path)
        return self._answers.get(path)

    def _ask(self, path: str) -> Response | None:
        try:
            answer = self._client.get(path, expect=_EVERY_STATUS)
        except AuthError as exc:
            self.last = f"it wants a login: {exc.message}"[:200]
            return None
        except TargetError:
            self._deaf = True
            return None
        wants = answer.headers.get("WWW-Authenticate", "")
        self.last = f"HTTP {answer.status}" + (f", it wants a login: {wants[:100]}" if wants else "")
        return answer


def _client(base: str, timeout: float) -> HttpClient:
    """Asks once. The certificate says nothing here: no secret is sent, and nothing is believed but what is public."""
    return HttpClient(
        HttpSettings(
            url=base,
            timeout=HttpTimeouts(connect=timeout, read=timeout, total=timeout),
            tls=TlsSettings(verify=False),
            max_body=_BODY,
            retry=RetrySettings(attempts=1),
        )
    )


def _proof(ask: _Ask, answer: Response) -> re.Match[str] | None:
    if ask.status not in (None, answer.status):
        return None
    if ask.body:
        return re.match(ask.body, answer.text)
    text = answer.headers.get(ask.header) if ask.header else _at(answer, ask.pointer or "")
    return None if text is None else re.match(ask.matches, text)


def _told(ask: _Ask, match: re.Match[str]) -> str:
    what = f"header {ask.header}: " if ask.header else f"{ask.pointer} " if ask.pointer else "it begins with "
    shown = "".join(c if c.isprintable() else " " for c in (match[0] or match.string)[:60])
    return f"{ask.path} {what}{shown}".strip()


def _at(answer: Response, pointer: str) -> str | None:
    """What is at a JSON pointer, as text; None: it is not there, or nothing with a text."""
    if not pointer:
        return None
    try:
        value = msgspec.json.decode(answer.body)
    except msgspec.DecodeError:
        return None
    for part in pointer.split("/")[1:]:
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, str | int | float) else None


def _postgresql(host: str, port: int, timeout: float) -> Identity | None:
    """A server says that it is there before it asks who we are (libpq, PQping); a password is not needed for it."""
    wait = max(2, round(remaining(timeout)))  # libpq's shortest
    asked = make_conninfo(
        host=host,
        port=port,
        user="nms",
        dbname="postgres",
        connect_timeout=wait,
        sslmode="disable",
        gssencmode="disable",
    )
    said = pq.PGconn.ping(asked.encode())
    if said not in (pq.Ping.OK, pq.Ping.REJECT):
        return None
    told = "it takes connections" if said == pq.Ping.OK else "it is starting, or stopping"
    return Identity(host, port, "postgresql", f"PQping: {told}", login=True, settings={"host": host, "port": port})


def _redis(host: str, port: int, timeout: float) -> Identity | None:
    """PONG, or a refusal in Redis' own words (https://redis.io/docs/latest/commands/ping/)."""
    wait = remaining(timeout)
    client = redis.Redis(
        host=host,
        port=port,
        socket_timeout=wait,
        socket_connect_timeout=wait,
        retry=Retry(NoBackoff(), 0),
        client_name=None,
        protocol=2,
    )
    login = False
    try:
        if not client.ping():
            return None
        proof = "PING: PONG"
    except redis.AuthenticationError as exc:
        proof, login = f"PING: {exc}", True
    except (redis.RedisError, OSError, ValueError) as exc:
        if "DENIED Redis is running in protected mode" not in str(exc):
            return None
        proof, login = "PING: DENIED, it is running in protected mode", True
    finally:
        client.close()
    return Identity(host, port, "redis", proof[:100], login=login, settings={"host": host, "port": port})


def _snmp(host: str, port: int, timeout: float) -> Identity | None:
    """An agent of version 3 tells its engine id to everybody (RFC 3414, section 4). Others say nothing to strangers."""
    try:
        address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0][4][0]
        session = SnmpSession(str(address), port, user=snmp.User("nms"), timeout=remaining(timeout))
        session.refresh()
        engine_id = session.get_engine_id()
    except (OSError, snmp.SnmpError, TimeoutError):
        return None
    if len(engine_id) < 5:
        return None
    vendor = int.from_bytes(engine_id[:4], "big") & 0x7FFFFFFF
    proof = f"engine id {engine_id.hex()}, of enterprise {vendor}"
    settings = {"host": host, "port": port}
    return Identity(host, port, "snmp", proof, version="3", login=True, settings=settings)


_OTHERS: dict[str, tuple[int, Callable[[str, int, float], Identity | None]]] = {
    "postgresql": (5432, _postgresql),
    "redis": (6379, _redis),
    "snmp": (161, _snmp),
}
