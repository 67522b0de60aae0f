"""Speaking to an agent by pysnmp: slow and complete. What gufo-snmp lacks: SET, contexts, and why an agent refuses."""

import asyncio
import os
import threading
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, TypeAlias, cast

from cachetools import LRUCache

from nms_workers.errors import AuthError, ParseError, Refused, TargetError, Timeout
from nms_workers.services.snmp.oid import Value
from nms_workers.services.snmp.target import SnmpTarget
from nms_workers.transport.deadline import remaining

Answer: TypeAlias = tuple[Any, Any, Any, Any]  # error indication, error status, error index, rows
Kind = Literal["integer", "unsigned", "counter", "counter64", "text", "hex", "oid", "address", "timeticks"]

_START = 10.0  # seconds that pysnmp may take to make an engine, on a busy machine
_ENGINES = 64  # kept at once
_LONGEST = 700.0  # seconds that a request may take in one engine: 11 times 60 s, and some
AUTH = {
    "md5": "USM_AUTH_HMAC96_MD5",
    "sha1": "USM_AUTH_HMAC96_SHA",
    "sha224": "USM_AUTH_HMAC128_SHA224",
    "sha256": "USM_AUTH_HMAC192_SHA256",
    "sha384": "USM_AUTH_HMAC256_SHA384",
    "sha512": "USM_AUTH_HMAC384_SHA512",
}
PRIV = {
    ("des", "cisco"): "USM_PRIV_CBC56_DES",
    ("des", "blumenthal"): "USM_PRIV_CBC56_DES",
    ("aes128", "cisco"): "USM_PRIV_CFB128_AES",
    ("aes128", "blumenthal"): "USM_PRIV_CFB128_AES",
    ("aes192", "cisco"): "USM_PRIV_CFB192_AES",
    ("aes192", "blumenthal"): "USM_PRIV_CFB192_AES_BLUMENTHAL",
    ("aes256", "cisco"): "USM_PRIV_CFB256_AES",
    ("aes256", "blumenthal"): "USM_PRIV_CFB256_AES_BLUMENTHAL",
}
_TOO_BIG = 1  # error-status
_KINDS: dict[Kind, str] = {
    "integer": "Integer32",
    "unsigned": "Gauge32",
    "counter": "Counter32",
    "counter64": "Counter64",
    "text": "OctetString",
    "hex": "OctetString",
    "oid": "ObjectIdentifier",
    "address": "IpAddress",
    "timeticks": "TimeTicks",
}
# error-status of RFC 3416 section 3, in words
_STATUS = {
    "tooBig": "the answer would be too big",
    "noSuchName": "there is no such object, or it cannot be written",
    "badValue": "the value is not one it takes",
    "readOnly": "the object cannot be written",
    "genErr": "it failed (genErr)",
    "noAccess": "our community or user may not do that",
    "wrongType": "the value is of the wrong type",
    "wrongLength": "the value is of the wrong length",
    "wrongEncoding": "the value is encoded in the wrong way",
    "wrongValue": "the value is not one it takes",
    "noCreation": "the object cannot be created",
    "inconsistentValue": "the value does not go with its other values",
    "resourceUnavailable": "it has no resources left",
    "commitFailed": "it could not carry it out",
    "undoFailed": "it could not carry it out, nor take it back",
    "authorizationError": "our community or user may not do that",
    "notWritable": "the object cannot be written",
    "inconsistentName": "the object cannot be created now",
}


def get_next(target: SnmpTarget, oid: str) -> str | None:
    """The object after this one; None at the end of what the agent shows.

    Raises:
        Refused: the agent says that it cannot.
        Timeout, AuthError, ParseError: as in `get`.
    """
    answer = _ask(target, "next_cmd", {oid: None})
    if str(answer[1]) == "noSuchName" or int(answer[1] or 0) == 2:  # version 1 has no other word for the end
        return None
    rows = _checked(target, answer)
    if len(rows) != 1:
        hint = "its SNMP agent is at fault"
        raise ParseError(f"{target.address} answers {len(rows)} rows to a question for one at {oid}", hint=hint)
    name, value = rows[0]
    return None if value.__class__.__name__ == "EndOfMibView" else str(name)


