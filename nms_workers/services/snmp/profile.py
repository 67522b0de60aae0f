"""Profiles: which objects of which devices are read, and what they become. Ours lie in `profiles/`.

A profile is a TOML file. It belongs to one poll, and holds tables:

| key | meaning |
|---|---|
| name, summary, source | what it is called and where its objects are defined |
| poll | the poll that reads it |
| devices | beginnings of sysObjectID; none: every device that has the objects |
| changed_by | objects whose change says that names and descriptions may have changed |
| table.object, table.oid | the symbolic name, and the object whose columns are read |
| table.scalar | its columns are single values: `sub` ends in `.0` |
| table.entity | the kind of entity that each row is; its attributes are the columns of the role `attribute` |
| table.group | tables of one group share the attributes of rows with the same index; those of one entity do anyway |
| table.labels | label name to where it comes from, or to several places: the first that says something is taken |
| table.alarm | when a row is an event that fires, see below |
| column.object, column.sub | its symbolic name, and its number in the table |
| column.metric | the metric its values are samples of; `scale` multiplies, `words` maps numbers of an enumeration |
| column.by, column.metrics | the metric follows from the number in another column: `metrics` maps that number |
| column.times, column.decimals | columns of the row that multiply the value, and one that tells its decimal places |
| table.width | a metric that tells how many bits the counters of a row have that agents may have in 32 or 64 |
| column.plus | is added after `scale` |
| column.none | a value that means "not known" |
| column.behind | the column that is preferred where an agent has both: the 64-bit counter |
| column.bits | 32: a counter that wraps at 2^32 |
| column.enum | the names of the numbers, for attributes and alarms |
| column.role | `attribute`: a fact about the row; `as` is its name, `format` how it is written |

A label comes from a column, from `index` (all of it), `index.2` (one number), `index.0-3` (several), `inet.0` (an
InetAddress that begins there, RFC 4001), `mac.0` (six numbers), or is a `=text`. Rows of one table that would have the
same labels get `#index` behind the first.

An alarm fires while `object` is none of `good` and each column of `when` has its number; `message` takes the labels and
`$state`.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping, Set
from functools import cache
from pathlib import Path
from string import Template
from typing import Literal

import msgspec

from nms_workers.errors import ConfigError
from nms_workers.services.snmp.mibs import symbols
from nms_workers.services.snmp.oid import oid as checked

Format = Literal["text", "mac", "hex", "address", "number", "interface", "last"]
Severity = Literal["info", "warning", "error", "critical"]

POLLS = ("interfaces", "health", "routing", "inventory", "topology")
ALARMS = {"health": "hardware_alarm", "routing": "peer_down"}
"""Poll to the kind of the events that its profiles tell."""

_SUB = re.compile(r"[0-9]+(\.[0-9]+)*\Z", re.ASCII)
_SOURCE = re.compile(r"=.+|index(\.[0-9]+(-[0-9]+)?)?|(inet|mac)\.[0-9]+\Z", re.ASCII)


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
    by: str = ""
    metrics: Mapping[str, str] = {}
    times: tuple[str, ...] = ()
    decimals: str = ""
    enum: Mapping[str, str] = {}


class Alarm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a row is an event that fires."""

    object: str
    good: tuple[int, ...]
    message: str
    when: Mapping[str, int] = {}
    severity: Severity = "error"


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One table, or a group of scalars."""

    object: str
    oid: str
    column: tuple[Column, ...]
    scalar: bool = False
    entity: str = ""
    group: str = ""
    labels: Mapping[str, str | tuple[str, ...]] = {}
    alarm: Alarm | None = None
    width: str = ""

    @property
    def family(self) -> str:
        """What shares attributes with it."""
        return self.group or self.entity or self.oid

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


def read(path: Path, mibs: tuple[Path, ...] = ()) -> Profile:
    """A profile from its file.

    Args:
        mibs: folders of MIB files. With them `oid` may be a symbolic name, and `sub` may be left out.

    Raises:
        ConfigError: it cannot be read, or is no profile; the message says where.
    """
    try:
        profile = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Profile)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as exc:
        raise ConfigError(f"the profile {path} cannot be used: {exc}") from None
    if profile.poll not in POLLS:
        raise ConfigError(f"the profile {path} belongs to the poll {profile.poll!r}", hint=f"known: {', '.join(POLLS)}")
    if mibs:
        profile = msgspec.structs.replace(profile, table=tuple(_resolved(table, mibs) for table in profile.table))
    for table in profile.table:
        _check(f"the profile {path}, {table.object}", profile, table)
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


def chosen(poll: str, sys_object_id: str, own: Iterable[Path] = (), mibs: tuple[Path, ...] = ()) -> list[Profile]:
    """The profiles of a poll for a device: ours, and the user's in place of ours of the same name."""
    named = {one.name: one for one in (*ours(), *(_kept(path, mibs) for path in own))}
    return [one for one in named.values() if one.poll == poll and one.fits(sys_object_id)]


