"""The rows of an answer: which table and index each value belongs to, and what the rows are called."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from nms_workers.services.snmp import ports
from nms_workers.services.snmp.oid import Value
from nms_workers.services.snmp.profile import Column, Format, Table

Attributes = dict[str, Any]
Labels = dict[str, str]

MAX_LABEL = 255
_SCOPED = 4  # octets of a zone index behind an address (RFC 4001: ipv4z, ipv6z)


@dataclass
class Line:
    """One row of one table as an answer had it: column to (its place in the answer, its value)."""

    table: Table
    index: str
    cells: dict[str, tuple[int, Value]]


def lines_of(tables: Iterable[Table], oids: Sequence[str], values: Sequence[Value]) -> list[Line]:
    """The rows of an answer, those of one table together. What is in no table is left out."""
    by_column: dict[str, list[tuple[int, Table, Column]]] = {}
    for number, table in enumerate(tables):
        for column in table.column:
            by_column.setdefault(table.oid_of(column), []).append((number, table, column))
    depths = sorted({column.count(".") + 1 for column in by_column}, reverse=True)
    found: dict[tuple[int, str], Line] = {}
    for place, (oid, value) in enumerate(zip(oids, values, strict=True)):
        matches, index = _match(by_column, depths, oid)
        for number, table, column in matches:
            at = "" if table.scalar else index
            found.setdefault((number, at), Line(table, at, {})).cells[column.object] = (place, value)
    return list(found.values())


def _match(
    by_column: Mapping[str, list[tuple[int, Table, Column]]], depths: Sequence[int], oid: str
) -> tuple[list[tuple[int, Table, Column]], str]:
    arcs = oid.split(".")
    for depth in depths:
        if (matches := by_column.get(".".join(arcs[:depth]))) is not None:
            return matches, ".".join(arcs[depth:])
    return [], ""


def names_of(lines: Sequence[Line]) -> dict[int, tuple[Labels, Attributes]]:
    """Labels and attributes of each row, by its `id`: rows of one family share attributes."""
    about: dict[tuple[str, str], Attributes] = {}
    told: dict[tuple[str, str], dict[str, str]] = {}  # column to what it says, for labels
    for line in lines:
        key = (line.table.family, line.index)
        for column in line.table.column:
            if column.object in line.cells:
                fact = said(column, line.cells[column.object][1])
                told.setdefault(key, {})[column.object] = str(fact)
                if column.role == "attribute":
                    about.setdefault(key, {})[column.name] = fact
    interfaces = {line.index: about.get(("interface", line.index), {}) for line in lines if _is_port(line)}
    called = ports.identities(interfaces)
    found: dict[int, tuple[Labels, Attributes]] = {}
    for line in lines:
        key = (line.table.family, line.index)
        facts = about.get(key, {})
        _name_interfaces(line, facts, called)
        if _is_port(line):
            facts["index"] = line.index
            found[id(line)] = ({"interface": called[line.index]}, facts)
        else:
            labels = {name: _label(line, source, told.get(key, {})) for name, source in line.table.labels.items()}
            found[id(line)] = (labels, facts)
    _tell_apart(lines, found)
    return found


def _is_port(line: Line) -> bool:
    return line.table.entity == "interface"


def _name_interfaces(line: Line, facts: Attributes, called: Mapping[str, str]) -> None:
    """An ifIndex in a fact becomes the port's lasting name."""
    for column in line.table.column:
        if column.format == "interface" and column.object in line.cells:
            index = str(line.cells[column.object][1])
            facts[column.name] = called.get(index, f"ifIndex {index}")


def _tell_apart(lines: Sequence[Line], found: dict[int, tuple[Labels, Attributes]]) -> None:
    """Rows of one table whose labels are the same get their index behind the first."""
    rows: dict[tuple[Any, ...], set[str]] = {}
    for line in lines:
        rows.setdefault((line.table.object, *found[id(line)][0].items()), set()).add(line.index)
    for line in lines:
        labels, facts = found[id(line)]
        if labels and line.index and not _is_port(line) and len(rows[line.table.object, *labels.items()]) > 1:
            (name, value), *rest = labels.items()
            found[id(line)] = ({name: f"{value}#{line.index}"[:MAX_LABEL], **dict(rest)}, facts)


def _label(line: Line, sources: str | tuple[str, ...], told: Mapping[str, str]) -> str:
    for source in (sources,) if isinstance(sources, str) else sources:
        text = source[1:] if source.startswith("=") else told.get(source) or _of_index(line.index, source)
        if text:
            return text[:MAX_LABEL]
    return line.index[:MAX_LABEL]


def _of_index(index: str, source: str) -> str:
    """A part of an index; empty where it has none."""
    if source == "index":
        return index
    how, _, where = source.partition(".")
    if not where or not index:
        return ""
    arcs = index.split(".")
    first, _, last = where.partition("-")
    if how == "inet":
        return inet(arcs[int(first) :])
    if how == "mac":
        return mac(arcs[int(first) :])
    return ".".join(arcs[int(first) : int(last or first) + 1])


def inet(arcs: Sequence[str]) -> str:
    """The address that an index begins with: its type, its length, its octets (RFC 4001). Empty: it is none."""
    if len(arcs) < 2:
        return ""
    length = int(arcs[1])
    octets = [int(arc) for arc in arcs[2 : 2 + length]]
    if arcs[0] in ("3", "4"):
        octets = octets[:-_SCOPED]
    if len(octets) not in (4, 16) or max(octets) > 255:
        return ""
    return str(ip_address(bytes(octets)))


def mac(arcs: Sequence[str]) -> str:
    """The six numbers that an index begins with as a MAC address. Empty: they are none."""
    octets = [int(arc) for arc in arcs[:6]]
    return bytes(octets).hex(":") if len(octets) == 6 and max(octets) < 256 else ""


def said(column: Column, value: Value) -> str | int | float:
    """What a column says, with names in place of the numbers of an enumeration."""
    return column.enum.get(str(value)) or written(value, column.format)


def written(value: Value, how: Format) -> str | int | float:
    """A fact as people write it; octets that are no text as hexadecimal digits."""
    if how == "last" and isinstance(value, str):
        return int(value.rpartition(".")[2] or 0)
    if not isinstance(value, bytes):
        return "" if value is None else value
    if how == "text":
        text = value.rstrip(b"\x00").decode("utf-8", errors="replace")
        return text if text.isprintable() else "".join(one if one.isprintable() else " " for one in text).strip()
    if how == "address" and len(value) in (4, 16):
        return str(ip_address(value))
    return value.hex(":") if how == "mac" else value.hex()
