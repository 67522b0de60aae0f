"""The statements of every poll, read from `queries/<poll>.toml`, and what their rows become.

Each table of a file is one statement. `yields` says what a row is: samples, an entity, an event or a link. A column is
SQL, or SQL with the major versions it belongs to (`since`, and `before`, which is not included); a list of those is
tried in order. A metric's name in the file is what `metrics.csv` calls it without the prefix `postgresql_`. A NULL is
left out.
"""

import math
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from nms_workers.records import Entity, Event, Link, Record, Sample
from nms_workers.services.postgresql.connection import Row

PREFIX = "postgresql_"


class Column(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """SQL for some major versions of the server."""

    sql: str
    since: int = 0
    before: float = math.inf


Columns: TypeAlias = dict[str, str | Column | list[Column]]


class Query(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="yields"):
    """One statement.

    Args:
        source: the FROM clause and what follows it; empty: one row.
        since, before: the major versions of the server it is for.
        when: SQL; not true: the statement has no meaning here, and is left out without a word.
        needs: SQL; not true: a privilege or an extension is missing. Left out, and said so with `hint`.
    """

    source: str = msgspec.field(name="from")
    since: int = 0
    before: float = math.inf
    when: str = "true"
    needs: str = "true"
    hint: str = ""

    def columns(self) -> Columns:
        """What is selected, by name."""
        raise NotImplementedError

    def records(self, row: Mapping[str, Any]) -> Iterator[Record]:
        """What one row becomes."""
        raise NotImplementedError

    def applies(self, major: int) -> bool:
        """Whether this statement is for this major version."""
        return self.since <= major < self.before

    def names(self, major: int) -> list[str]:
        """The names of the columns there are on this major version, in order."""
        return [name for name, column in self.columns().items() if _sql(column, major)]

    def sql(self, major: int) -> str:
        """The statement for this major version."""
        selected = (_sql(column, major) for column in self.columns().values())
        return "SELECT " + ", ".join(f"({sql})" for sql in selected if sql) + " " + self.source

    def read(self, rows: list[Row], major: int) -> Iterator[Record]:
        """The records of these rows."""
        names = self.names(major)
        for row in rows:
            yield from self.records(dict(zip(names, row, strict=True)))


class Samples(Query, frozen=True, kw_only=True, tag="samples"):
    """Each row is one set of labels."""

    labels: dict[str, str] = {}
    metrics: Columns

    def columns(self) -> Columns:
        return {**self.labels, **self.metrics}

    def records(self, row: Mapping[str, Any]) -> Iterator[Record]:
        labels = {name: _text(row[name]) for name in self.labels}
        for name, value in row.items():
            if name not in labels and value is not None:
                yield Sample(PREFIX + name, value, labels)


class Entities(Query, frozen=True, kw_only=True, tag="entities"):
    """Each row is something that exists."""

    kind: str
    key: str
    attributes: Columns

    def columns(self) -> Columns:
        return {"": self.key, **self.attributes}

    def records(self, row: Mapping[str, Any]) -> Iterator[Record]:
        yield Entity(self.kind, _text(row[""]), {name: value for name, value in row.items() if name})


class Events(Query, frozen=True, kw_only=True, tag="events"):
    """Each row is something that lasts: it is said at every read while it does."""

    severity: str
    fingerprint: str
    message: str
    attributes: Columns

    def columns(self) -> Columns:
        return {
            ".severity": self.severity,
            ".fingerprint": self.fingerprint,
            ".message": self.message,
            **self.attributes,
        }

    def records(self, row: Mapping[str, Any]) -> Iterator[Record]:
        fingerprint = _text(row[".fingerprint"])
        yield Event(
            kind=fingerprint.partition(":")[0],
            message=_text(row[".message"]),
            severity=row[".severity"],
            fingerprint=fingerprint,
            state="firing",
            attributes={name: value for name, value in row.items() if not name.startswith(".")},
        )


class End(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One end of a link."""

    kind: str
    key: str


class Links(Query, frozen=True, kw_only=True, tag="links"):
    """Each row is two entities that touch."""

    kind: str
    a: End
    b: End

    def columns(self) -> Columns:
        return {"a": self.a.key, "b": self.b.key}

    def records(self, row: Mapping[str, Any]) -> Iterator[Record]:
        yield Link(self.kind, (self.a.kind, _text(row["a"])), (self.b.kind, _text(row["b"])))


@cache
def queries(poll: str) -> dict[str, Samples | Entities | Events | Links]:
    """The statements of this poll by name, in the order they are written."""
    text = (Path(__file__).parent / "queries" / f"{poll}.toml").read_bytes()
    return msgspec.toml.decode(text, type=dict[str, Samples | Entities | Events | Links])


def _sql(column: str | Column | list[Column], major: int) -> str | None:
    if isinstance(column, str):
        return column
    choices = column if isinstance(column, list) else [column]
    return next((c.sql for c in choices if c.since <= major < c.before), None)


def _text(value: object) -> str:
    return "" if value is None else str(value)
