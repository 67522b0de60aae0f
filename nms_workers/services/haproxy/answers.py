"""What the answers of the runtime API say, beside the statistics. Source: the management guide, 9.3."""

import re
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal, TypeAlias

import msgspec

from nms_workers.errors import ParseError
from nms_workers.services.haproxy.target import State

Info: TypeAlias = dict[str, int | float | str]
"""Fields of the process by HAProxy's names."""

_HINT = "is it HAProxy's stats socket?"
_NUMBER = re.compile(r"-?[0-9]{1,20}(\.[0-9]+)?", re.ASCII)
_TABLE = re.compile(r"# table: (?P<name>\S+), type: (?P<type>[^,]+), size:(?P<size>\d+), used:(?P<used>\d+)", re.ASCII)
_ENTRY = re.compile(r"0x[0-9a-f]+: key=(?P<key>.*?) use=\d+ exp=\d+(?: shard=\d+)?(?P<data>( \S+=\S+)*)\s*", re.ASCII)
_OPERATIONAL: tuple[Literal["down", "starting", "up", "stopping"], ...] = ("down", "starting", "up", "stopping")
_CHECK_ENABLED = 0x04  # of srv_check_state
_FORCED_MAINT, _FORCED_DRAIN = 0x01, 0x08  # of srv_admin_state; the others are inherited, or of the resolver


class ServerState(msgspec.Struct, frozen=True):
    """A server of a backend as it is now.

    Args:
        admin: what it was set to; `ready` also when it is in maintenance because of a server it tracks.
        operational: how it fares; None where it is not told.
        weight, initial_weight: as the user set it, and as configured; None where it is not told.
        port: 0 for the port of the client's connection.
        checked: whether its health is being checked; None where it is not told.
    """

    backend: str
    server: str
    address: str
    port: int
    admin: State
    operational: Literal["down", "starting", "up", "stopping"] | None = None
    weight: int | None = None
    initial_weight: int | None = None
    checked: bool | None = None


class StickTable(msgspec.Struct, frozen=True):
    """A sticky table: `type` of its keys, entries it may hold and holds."""

    name: str
    type: str
    size: int = 0
    used: int = 0


class TableEntry(msgspec.Struct, frozen=True):
    """A key of a sticky table, and the numbers it stores of it: `http_req_rate(10000)`."""

    key: str
    data: dict[str, float]


class Certificate(msgspec.Struct, frozen=True):
    """A certificate file that is loaded."""

    file: str
    not_before: datetime
    not_after: datetime
    subject: str = ""
    issuer: str = ""
    status: str = ""


def info(text: str) -> Info:
    """`show info`: every field; numbers are numbers.

    Raises:
        ParseError: it is something else.
    """
    pairs = (line.partition(": ") for line in text.splitlines())
    fields = {name: _value(value) for name, colon, value in pairs if colon}
    if "Version" not in fields or "Uptime_sec" not in fields:
        raise ParseError("the answer does not look like HAProxy's `show info`", hint=_HINT)
    return fields


def servers_state(text: str) -> list[ServerState]:
    """`show servers state`, version 1 of its format.

    Raises:
        ParseError: it is something else, or another version.
    """
    version, _, rest = text.partition("\n")
    header, _, body = rest.partition("\n")
    if version.strip() != "1" or not header.startswith("# be_id "):
        raise ParseError("the answer does not look like HAProxy's `show servers state`, version 1", hint=_HINT)
    names = header.removeprefix("# ").split()
    return [_server(dict(zip(names, line.split(), strict=False))) for line in body.splitlines() if line.strip()]


def stick_tables(text: str) -> list[StickTable]:
    """`show table`.

    Raises:
        ParseError: a line is none of it.
    """
    return [_table(line) for line in text.splitlines() if line.strip()]


def table_entries(lines: str) -> Iterator[TableEntry]:
    """The entries of `show table <name>`, as far as their lines are whole."""
    for line in lines.splitlines():
        if match := _ENTRY.fullmatch(line):
            pairs = (pair.partition("=") for pair in match["data"].split())
            numbers = {name: float(value) for name, _, value in pairs if _NUMBER.fullmatch(value)}
            yield TableEntry(match["key"], numbers)


def certificate_files(text: str) -> list[str]:
    """The names of `show ssl cert`; what is being replaced (`# transaction`) is not among them."""
    return [line for line in text.partition("# filename")[2].splitlines() if line.strip()]


def certificate(text: str) -> Certificate:
    """`show ssl cert <name>`.

    Raises:
        ParseError: a field is missing.
    """
    pairs = (line.partition(": ") for line in text.splitlines())
    fields = {name.strip(): value.strip() for name, _, value in pairs}
    try:
        return Certificate(
            fields["Filename"],
            _time(fields["notBefore"]),
            _time(fields["notAfter"]),
            fields.get("Subject", ""),
            fields.get("Issuer", ""),
            fields.get("Status", ""),
        )
    except (KeyError, ValueError) as exc:
        raise ParseError(f"the answer does not look like HAProxy's `show ssl cert`: {exc}", hint=_HINT) from None


def _server(fields: dict[str, str]) -> ServerState:
    try:
        flags = int(fields["srv_admin_state"])
        return ServerState(
            backend=fields["be_name"],
            server=fields["srv_name"],
            address="" if fields["srv_addr"] == "-" else fields["srv_addr"],
            port=int(fields.get("srv_port", 0)),
            admin="maint" if flags & _FORCED_MAINT else "drain" if flags & _FORCED_DRAIN else "ready",
            operational=_OPERATIONAL[int(fields["srv_op_state"])],
            weight=int(fields["srv_uweight"]),
            initial_weight=int(fields["srv_iweight"]),
            checked=bool(int(fields["srv_check_state"]) & _CHECK_ENABLED),
        )
    except (KeyError, ValueError, IndexError) as exc:
        raise ParseError(f"HAProxy's `show servers state` has a line we do not know: {exc}", hint=_HINT) from None


def _table(line: str) -> StickTable:
    match = _TABLE.match(line)
    if not match:
        raise ParseError(f"HAProxy's `show table` has a line we do not know: {line!r:.80}", hint=_HINT)
    return StickTable(match["name"], match["type"], int(match["size"]), int(match["used"]))


def _time(text: str) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(text), UTC)


def _value(text: str) -> int | float | str:
    if not _NUMBER.fullmatch(text):
        return text
    return float(text) if "." in text else int(text)