def get(target: SnmpTarget, oids: list[str]) -> dict[str, Value]:
    """The values of these instances; those that the agent does not have are left out.

    Raises:
        Timeout: no answer, after `retries`.
        AuthError: version 3 does not accept the user or a key.
        Refused: the agent says no.
        ParseError: another failure, in pysnmp's words.
    """
    rows = _checked(target, _ask(target, "get_cmd", dict.fromkeys(oids)))
    return {str(name): plain(value) for name, value in rows if not value.__class__.__name__.startswith("NoSuch")}


def get_bulk(target: SnmpTarget, after: str, count: int) -> tuple[list[tuple[str, Value]], bool] | None:
    """Up to so many rows after this one, and whether the agent shows nothing after them. None: that answer is too big.

    Raises:
        Refused, Timeout, AuthError, ParseError: as in `get`.
    """
    answer = _ask(target, "bulk_cmd", {after: None}, 0, count)
    if int(answer[1] or 0) == _TOO_BIG:
        return None
    rows = _checked(target, answer)
    there = [(str(name), plain(value)) for name, value in rows if value.__class__.__name__ != "EndOfMibView"]
    return there, len(there) < len(rows)


def set_many(target: SnmpTarget, values: Mapping[str, tuple[Kind, int | str]]) -> None:
    """Set these instances, all of them or none (RFC 3416 section 4.2.5).

    Args:
        values: by object identifier; `hex` is an octet string written as hexadecimal digits.

    Raises:
        Refused: the agent says no, in words; or a value does not fit its kind.
        Timeout, AuthError, ParseError: as in `get`.
    """
    typed = {oid: _typed(oid, *value) for oid, value in values.items()}
    _checked(target, _ask(target, "set_cmd", typed))


def plain(value: Any) -> Value:
    """A value of pysnmp as `FastSession` gives it."""
    name = value.__class__.__name__
    if name in ("OctetString", "Opaque", "Bits"):
        return bytes(value)
    if name in ("ObjectIdentifier", "ObjectIdentity"):
        return str(value)
    if name == "IpAddress":
        return ".".join(map(str, bytes(value)))
    if name == "Null":
        return None
    return int(value)


def _typed(oid: str, kind: Kind, value: int | str) -> Any:
    from pysnmp.proto import rfc1902  # noqa: PLC0415 - slow to import, and rarely needed

    made = getattr(rfc1902, _KINDS[kind])
    try:
        return made(hexValue=value) if kind == "hex" else made(value)
    except Exception as exc:  # pyasn1 raises many kinds, all of which say that it does not fit
        raise Refused(f"{value!r:.80} is no {kind} for {oid}") from exc


def _ask(target: SnmpTarget, command: str, rows: Mapping[str, Any], *numbers: int) -> Answer:
    """What the agent answers to one request, as pysnmp gives it.

    Version 2c goes without an engine. An engine of pysnmp costs more than a hundred requests, so those of versions 1
    and 3 are kept, one for each user and key, and live in one thread of the process.
    """
    limit = remaining(2 * (target.retries + 1) * target.timeout + _START)
    try:
        if target.version == "2c":
            return asyncio.run(asyncio.wait_for(_without_engine(target, command, rows, *numbers), limit))
        asked = asyncio.run_coroutine_threadsafe(_with_engine(target, command, rows, *numbers), _loop())
        try:
            return asked.result(limit)
        finally:
            asked.cancel()
    except TimeoutError:
        raise Timeout(f"no answer from {target.address} in {limit:.1f} s") from None


async def _without_engine(target: SnmpTarget, command: str, rows: Mapping[str, Any], *numbers: int) -> Answer:
    from pysnmp.hlapi.v1arch import asyncio as hlapi  # noqa: PLC0415 - slow to import, and rarely needed
    from pysnmp.proto.rfc1902 import Null, ObjectName  # noqa: PLC0415

    community = _who(hlapi, target, write=command == "set_cmd")
    asked = [(ObjectName(oid), Null("") if value is None else value) for oid, value in rows.items()]
    with hlapi.SnmpDispatcher() as dispatcher:
        where = await _transport(hlapi, target)
        call = getattr(hlapi, command)
        return cast("Answer", await call(dispatcher, community, where, *numbers, *asked, lookupMib=False))


