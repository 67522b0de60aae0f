"""Reading an agent by gufo-snmp, whose codec is compiled: the way of every poll.

gufo-snmp does not tell why an answer holds no rows: the end of what the agent shows, `tooBig`, `genErr`. Where a walk
ends so, the one row after it is asked for by the exact way (`exact.py`), once for each table, and remembered.
"""

import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from gufo import snmp
from gufo.snmp._fast import GetIter
from gufo.snmp.sync import SnmpSession

from nms_workers.errors import AuthError, ParseError, Timeout, Unreachable
from nms_workers.services.snmp import exact
from nms_workers.services.snmp.oid import Value, arcs_of
from nms_workers.services.snmp.target import SnmpTarget
from nms_workers.transport.deadline import remaining

Row = tuple[str, Value]
T = TypeVar("T")

_GET_AT_ONCE = 60  # varbinds of one GET: with their values they fit into a datagram of 1,472 bytes
_RECEIVE_BUFFER = 1 << 18
_INTERRUPTED = "(os error 4)"  # a process that was stopped and goes on; gufo-snmp gives its errors no number
_AUTH_KEYS: dict[str, type[snmp.BaseAuthKey]] = {
    "md5": snmp.Md5Key,
    "sha1": snmp.Sha1Key,
    "sha224": snmp.Sha224Key,
    "sha256": snmp.Sha256Key,
    "sha384": snmp.Sha384Key,
    "sha512": snmp.Sha512Key,
}
_PRIV_KEYS: dict[str, type[snmp.BasePrivKey]] = {
    "des": snmp.DesKey,
    "aes128": snmp.Aes128Key,
    "aes192": snmp.Aes192Key,
    "aes256": snmp.Aes256Key,
}
_VERSIONS = {"1": snmp.SnmpVersion.v1, "2c": snmp.SnmpVersion.v2c, "3": snmp.SnmpVersion.v3}


@dataclass
class Learned:
    """What was learned of an agent, for as long as the worker lives.

    Args:
        repetitions: rows it can answer at once.
        engine_id: of version 3.
        ends: table to its last row, where that is the end of all that the agent shows.
        end: nothing comes after this, so nothing at all is there in tables beyond.
    """

    repetitions: int
    engine_id: bytes | None = None
    ends: dict[str, str] = field(default_factory=dict)
    end: tuple[int, ...] | None = None


class Budget:
    """The rows that one read may still have.

    Raises:
        ParseError: by `spend`, when it is more than `max_varbinds`.
    """

    def __init__(self, target: SnmpTarget) -> None:
        self._target, self._left = target, target.max_varbinds

    def spend(self, rows: int) -> None:
        """Take so many."""
        self._left -= rows
        if self._left < 0:
            what = f"{self._target.address} answers with more than {self._target.max_varbinds} rows"
            raise ParseError(what, hint="raise max_varbinds, or poll less of it")


class _CutShort(Exception):
    """The agent cannot answer with so many rows at once."""


