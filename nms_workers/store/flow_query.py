"""Reading flows: who talks to whom. Every answer is bounded, and says what it was read from.

A question about the keys of one kind of roll-up is answered from the roll-ups, any other one from the flows themselves,
which are kept for a day only. A minute counts where its flows were received.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import NamedTuple

from psycopg.errors import QueryCanceled
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from nms_workers.store import partitions
from nms_workers.store.flow_columns import FLOW_COLUMNS, FOR_LARGE_SETS, KEY_COLUMNS, KINDS, MEASURES, unfolded
from nms_workers.store.query import MAX_ROWS, QueryError, Row

# What can be asked for: the columns of an answer.
BY: dict[str, tuple[str, ...]] = {
    "src": ("source_address",),
    "dst": ("destination_address",),
    "conversation": ("source_address", "destination_address"),
    "port": ("protocol", "port"),
    "protocol": ("protocol",),
    "as": ("source_as", "destination_as"),
    "src_as": ("source_as",),
    "dst_as": ("destination_as",),
    "interface": ("exporter", "interface", "direction"),
    "exporter": ("exporter",),
}
# From the finest level to the coarsest, and how far back each is asked.
_REACH = {"1m": timedelta(hours=6), "5m": timedelta(days=2), "1h": timedelta(days=100_000)}
_WIDTHS = {
    "raw": timedelta(minutes=1),
    "1m": timedelta(minutes=1),
    "5m": timedelta(minutes=5),
    "1h": timedelta(hours=1),
}
_TABLES = {"raw": "flow_blocks"} | {level: f"flow_rollup_blocks_{level}" for level in ("1m", "5m", "1h")}

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which flows are meant: those that fit all that is given.

    Args:
        src, dst: where they come from, and go to.
        host: either of the two.
        protocol: IANA number.
        port: the port they are about, `flow_rollups.service_port`.
        interface: ifIndex of the way in or out.
        src_as, dst_as: numbers.
    """

    exporter: IPv4Address | IPv6Address | None = None
    src: Network | None = None
    dst: Network | None = None
    host: Network | None = None
    protocol: int | None = None
    port: int | None = None
    interface: int | None = None
    src_as: int | None = None
    dst_as: int | None = None

    def given(self) -> dict[str, object]:
        """What is given, by name."""
        return {one.name: value for one in fields(self) if (value := getattr(self, one.name)) is not None}


class _Condition(NamedTuple):
    sql: str
    columns: tuple[str, ...]


_CONDITIONS = {
    "exporter": _Condition("exporter = CAST(:exporter AS inet)", ()),
    "src": _Condition("source_address <<= CAST(:src AS inet)", ("source_address",)),
    "dst": _Condition("destination_address <<= CAST(:dst AS inet)", ("destination_address",)),
    "host": _Condition(
        "(source_address <<= CAST(:host AS inet) OR destination_address <<= CAST(:host AS inet))",
        ("source_address", "destination_address"),
    ),
    "protocol": _Condition("protocol = :protocol", ("protocol",)),
    "port": _Condition("port = :port", ("port",)),
    "interface": _Condition("interface = :interface", ("interface", "direction")),
    "src_as": _Condition("source_as = :src_as", ("source_as",)),
    "dst_as": _Condition("destination_as = :dst_as", ("destination_as",)),
}


@dataclass(frozen=True)
class Answer:
    """What was found.

    Args:
        rows: the largest by scaled octets: the columns asked for, `octets`, `packets`, `flows`, `octets_scaled`,
            `packets_scaled`, and `share` of the total of scaled octets (of the same direction, by interface). With
            `exporter` there is `target`, with `interface` there is `name`, null where they are not known.
        total: the same measures of all that the question is about.
        others: of it, what the roll-ups keep no keys of; it is in no row.
        source: `raw`, or the coarsest of the roll-ups that were read: `1m`, `5m`, `1h`.
        since, until: what was read, in whole windows of the source.
    """

    rows: list[Row]
    total: dict[str, int]
    others: dict[str, int]
    source: str
    since: datetime
    until: datetime


