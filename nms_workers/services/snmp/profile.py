"""Profiles: which objects of which devices are read, and what they become. Ours lie in `profiles/`.

A profile is a TOML file. It belongs to one poll, and holds tables; `examples` are ours:

| key | meaning |
|---|---|
| name, summary, source | what it is called and where its objects are defined |
| poll | the poll that reads it |
| devices | beginnings of sysObjectID; none: every device that has the objects |
| changed_by | objects whose change says that names and descriptions may have changed |
| table.object, table.oid | the symbolic name, and the object whose columns are read |
| table.scalar | its columns are single values: `sub` ends in `.0` |
| table.entity | the kind of entity that each row is; its attributes come from columns of the role `attribute` |
| table.width | a metric that tells how many bits the counters of a row have that agents may have in 32 or 64 |
| table.labels | for tables without entity: label name to the column that gives it, or to `index` or `index.N` |
| column.object, column.sub | its symbolic name, and its number in the table |
| column.metric | the metric its values are samples of; `scale` multiplies, `words` maps numbers of an enumeration |
| column.plus | is added after `scale` |
| column.none | a value that means "not known" |
| column.behind | the column that is preferred where an agent has both: the 64-bit counter |
| column.bits | 32: a counter that wraps at 2^32 |
| column.role | `attribute`: a fact about the row; `as` is its name, `format` how octets are written |
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec

from nms_workers.errors import ConfigError
from nms_workers.services.snmp.oid import oid as checked

Format = Literal["text", "mac", "hex", "address", "number"]

_SUB = re.compile(r"[0-9]+(\.[0-9]+)*\Z", re.ASCII)


class Column(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"name": "as"}):
    """One column of a table."""

    object: str
    sub: str
    metric: str = ""
    role: Literal["metric", "attribute"] = "metric"
    name: str = ""
    format: Format = "text"
    scale: float = 1.0
    plus: float = 0.0
    words: Mapping[str, float] = {}
    none: float | None = None
    behind: str = ""
    bits: Literal[32, 64] = 64


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One table, or a group of scalars."""

    object: str
    oid: str
    column: tuple[Column, ...]
    scalar: bool = False
    entity: str = ""
    labels: Mapping[str, str] = {}
    width: str = ""

    def oid_of(self, column: Column) -> str:
        """The object of a column, below which its instances are."""
        return f"{self.oid}.{column.sub}"


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file."""

    name: str
    summary: str
    source: str
    poll: str
    table: tuple[Table, ...]
    devices: tuple[str, ...] = ()
    changed_by: tuple[str, ...] = ()

    def fits(self, sys_object_id: str) -> bool:
        """Whether a device of this sysObjectID is meant."""
        return not self.devices or any(f"{sys_object_id}.".startswith(f"{one.rstrip('.')}.") for one in self.devices)


def read(path: Path) -> Profile:
    """A profile from its file.

    Raises:
        ConfigError: it cannot be read, or is no profile; the message says where.
    """
    try:
        profile = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Profile)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as exc:
        raise ConfigError(f"the profile {path} cannot be used: {exc}") from None
    for table in profile.table:
        _check(path, table)
    return profile


@cache
def ours() -> tuple[Profile, ...]:
    """The profiles that come with the service, by name."""
    return tuple(read(path) for path in sorted((Path(__file__).parent / "profiles").glob("*.toml")))


def narrow() -> frozenset[str]:
    """The counters that have 32 bits in every profile of ours."""
    bits: dict[str, int] = {}
    for column in (column for profile in ours() for table in profile.table for column in table.column):
        if column.metric.endswith("_total"):
            bits[column.metric] = max(column.bits, bits.get(column.metric, 0))
    return frozenset(metric for metric, widest in bits.items() if widest == 32)


def chosen(poll: str, sys_object_id: str, own: Iterable[Path] = ()) -> list[Profile]:
    """The profiles of a poll for a device: ours, and the user's in place of ours of the same name."""
    named = {one.name: one for one in (*ours(), *map(_kept, own))}
    return [one for one in named.values() if one.poll == poll and one.fits(sys_object_id)]


@cache
def _kept(path: Path) -> Profile:
    return read(path)


def _check(path: Path, table: Table) -> None:
    try:
        checked(table.oid)
    except ValueError as exc:
        raise ConfigError(f"the profile {path}, {table.object}: {exc}") from None
    names = {column.object for column in table.column}
    for column in table.column:
        where = f"the profile {path}, {table.object}, {column.object}"
        if not _SUB.match(column.sub):
            raise ConfigError(f"{where}: sub is {column.sub!r}, which is no number of a column")
        if (column.role == "metric") != bool(column.metric) or (column.role == "attribute") != bool(column.name):
            raise ConfigError(
                f"{where}: a metric needs `metric`, an attribute needs `as`, and neither takes the other's"
            )
    for label, source in table.labels.items():
        if source not in names and not re.fullmatch(r"index(\.[0-9]+)?", source):
            raise ConfigError(
                f"the profile {path}, {table.object}: the label {label} comes from {source}, which is no column"
            )