class FastSession:
    """One read of one agent: not thread-safe, and short-lived.

    Args:
        learned: kept by the caller from read to read.

    Every method raises, beside what is written there:
        Timeout: no answer, after `retries`; to a wrong community agents say nothing either.
        Unreachable: no such name, no route, nothing listens at the port.
        AuthError: version 3 does not accept the user or a key.
        ParseError: the answer is no SNMP, or `max_varbinds` are read.
        ConfigError: a secret cannot be read.
    """

    def __init__(self, target: SnmpTarget, learned: Learned) -> None:
        self._target, self._learned = target, learned
        self._budget = Budget(target)
        self._open: SnmpSession | None = None

    def get_many(self, oids: Sequence[str]) -> dict[str, Value]:
        """The values of these instances; those that the agent does not have are left out."""
        found: dict[str, Value] = {}
        for at in range(0, len(oids), _GET_AT_ONCE):
            asked = list(oids[at : at + _GET_AT_ONCE])
            got = self._ask(partial(SnmpSession.get_many, oids=asked), self._target.retries + 1)
            found |= {oid: got[oid] for oid in asked if oid in got}
        self._budget.spend(len(oids))
        return found

    def walk(self, base: str) -> Iterator[list[Row]]:
        """Everything below an object, in the agent's order, answer by answer.

        Where an agent cannot answer with so many rows it is asked for half as many; where it is silent for all
        retries, for a quarter once more: a long answer may be lost in fragments.

        Raises:
            ParseError: the agent repeats itself or goes backwards: what came before it is good.
            Refused: the agent says that it cannot (`genErr`).
        """
        last, silent = "", False
        while True:
            try:
                for rows in self._rows(base, last):
                    self._budget.spend(len(rows))
                    last, silent = rows[-1][0], False
                    yield rows
            except _CutShort:
                self._learned.repetitions = max(1, self._learned.repetitions // 2)
            except Timeout:
                if silent or self._learned.repetitions == 1:
                    raise
                silent = True
                self._learned.repetitions = max(1, self._learned.repetitions // 4)
            else:
                return

    def _rows(self, base: str, last: str) -> Iterator[list[Row]]:
        """Walk from the beginning of `base`, and leave out what is not after `last`."""
        asked = self._learned.repetitions
        place = GetIter(base, asked)
        known = last  # rows up to here were had before: gufo-snmp begins each walk at its base
        at: tuple[int, ...] = ()
        full = False
        while (answer := self._bulk(place)) is not None:
            rows = [row for row in answer if row is not None]
            ended = len(rows) < len(answer)
            full |= len(rows) == asked
            if known and rows:
                after = arcs_of(known)
                rows = [row for row in rows if arcs_of(row[0]) > after]
                known = "" if rows else known
            elif rows:
                at = self._advances(at or arcs_of(last or "0"), rows)
            if rows:
                last = rows[-1][0]
                yield rows
            if ended:
                if full:
                    self._grow()
                return
        self._stopped(base, last, asked)

    def _advances(self, before: tuple[int, ...], rows: list[Row]) -> tuple[int, ...]:
        """Where an answer ends, if that is after where it begins, and that after the one before: such a walk ends."""
        first, last = arcs_of(rows[0][0]), arcs_of(rows[-1][0])
        if before >= first or (first >= last and len(rows) > 1):
            hint = "its SNMP agent is at fault"
            raise ParseError(f"{self._target.address} does not go forward in a walk at {rows[-1][0]}", hint=hint)
        return last

    def _bulk(self, place: GetIter) -> "list[Row | None] | None":
        """One answer of rows, with None at the end of the object; None: it held no rows."""

        def ask(session: SnmpSession) -> "list[Row | None] | None":
            try:
                if self._target.version == "1":
                    return [session._sock.get_next(place)]  # gufo's own iterators hide the answers
                return session._sock.get_bulk(place) or None
            except StopAsyncIteration:
                return None
            except snmp.SnmpDecodeError:  # gufo-snmp cuts off an answer that is longer than its buffer
                if self._learned.repetitions == 1:
                    raise
                raise _CutShort from None

        return self._ask(ask, self._target.retries + 1)

    def _stopped(self, base: str, last: str, asked: int) -> None:
        """An answer without rows: is it the end of what the agent shows, or could it not answer?"""
        at, end = arcs_of(last or base), self._learned.end
        if self._learned.ends.get(base) == last or (end is not None and at >= end):
            return
        following = exact.get_next(self._target, last or base)
        if following is None:
            self._learned.end = at
        if following is not None and f"{following}.".startswith(f"{base}."):
            if asked == 1:
                hint = "its SNMP agent is at fault"
                raise ParseError(f"{self._target.address} ends a walk at {last or base} and has {following}", hint=hint)
            raise _CutShort
        self._learned.ends[base] = last

    def _grow(self) -> None:
        more = self._learned.repetitions + self._learned.repetitions // 4 + 1
        self._learned.repetitions = min(more, self._target.max_repetitions)

    def _ask(self, call: Callable[[SnmpSession], T], attempts: int) -> T:
        for left in reversed(range(attempts)):
            try:
                return call(self._session())
            except (TimeoutError, BlockingIOError) as exc:
                if str(exc) == "connection refused":
                    hint = "is its SNMP agent running?"
                    raise Unreachable(f"nothing answers at {self._target.address}", hint=hint) from None
                if not left:
                    raise _no_answer(self._target, attempts) from None
            except snmp.SnmpAuthError as exc:
                hint = "check username, auth and priv protocols and keys"
                raise AuthError(f"{self._target.address} does not accept our user: {exc}", hint=hint) from None
            except snmp.SnmpError as exc:
                raise ParseError(f"{self._target.address} sent no SNMP: {exc}") from None
            except OSError as exc:
                if left and _INTERRUPTED in str(exc):
                    continue
                raise Unreachable(f"{self._target.address} cannot be reached: {exc.strerror or exc}") from None
        raise AssertionError("the last attempt returns or raises")

    def _session(self) -> SnmpSession:
        limit = remaining(self._target.timeout)  # raises when there is no time left
        if self._open is None:
            target = self._target
            session = SnmpSession(
                resolve(target),
                target.port,
                community=target.community_text(),
                engine_id=self._learned.engine_id,
                user=_user(target),
                version=_VERSIONS[target.version],
                timeout=limit,
                recv_buffer=_RECEIVE_BUFFER,
            )
            if target.version == "3":
                session.refresh()
                self._learned.engine_id = session.get_engine_id()
            self._open = session
        return self._open


def resolve(target: SnmpTarget) -> str:
    """The address of a target.

    Raises:
        Unreachable: no such name.
    """
    try:
        return str(socket.getaddrinfo(target.host, target.port, type=socket.SOCK_DGRAM)[0][4][0])
    except OSError as exc:
        raise Unreachable(f"no such name: {target.host}: {exc.strerror}", hint="check the host of the target") from None


def _no_answer(target: SnmpTarget, attempts: int) -> Timeout:
    hint = "agents are silent to a wrong community and to an address that may not ask, too"
    return Timeout(f"no answer from {target.address}, {attempts} times {target.timeout:g} s", hint=hint)


def _user(target: SnmpTarget) -> snmp.User | None:
    if target.username is None:
        return None
    auth = priv = None
    if target.auth_protocol and target.auth_key:
        auth = _AUTH_KEYS[target.auth_protocol](target.auth_key.reveal().encode())
    if target.priv_protocol and target.priv_key:
        priv = _PRIV_KEYS[target.priv_protocol](target.priv_key.reveal().encode())
    expansion = snmp.KeyExpansion.Cisco if target.key_expansion == "cisco" else snmp.KeyExpansion.Blumenthal
    return snmp.User(target.username, auth_key=auth, priv_key=priv, key_expansion=expansion)
