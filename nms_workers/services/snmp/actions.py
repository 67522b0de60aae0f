"""Changes of an agent: each looks first, sets, and reads again whether it took."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv6Address, ip_address
from typing import Annotated, Any, Literal

import msgspec
from pydantic import Field

from nms_workers.change import Change, about_to_change
from nms_workers.errors import Refused
from nms_workers.services.snmp.client import SnmpClient
from nms_workers.services.snmp.exact import Kind
from nms_workers.services.snmp.fast import resolve
from nms_workers.services.snmp.oid import Value, arcs_of, oid
from nms_workers.transport.deadline import remaining

CONTACT, NAME, LOCATION = "1.3.6.1.2.1.1.4.0", "1.3.6.1.2.1.1.5.0", "1.3.6.1.2.1.1.6.0"
_SYSTEM = (CONTACT, NAME, LOCATION)
_ADMIN_STATUS = "1.3.6.1.2.1.2.2.1.7"  # ifAdminStatus
_INDEX_OF_IPV4 = "1.3.6.1.2.1.4.20.1.2"  # ipAdEntIfIndex
_INDEX_OF_ADDRESS = "1.3.6.1.2.1.4.34.1.3"  # ipAddressIfIndex: kind, length and octets of the address follow
_STATES: dict[str, int] = {"up": 1, "down": 2}
_TAKES = 10.0  # seconds an agent may need until it shows what was set
_LOOK = 0.1

State = Literal["up", "down"]
Text = Annotated[str, Field(pattern=r"^[\x20-\x7e]{0,255}$")]  # DisplayString (RFC 2579), without control characters
SystemName = Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,255}$")]
InterfaceName = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,255}$")]
Literally = Annotated[int | str, Field(union_mode="smart")]


class Setting(msgspec.Struct, frozen=True):
    """One instance and its value: `hex` is an octet string as hexadecimal digits."""

    oid: str
    kind: Kind
    value: int | str

    @property
    def sent(self) -> tuple[Kind, int | str]:
        """As `SnmpClient.set` takes it; text goes as octets of UTF-8 (RFC 3411's SnmpAdminString)."""
        return ("hex", str(self.value).encode().hex()) if self.kind == "text" else (self.kind, self.value)

    @property
    def answer(self) -> Value:
        """The value as an agent answers it.

        Raises:
            Refused: it is none of its kind.
        """
        try:
            if self.kind == "text":
                return str(self.value).encode()
            if self.kind == "hex":
                return bytes.fromhex(str(self.value))
            if self.kind == "oid":
                return oid(str(self.value))
            return str(ip_address(self.value)) if self.kind == "address" else int(self.value)
        except ValueError:
            raise Refused(f"{self.value!r:.80} is no {self.kind}") from None


def set_value(client: SnmpClient, wanted: Setting, *, dry_run: bool) -> Change:
    """Set one instance that the target's settings allow."""
    allowed(client, wanted.oid)
    return _set(client, [wanted], dry_run=dry_run)


def set_system(client: SnmpClient, where: str, text: str, *, dry_run: bool) -> Change:
    """Set one text of the system group (RFC 3418)."""
    return _set(client, [Setting(where, "text", text)], dry_run=dry_run)


def restore_values(client: SnmpClient, before: Mapping[str, Any]) -> Change:
    """Set what `before` of one of these actions holds.

    Raises:
        Refused: it holds nothing of the kind, or an object that may not be written.
    """
    try:
        wanted = msgspec.convert(before.get("values"), list[Setting])
    except msgspec.ValidationError as exc:
        raise Refused(f"this is not what was there before: {exc}", hint="undo the job that changed it") from None
    for one in wanted:
        if one.oid not in _SYSTEM:
            allowed(client, one.oid)
    return _set(client, wanted, dry_run=False)


def allowed(client: SnmpClient, where: str) -> None:
    """Whether the settings let this instance be set.

    Raises:
        Refused: they do not.
    """
    arcs = arcs_of(where)
    if not any(arcs[: len(base)] == base for base in map(arcs_of, client.target.writable)):
        hint = "add it, or an object above it, to `writable` of the target"
        raise Refused(f"{where} is not among what may be set at {client.target.address}", hint=hint)


def set_admin_state(client: SnmpClient, interface: str, state: State, *, dry_run: bool) -> Change:
    """Put an interface up or down (ifAdminStatus, RFC 2863), by its lasting name.

    Raises:
        Refused: there is no such interface; or it is to go down, and the target is managed through it.
    """
    row = _interface(client, interface)
    at, was = f"{_ADMIN_STATUS}.{row['index']}", row.get("admin_status")
    before = {"interface": interface, "state": _word(was)}
    after = {"interface": interface, "state": state}
    if was == _STATES[state]:
        return Change(changed=False, message=f"{interface} is {state} already", before=before, after=after)
    if state == "down" and (why := managed_through(client, int(row["index"]))):
        raise Refused(f"{interface} is not put down: {why}", hint="it would cut the device off from us")
    message = f"{interface} is {state}, it was {before['state']}"
    if not dry_run:
        about_to_change(before)
        client.set({at: ("integer", _STATES[state])})
        _await(lambda: client.get(at) == _STATES[state], f"{interface} of {client.target.address} did not go {state}")
    return Change(changed=True, message=message, before=before, after=after)


def restore_admin_state(client: SnmpClient, interface: str, before: Mapping[str, Any]) -> Change:
    """Put an interface as it was.

    Raises:
        Refused: it was neither up nor down.
    """
    state = before.get("state")
    if state not in ("up", "down"):
        raise Refused(f"{interface} was {state!r:.40} before, which cannot be set")
    return set_admin_state(client, interface, state, dry_run=False)


def managed_through(client: SnmpClient, index: int) -> str:
    """Why putting this interface down would cut the device off from us; empty: nothing says so."""
    address = ip_address(resolve(client.target))
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    octets = ".".join(map(str, address.packed))
    asked = [f"{_INDEX_OF_ADDRESS}.{1 if address.version == 4 else 2}.{len(address.packed)}.{octets}"]
    asked += [f"{_INDEX_OF_IPV4}.{octets}"] if address.version == 4 else []
    held = client.get_many(asked).values()
    return f"it holds {address}, through which the device is managed" if index in held else ""


def _interface(client: SnmpClient, name: str) -> dict[str, Any]:
    rows = client.get_interface_list()
    for row in rows:
        if row["interface"] == name:
            return row
    known = ", ".join(str(row["interface"]) for row in rows[:20])
    raise Refused(f"{client.target.address} has no interface {name!r}", hint=f"it has {known}")


def _word(number: object) -> str:
    return {1: "up", 2: "down", 3: "testing"}.get(number, "unknown") if isinstance(number, int) else "unknown"


def _set(client: SnmpClient, wanted: Sequence[Setting], *, dry_run: bool) -> Change:
    for one in wanted:
        client.get(one.oid)  # tells which one is missing
    found = client.get_many([one.oid for one in wanted])
    before = {"values": [msgspec.to_builtins(_kept(one, found[one.oid])) for one in wanted]}
    after = {"values": [msgspec.to_builtins(one) for one in wanted]}
    new = [one for one in wanted if found[one.oid] != one.answer]
    what = ", ".join(one.oid for one in wanted)
    if not new:
        return Change(changed=False, message=f"{what} is as wanted already", before=before, after=after)
    if not dry_run:
        about_to_change(before)
        client.set({one.oid: one.sent for one in new})
        _await(
            lambda: client.get_many([one.oid for one in new]) == {one.oid: one.answer for one in new},
            f"{client.target.address} took {what}, and does not show it",
        )
    return Change(changed=True, message=f"{what} set", before=before, after=after)


def _kept(one: Setting, value: Value) -> Setting:
    """What is there now, so that it can be set again.

    Raises:
        Refused: it is of another kind than what is to be set.
    """
    if isinstance(value, bytes):
        text = value.decode("utf-8", errors="replace")
        readable = one.kind == "text" and text.encode() == value and not re.search(r"[\x00-\x1f\x7f]", text)
        kept = Setting(one.oid, "text", text) if readable else Setting(one.oid, "hex", value.hex())
    else:
        kept = Setting(one.oid, one.kind, value if isinstance(value, int) else str(value))
    if type(kept.answer) is not type(one.answer):
        raise Refused(f"{one.oid} holds a value of another kind than {one.kind}")
    return kept


def _await(good: Callable[[], bool], otherwise: str) -> None:
    """Read again until it is good.

    Raises:
        Refused: it is not in time.
    """
    ends = time.monotonic() + remaining(_TAKES)
    while not good():
        if time.monotonic() > ends:
            raise Refused(otherwise, hint="it may need another user, or forget what it is told")
        time.sleep(_LOOK)
