"""Speaking to an agent by pysnmp: slow and complete. What gufo-snmp lacks: SET, contexts, and why an agent refuses."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, TypeVar

from nms_workers.errors import AuthError, ParseError, Refused, TargetError, Timeout
from nms_workers.services.snmp.oid import Value
from nms_workers.services.snmp.target import SnmpTarget
from nms_workers.transport.deadline import remaining

T = TypeVar("T")
Kind = Literal["integer", "unsigned", "counter", "counter64", "text", "hex", "oid", "address", "timeticks"]

_START = 10.0  # seconds that pysnmp may take to make an engine, on a busy machine
_AUTH = {
    "md5": "USM_AUTH_HMAC96_MD5",
    "sha1": "USM_AUTH_HMAC96_SHA",
    "sha224": "USM_AUTH_HMAC128_SHA224",
    "sha256": "USM_AUTH_HMAC192_SHA256",
    "sha384": "USM_AUTH_HMAC256_SHA384",
    "sha512": "USM_AUTH_HMAC384_SHA512",
}
_PRIV = {
    ("des", "cisco"): "USM_PRIV_CBC56_DES",
    ("des", "blumenthal"): "USM_PRIV_CBC56_DES",
    ("aes128", "cisco"): "USM_PRIV_CFB128_AES",
    ("aes128", "blumenthal"): "USM_PRIV_CFB128_AES",
    ("aes192", "cisco"): "USM_PRIV_CFB192_AES",
    ("aes192", "blumenthal"): "USM_PRIV_CFB192_AES_BLUMENTHAL",
    ("aes256", "cisco"): "USM_PRIV_CFB256_AES",
    ("aes256", "blumenthal"): "USM_PRIV_CFB256_AES_BLUMENTHAL",
}
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

    async def ask(hlapi: Any, engine: Any, who: Any, where: Any, context: Any) -> str | None:
        asked = hlapi.ObjectType(hlapi.ObjectIdentity(oid))
        answer = await hlapi.next_cmd(engine, who, where, context, asked, lookupMib=False)
        if str(answer[1]) == "noSuchName" or int(answer[1] or 0) == 2:  # version 1 has no other word for the end
            return None
        ((name, value),) = _checked(target, answer)
        return None if value.__class__.__name__ == "EndOfMibView" else str(name)

    return _run(target, ask)


def get(target: SnmpTarget, oids: list[str]) -> dict[str, Value]:
    """The values of these instances; those that the agent does not have are left out.

    Raises:
        Timeout: no answer, after `retries`.
        AuthError: version 3 does not accept the user or a key.
        Refused: the agent says no.
        ParseError: another failure, in pysnmp's words.
    """

    async def ask(hlapi: Any, engine: Any, who: Any, where: Any, context: Any) -> dict[str, Value]:
        asked = [hlapi.ObjectType(hlapi.ObjectIdentity(oid)) for oid in oids]
        answer = await hlapi.get_cmd(engine, who, where, context, *asked, lookupMib=False)
        rows = _checked(target, answer)
        return {str(name): plain(value) for name, value in rows if not value.__class__.__name__.startswith("NoSuch")}

    return _run(target, ask)


def set_many(target: SnmpTarget, values: Mapping[str, tuple[Kind, int | str]]) -> None:
    """Set these instances, all of them or none (RFC 3416 section 4.2.5).

    Args:
        values: by object identifier; `hex` is an octet string written as hexadecimal digits.

    Raises:
        Refused: the agent says no, in words; or a value does not fit its kind.
        Timeout, AuthError, ParseError: as in `get`.
    """

    async def ask(hlapi: Any, engine: Any, who: Any, where: Any, context: Any) -> None:
        asked = [hlapi.ObjectType(hlapi.ObjectIdentity(oid), _typed(oid, *value)) for oid, value in values.items()]
        _checked(target, await hlapi.set_cmd(engine, who, where, context, *asked, lookupMib=False))

    _run(target, ask, write=True)


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


def _run(target: SnmpTarget, ask: Callable[..., Awaitable[T]], *, write: bool = False) -> T:
    import pysnmp.hlapi.v3arch.asyncio as hlapi  # noqa: PLC0415 - slow to import, and rarely needed

    async def within() -> T:
        engine = hlapi.SnmpEngine()
        try:
            where = await _transport(hlapi, target)
            context = hlapi.ContextData(contextName=target.context.encode())
            return await ask(hlapi, engine, _who(hlapi, target, write=write), where, context)
        finally:
            engine.close_dispatcher()

    limit = remaining((target.retries + 1) * target.timeout + _START)
    try:
        return asyncio.run(asyncio.wait_for(within(), limit))
    except TimeoutError:
        raise Timeout(f"no answer from {target.address} in {limit:.1f} s") from None


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
        authProtocol=getattr(hlapi, _AUTH[target.auth_protocol]) if target.auth_protocol else hlapi.USM_AUTH_NONE,
        privProtocol=getattr(hlapi, _PRIV[target.priv_protocol, target.key_expansion])
        if target.priv_protocol
        else hlapi.USM_PRIV_NONE,
    )


def _checked(target: SnmpTarget, answer: tuple[Any, Any, Any, Any]) -> Any:
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