@cache
def _kept(path: Path, mibs: tuple[Path, ...]) -> Profile:
    return read(path, mibs)


def _resolved(table: Table, mibs: tuple[Path, ...]) -> Table:
    """The table with numbers in place of names."""
    names = symbols(mibs)
    base = names.oid(table.oid) if "::" in table.oid else table.oid
    module = table.object.partition("::")[0]
    columns = [
        column
        if column.sub
        else msgspec.structs.replace(column, sub=_below(base, names.oid(f"{module}::{column.object}")))
        for column in table.column
    ]
    return msgspec.structs.replace(table, oid=base, column=tuple(columns))


def _below(base: str, oid: str) -> str:
    return oid.removeprefix(f"{base}.")


def _check(where: str, profile: Profile, table: Table) -> None:
    try:
        checked(table.oid)
    except ValueError as exc:
        raise ConfigError(f"{where}: {exc}") from None
    beside = {column.object for one in profile.table if one.family == table.family for column in one.column}
    for column in table.column:
        _check_column(f"{where}, {column.object}", column, beside)
    for label, source in table.labels.items():
        for one in (source,) if isinstance(source, str) else source:
            if one not in beside and not _SOURCE.match(one):
                raise ConfigError(f"{where}: the label {label} comes from {one}, which is no column")
    if table.entity and table.entity != "interface" and not table.labels:
        raise ConfigError(f"{where}: an entity needs a label to be called by")
    if table.alarm is not None:
        _check_alarm(where, profile.poll, table, table.alarm)


def _check_column(where: str, column: Column, beside: Set[str]) -> None:
    if not _SUB.match(column.sub):
        raise ConfigError(f"{where}: sub is {column.sub!r}, which is no number of a column")
    is_metric = bool(column.metric) != bool(column.by and column.metrics)
    if (column.role == "metric") != is_metric or (column.role == "attribute") != bool(column.name):
        raise ConfigError(f"{where}: a metric needs `metric` or `by` and `metrics`, an attribute needs `as`")
    for one in (*column.times, *filter(None, (column.by, column.decimals, column.behind))):
        if one not in beside:
            raise ConfigError(f"{where}: it needs {one}, which is no column")


def _check_alarm(where: str, poll: str, table: Table, alarm: Alarm) -> None:
    if poll not in ALARMS:
        raise ConfigError(
            f"{where}: a profile of the poll {poll} has no alarms", hint=f"these have: {', '.join(ALARMS)}"
        )
    own = {column.object for column in table.column}
    if missing := {alarm.object, *alarm.when} - own:
        raise ConfigError(f"{where}: the alarm looks at {min(missing)}, which is no column")
    if unknown := set(Template(alarm.message).get_identifiers()) - {"state", *table.labels}:
        raise ConfigError(f"{where}: the alarm's message has ${min(unknown)}, which is neither a label nor $state")