def top(  # noqa: PLR0913 - every argument but the engine is a part of the question
    engine: Engine,
    by: Sequence[str],
    *,
    since: datetime,
    until: datetime | None = None,
    limit: int = 20,
    where: Filter | None = None,
    retention: partitions.Retention | None = None,
) -> Answer:
    """The largest, by scaled octets.

    Args:
        by: of `BY`, one or several.
        since, until: aware; until when default: now.
        retention: how long a table's rows are kept, where it is not as in `partitions.TABLES`.

    Raises:
        QueryError: there is no such thing to ask by, or what would be needed is not kept for so long.
    """
    unknown = [one for one in by if one not in BY]
    if unknown or not by:
        raise QueryError(f"flows cannot be asked by {', '.join(unknown) or 'nothing'}", hint="by " + ", ".join(BY))
    columns = tuple(dict.fromkeys(column for one in by for column in BY[one]))
    asked = _Question(columns, where or Filter(), since, until or datetime.now(UTC), limit, retention)
    return _ask(engine, asked, {column: column for column in columns})


def matrix(  # noqa: PLR0913 - every argument but the engine is a part of the question
    engine: Engine,
    *,
    since: datetime,
    until: datetime | None = None,
    ipv4: int = 24,
    ipv6: int = 48,
    limit: int = 50,
    where: Filter | None = None,
    retention: partitions.Retention | None = None,
) -> Answer:
    """Which networks talk to which: `source_network` and `destination_network`, the largest pairs.

    Args:
        ipv4, ipv6: prefix lengths of these networks.

    Raises:
        QueryError: as `top`.
    """
    if not (0 <= ipv4 <= 32 and 0 <= ipv6 <= 128):
        raise QueryError("a prefix length is out of range", hint="0 to 32 for IPv4, 0 to 128 for IPv6")
    columns = BY["conversation"]
    asked = _Question(columns, where or Filter(), since, until or datetime.now(UTC), limit, retention)
    told = {
        f"{end}_network": f"network(set_masklen({end}_address, CASE family({end}_address) WHEN 4 THEN {ipv4} "
        f"ELSE {ipv6} END))"
        for end in ("source", "destination")
    }
    return _ask(engine, asked, told)


def exporters(engine: Engine, *, since: datetime | None = None) -> list[Row]:
    """Who sends flows, the newest first.

    Args:
        since: from then on rates are measured; default: the last five minutes.

    Returns:
        `exporter`, `target`, `versions`, `first_seen`, `last_seen`, `datagrams`, `flows`, `lost` (all since the first),
        `templates`, and `flows_per_second`, `octets_per_second`, `packets_per_second` (scaled).
    """
    now = datetime.now(UTC)
    begins = _floor(since or now - timedelta(minutes=5), _WIDTHS["1m"])
    with engine.connect() as connection:
        rows = connection.execute(_EXPORTERS, {"since": begins, "seconds": (now - begins).total_seconds()}).mappings()
        return [dict(row) | {"exporter": str(row["exporter"])} for row in rows]


_EXPORTERS = text(
    """
    SELECT known.address AS exporter, targets.name AS target, versions, known.first_seen, known.last_seen, datagrams,
        known.flows, lost, templates, coalesce(rates.flows, 0) / CAST(:seconds AS float8) AS flows_per_second,
        coalesce(rates.octets, 0) / CAST(:seconds AS float8) AS octets_per_second,
        coalesce(rates.packets, 0) / CAST(:seconds AS float8) AS packets_per_second
    FROM flow_exporters AS known
    LEFT JOIN targets ON targets.id = known.target_id
    LEFT JOIN (
        SELECT exporter, sum(flows) AS flows, sum(octets_scaled) AS octets, sum(packets_scaled) AS packets
        FROM flow_rollups_1m WHERE kind = 'ingress' AND ts >= :since GROUP BY exporter
    ) AS rates ON rates.exporter = known.address
    ORDER BY known.last_seen DESC, known.address
    LIMIT 10000
    """
)


class _Question(NamedTuple):
    columns: tuple[str, ...]
    where: Filter
    since: datetime
    until: datetime
    limit: int
    retention: partitions.Retention | None

    @property
    def needed(self) -> set[str]:
        """Columns that must be there."""
        given = (_CONDITIONS[name].columns for name in self.where.given())
        return {*self.columns, *(column for some in given for column in some)} - {"exporter"}

    def kinds(self) -> tuple[str, ...]:
        """The kinds of roll-up that answer it; none: only the flows do."""
        needed = self.needed
        if "direction" in needed:
            return ("ingress", "egress") if needed == {"interface", "direction"} else ()
        return tuple(kind for kind, keys in KINDS.items() if needed <= set(keys))[:1]


