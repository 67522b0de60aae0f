"""The statistics of HAProxy in one form, whichever way they came: CSV, JSON, or the Data Plane API.

The fields before the CSV's `-` keep their order for ever and those behind it do not, so fields go by their names.
Source: https://docs.haproxy.org/2.6/management.html#9.1.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterable
from itertools import chain
from typing import Any, Literal, TypeAlias

import msgspec

from nms_workers.errors import ParseError

Kind: TypeAlias = Literal["frontend", "backend", "server", "listener"]

KINDS: tuple[Kind, ...] = ("frontend", "backend", "server", "listener")  # by the number in `type`
STATES: dict[Kind, tuple[str, ...]] = {
    "frontend": ("OPEN", "FULL", "PAUSED", "STOP"),
    "backend": ("UP", "DOWN"),
    "server": ("UP", "DOWN", "NOLB", "DRAIN", "MAINT", "no check"),
    "listener": ("OPEN", "FULL", "WAITING", "PAUSED"),
}

_NUMBER = re.compile(r"-?[0-9]{1,20}", re.ASCII)
_HEADER = "# pxname,svname,"
_HINT = "is it HAProxy's statistics page, or its stats socket?"


class Row(msgspec.Struct, frozen=True):
    """One frontend, backend, server or listener.

    Args:
        kind: which of them.
        proxy: its frontend or backend.
        name: of the server or listener; of the proxy itself otherwise. Listeners may share a name: the second is `x#2`.
        fields: as HAProxy calls them; numbers are numbers, and what it left empty is not there.
    """

    kind: Kind
    proxy: str
    name: str
    fields: dict[str, int | float | str]

    @property
    def state(self) -> str:
        """One word of `STATES`: `UP 1/3` is UP still, `DOWN (agent)` is DOWN, `MAINT (via be/x)` is MAINT."""
        status = str(self.fields.get("status", ""))
        return next((state for state in STATES[self.kind] if status.startswith(state)), status)

    def text(self, field: str) -> str:
        """The field as text, empty where there is none."""
        return str(self.fields.get(field, ""))

    def number(self, field: str) -> float:
        """The field as a number, 0 where there is none."""
        value = self.fields.get(field, 0)
        return value if isinstance(value, int | float) else 0


def from_csv(text: str) -> list[Row]:
    """The rows of `show stat`, or of the page's `;csv`.

    Raises:
        ParseError: it is something else, or cut off.
    """
    lines = [f"{line}\n" for line in text.lstrip().split("\n")]
    if not lines[0].startswith(_HEADER):
        raise ParseError("the answer does not look like HAProxy's statistics", hint=_HINT)
    names = lines[0].removeprefix("# ").rstrip().rstrip(",").split(",")
    rows = []
    for cells in csv.reader(lines[1:]):
        if not cells:
            continue
        if len(cells) < len(names):
            raise ParseError(f"the statistics are cut off in the row of {'/'.join(cells[:2])}", hint=_HINT)
        fields = {name: cell for name, cell in zip(names, cells, strict=False) if cell and name != "-"}
        rows.append(_row({name: _value(cell) for name, cell in fields.items()}))
    return _named_apart(rows)


class _Name(msgspec.Struct):
    name: str


class _Value(msgspec.Struct):
    value: int | float | str


class _Field(msgspec.Struct):
    """What we need of one field of the JSON; its type, origin and nature are in our tables."""

    field: _Name
    value: _Value


Json: TypeAlias = list[list[_Field]]
"""The shape of `show stat json`, and of the page's `;json`."""


def from_json(answer: Json) -> list[Row]:
    """The rows of the page's `;json`.

    Raises:
        ParseError: a row lacks its name or type.
    """
    told = ({one.field.name: _plain(one.value.value) for one in fields if one.value.value != ""} for fields in answer)
    return _named_apart(map(_row, told))


class Native(msgspec.Struct):
    """One object of the Data Plane API's `stats/native`."""

    type: Kind
    name: str
    stats: dict[str, Any] = {}
    backend_name: str = ""


def from_native(answer: Iterable[Native]) -> list[Row]:
    """The rows of the Data Plane API. Listeners are not among them."""
    rows = []
    for one in answer:
        fields = {name: _plain(value) for name, value in one.stats.items() if isinstance(value, int | float | str)}
        rows.append(Row(one.type, one.backend_name or one.name, one.name, fields))
    return _named_apart(rows)


def _row(fields: dict[str, int | float | str]) -> Row:
    kind, proxy, name = fields.get("type"), fields.get("pxname"), fields.get("svname")
    if not isinstance(kind, int) or kind not in range(len(KINDS)) or proxy is None or name is None:
        raise ParseError(f"the statistics have a row without a name or type: {fields!r:.100}", hint=_HINT)
    known = KINDS[kind]
    return Row(known, str(proxy), str(name if known in ("server", "listener") else proxy), fields)


def _value(cell: str) -> int | str:
    """A number, or text that can be shown: it may come from what a server answered to a check."""
    if _NUMBER.fullmatch(cell):
        return int(cell)
    return cell if cell.isprintable() else "".join(c if c.isprintable() else " " for c in cell)


def _plain(value: int | float | str) -> int | float | str:
    return _value(value) if isinstance(value, str) else value


def _named_apart(rows: Iterable[Row]) -> list[Row]:
    """The same rows, frontends and backends first, no two with the same name."""
    seen: Counter[tuple[str, str, str]] = Counter()
    by_kind: dict[Kind, list[Row]] = {kind: [] for kind in KINDS}
    for row in rows:
        key = row.kind, row.proxy, row.name
        seen[key] += 1
        apart = row if seen[key] == 1 else Row(row.kind, row.proxy, f"{row.name}#{seen[key]}", row.fields)
        by_kind[row.kind].append(apart)
    return list(chain.from_iterable(by_kind.values()))