async def _with_engine(target: SnmpTarget, command: str, rows: Mapping[str, Any], *numbers: int) -> Answer:
    """Twice where a kept engine fails with version 3: of an agent that began anew it takes no answer any more."""
    import pysnmp.hlapi.v3arch.asyncio as hlapi  # noqa: PLC0415 - slow to import, and rarely needed

    who, where = _who(hlapi, target, write=command == "set_cmd"), await _transport(hlapi, target)
    context = hlapi.ContextData(contextName=target.context.encode())
    key = tuple(map(str, vars(who).values()))
    while True:
        kept = key in _engines
        engine = _engines[key] if kept else _engines.setdefault(key, hlapi.SnmpEngine())
        asked = [hlapi.ObjectType(hlapi.ObjectIdentity(oid), *([] if v is None else [v])) for oid, v in rows.items()]
        answer = await getattr(hlapi, command)(engine, who, where, context, *numbers, *asked, lookupMib=False)
        if not answer[0] or not kept or target.version == "1":
            return cast("Answer", answer)
        if _engines.get(key) is engine:
            _retire(_engines.pop(key))


def _retire(engine: Any) -> None:
    """Close it when what is under way in it has ended."""
    asyncio.get_running_loop().call_later(_LONGEST, engine.close_dispatcher)


class _Engines(LRUCache[tuple[str, ...], Any]):
    """The engines in use, by user and keys. Only for the thread of `_loop`."""

    def popitem(self) -> tuple[tuple[str, ...], Any]:
        key, engine = super().popitem()
        _retire(engine)
        return key, engine


_engines = _Engines(_ENGINES)


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """The loop of this process that engines live in."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="snmp-exact", daemon=True).start()
    return loop


def _forget() -> None:
    """Threads do not survive a fork."""
    _loop.cache_clear()
    _engines.clear()


os.register_at_fork(after_in_child=_forget)


async def _transport(hlapi: Any, target: SnmpTarget) -> Any:
    made = hlapi.Udp6TransportTarget if ":" in target.host else hlapi.UdpTransportTarget
    try:
        return await made.create((target.host, target.port), timeout=target.timeout, retries=target.retries)
    except Exception as exc:  # noqa: BLE001 - pysnmp has one kind for everything
        raise Timeout(f"{target.address} cannot be reached: {exc}") from None


def _who(hlapi: Any, target: SnmpTarget, *, write: bool) -> Any:
    if target.community is not None:
        return hlapi.CommunityData(target.community_text(write=write), mpModel=0 if target.version == "1" else 1)
    return hlapi.UsmUserData(
        target.username,
        authKey=target.auth_key.reveal() if target.auth_key else None,
        privKey=target.priv_key.reveal() if target.priv_key else None,
        authProtocol=getattr(hlapi, AUTH[target.auth_protocol]) if target.auth_protocol else hlapi.USM_AUTH_NONE,
        privProtocol=getattr(hlapi, PRIV[target.priv_protocol, target.key_expansion])
        if target.priv_protocol
        else hlapi.USM_PRIV_NONE,
    )


def _checked(target: SnmpTarget, answer: Answer) -> Any:
    """The rows of a good answer."""
    indication, status, index, rows = answer
    if indication:
        raise _failure(target, str(indication))
    if status:
        word = status.prettyPrint()
        at = f" at {rows[int(index) - 1][0]}" if index and int(index) <= len(rows) else ""
        raise Refused(f"{target.address} says no{at}: {_STATUS.get(word, word)}")
    return rows


def _failure(target: SnmpTarget, words: str) -> TargetError:
    """What pysnmp calls an indication (its proto/errind.py): before any answer of the agent to what was asked."""
    if "before timeout" in words or "No SNMP response" in words:
        hint = "agents are silent to a wrong community and to an address that may not ask, too"
        return Timeout(f"no answer from {target.address}", hint=hint)
    if any(word in words.lower() for word in ("usm", "auth", "user", "security", "digest", "encrypt", "decrypt")):
        hint = "check username, auth and priv protocols and keys"
        return AuthError(f"{target.address} does not accept our user: {words}", hint=hint)
    return ParseError(f"{target.address}: {words}")