def _ask(engine: Engine, asked: _Question, told: Mapping[str, str]) -> Answer:
    if not 1 <= asked.limit <= MAX_ROWS:
        raise QueryError(f"a limit of {asked.limit} is out of range", hint=f"1 to {MAX_ROWS}")
    kinds, source = asked.kinds(), _source(asked)
    since = _floor(asked.since, _WIDTHS[source])
    members = _rollup_members(source, kinds) if kinds else _raw_members(asked)
    statement = text(_statement(asked, told, members))
    given = asked.where.given()
    values: dict[str, object] = {name: one if isinstance(one, int) else str(one) for name, one in given.items()}
    values |= {"since": since, "until": asked.until, "limit": asked.limit + 2, "kinds": list(kinds)}
    try:
        with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
            connection.execute(text(FOR_LARGE_SETS))
            rows = [dict(row) for row in connection.execute(statement, values).mappings()]
            answer = _answer(rows, list(told), asked, source, since)
            _name(connection, answer.rows)
    except OperationalError as exc:
        if not isinstance(exc.orig, QueryCanceled):
            raise
        hint = "ask for less time" if kinds else "ask for less time, or by the keys of one roll-up"
        raise QueryError("to read so many flows takes too long", hint=hint) from None
    return answer


def _source(asked: _Question) -> str:
    """The level to read, by how far back the question goes."""
    now = datetime.now(UTC)
    if not asked.kinds():
        if not partitions.kept("flow_blocks", asked.since, now, asked.retention):
            raise QueryError(
                f"only the flows themselves could tell, and they are not kept since {asked.since:%Y-%m-%d %H:%M} UTC",
                hint="ask for less time, or only by src and dst, by port, by as, or by interface",
            )
        return "raw"
    there = [level for level in _REACH if partitions.kept(_TABLES[level], asked.since, now, asked.retention)]
    return next((level for level in there if now - asked.since <= _REACH[level]), "1h")


def _rollup_members(source: str, kinds: Sequence[str]) -> str:
    """One row a key and window: each window from the coarsest level that has all of it."""
    levels = list(_REACH)[: list(_REACH).index(source) + 1]
    parts = []
    for level, finer, coarser in zip(levels, (None, *levels), (*levels[1:], None), strict=False):
        due = [_due(level, "NOT EXISTS")] if finer else []
        due += [_due(coarser, "EXISTS")] if coarser else []
        parts.append(
            f"SELECT exporter, CASE kind WHEN 'egress' THEN 'out' ELSE 'in' END AS direction, "  # noqa: S608
            f"{', '.join(column.name for column in KEY_COLUMNS)}, {', '.join(MEASURES)} "
            f"FROM flow_rollups_{level} AS one WHERE kind = ANY(:kinds) AND ts >= :since AND ts < :until"
            + "".join(f" AND {one}" for one in due)
        )
    return " UNION ALL ".join(parts)


def _due(level: str, how: str) -> str:
    width = f"{_WIDTHS[level].total_seconds():.0f} seconds"
    return (
        f"{how} (SELECT FROM flow_rollup_due AS due WHERE due.level = '{level}' AND due.exporter = one.exporter "
        f"AND due.ts = date_bin('{width}', one.ts, '2000-01-01Z'))"
    )


_FLOW = {column.name: column for column in FLOW_COLUMNS}
_DERIVED = {
    "port": (
        "CASE WHEN least(source_port, destination_port) > 0 THEN least(source_port, destination_port) "
        "ELSE greatest(source_port, destination_port) END AS port",
        ("source_port", "destination_port"),
    ),
    "interface": ("way.interface", ("ingress_interface", "egress_interface")),
    "direction": ("way.direction", ()),
}


def _raw_members(asked: _Question) -> str:
    """One row a flow, and one for each way where interfaces are asked for. Only what is needed is unfolded."""
    derived = [_DERIVED.get(name, (name, (name,))) for name in sorted(asked.needed)]
    read = dict.fromkeys([*(name for _, names in derived for name in names), *(m for m in MEASURES if m in _FLOW)])
    by_exporter = "AND exporter = CAST(:exporter AS inet)" if asked.where.exporter else ""
    ways = (
        "CROSS JOIN LATERAL (VALUES ('in', ingress_interface), ('out', egress_interface)) AS way (direction, interface)"
    )
    return (
        f"SELECT {', '.join(['exporter', *(sql for sql, _ in derived)])}, octets, packets, 1 AS flows, octets_scaled, "  # noqa: S608
        f"packets_scaled FROM (SELECT exporter, {', '.join(unfolded(_FLOW[name]) for name in read)} FROM flow_blocks "
        f"WHERE received >= :since AND received < :until {by_exporter}) AS flow "
        f"{ways if 'interface' in asked.needed else ''}"
    )


def _statement(asked: _Question, told: Mapping[str, str], members: str) -> str:
    by = [name for name in told if name not in ("exporter", "direction")]
    where = " AND ".join(_CONDITIONS[name].sql for name in asked.where.given()) or "true"
    window = "OVER (PARTITION BY direction)" if "direction" in told else "OVER ()"
    keys = ", ".join(f"{sql} AS {name}" for name, sql in told.items())
    sums = ", ".join(f"sum({name}) AS {name}" for name in MEASURES)
    numbers = ", ".join(str(place) for place in range(1, len(told) + 1))
    others = f"num_nonnulls({', '.join(by)}) = 0" if by else "false"
    totals = ", ".join(f"sum({name}) {window} AS total_{name}" for name in MEASURES)
    left = ", ".join(f"sum({name}) FILTER (WHERE {others}) {window} AS others_{name}" for name in MEASURES)
    return (
        f"WITH member AS ({members}), grouped AS (SELECT {keys}, {sums} FROM member WHERE {where} GROUP BY {numbers}), "  # noqa: S608
        f"ranked AS (SELECT *, {others} AS is_others, {totals}, {left} FROM grouped) "
        f"SELECT * FROM ranked ORDER BY is_others DESC, octets_scaled DESC, {numbers} LIMIT :limit"
    )


def _answer(rows: Sequence[Row], keys: Sequence[str], asked: _Question, source: str, since: datetime) -> Answer:
    first: Row = max(rows, key=lambda row: row["total_octets_scaled"], default={})
    total = {name: int(first.get(f"total_{name}") or 0) for name in MEASURES}
    others = {name: int(first.get(f"others_{name}") or 0) for name in MEASURES}
    found = []
    for row in [one for one in rows if not one["is_others"]][: asked.limit]:
        of = int(row["total_octets_scaled"])
        told: Row = {key: str(row[key]) if _is_address(key) else row[key] for key in keys}
        told |= {name: int(row[name]) for name in MEASURES}
        found.append(told | {"share": told["octets_scaled"] / of if of else 0.0})
    return Answer(found, total, others, source, since, asked.until)


def _is_address(key: str) -> bool:
    return key == "exporter" or key.endswith(("_address", "_network"))


_NAMES = text(
    """
    SELECT known.address AS exporter, targets.name AS target, CAST(port.attributes ->> 'index' AS text) AS index,
        coalesce(nullif(port.attributes ->> 'name', ''), port.key) AS name
    FROM flow_exporters AS known
    JOIN targets ON targets.id = known.target_id
    LEFT JOIN entities AS port ON port.target_id = targets.id AND port.kind = 'interface' AND port.gone_at IS NULL
        AND port.attributes ->> 'index' = ANY(CAST(:indices AS text[]))
    WHERE known.address = ANY(CAST(:exporters AS inet[]))
    """
)


_TOLD = text(
    """
    SELECT address, key AS index, value AS name FROM flow_exporters, jsonb_each_text(interfaces)
    WHERE address = ANY(CAST(:exporters AS inet[])) AND key = ANY(CAST(:indices AS text[]))
    """
)


def _name(connection: Connection, rows: Sequence[Row]) -> None:
    """Add what exporters and interfaces are called: by their targets, else by what the exporter itself told."""
    with_exporter = [row for row in rows if "exporter" in row]
    if not with_exporter:
        return
    asked = {
        "exporters": sorted({row["exporter"] for row in with_exporter}),
        "indices": sorted({str(row["interface"]) for row in with_exporter if row.get("interface") is not None}),
    }
    targets: dict[str, str] = {}
    interfaces = {(str(address), index): name for address, index, name in connection.execute(_TOLD, asked)}
    for address, target, index, name in connection.execute(_NAMES, asked):
        targets[str(address)] = target
        if index is not None:
            interfaces[str(address), index] = name
    for row in with_exporter:
        row["target"] = targets.get(row["exporter"])
        if "interface" in row:
            row["name"] = interfaces.get((row["exporter"], str(row["interface"])))


def _floor(moment: datetime, width: timedelta) -> datetime:
    epoch = datetime(2000, 1, 1, tzinfo=UTC)
    return epoch + (moment - epoch) // width * width
