"""A client for what the flow collector keeps: who talks to whom, how much, through what."""

import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from nms_workers.errors import Refused
from nms_workers.services.flows import queries
from nms_workers.services.flows.geoip import GeoIp
from nms_workers.services.flows.history import History, Row, ending
from nms_workers.services.flows.target import FlowsTarget
from nms_workers.store.flow_query import Answer, Filter, matrix, top
from nms_workers.transport.deadline import remaining

SETTLED = timedelta(seconds=10)  # a minute is whole in the history so long after its end: batches, and the way there
MAX_EVIDENCE = 50


class FlowsClient:
    """Reads the flows of one view. Times are aware datetimes, sizes bytes as scaled by sampling.

    Every method raises:
        Unreachable, Timeout, AuthError, Refused: as the PostgreSQL says that has the flows.
        ConfigError: where that is, is not said.
    """

    def __init__(self, target: FlowsTarget) -> None:
        self.target = target
        self._history = History(target)
        self._geoip: GeoIp | None = None

    def close(self) -> None:
        """Let go of the connections."""
        self._history.close()

    def top(
        self,
        by: Sequence[str],
        *,
        since: datetime,
        until: datetime | None = None,
        limit: int = 20,
        where: Filter | None = None,
    ) -> Answer:
        """The largest, by octets: `store.flow_query.top`. Rows of addresses have `country` and `as_name` where the
        target names databases, rows of ports have `service`.

        Raises:
            QueryError: there is no such thing to ask by, or what would be needed is not kept for so long.
            Refused: the view is one of some exporters, and `where` names none of these.
        """
        where = self._within(where)
        answer = self._asked(lambda: top(self._history.engine, by, since=since, until=until, limit=limit, where=where))
        return replace(answer, rows=[self._named(row) for row in answer.rows])

    def matrix(  # noqa: PLR0913 - every argument is a part of the question
        self,
        *,
        since: datetime,
        until: datetime | None = None,
        ipv4: int = 24,
        ipv6: int = 48,
        limit: int = 20,
        where: Filter | None = None,
    ) -> Answer:
        """Which networks of these prefix lengths talk to which: `store.flow_query.matrix`. It raises as `top`."""
        where = self._within(where)
        return self._asked(
            lambda: matrix(
                self._history.engine, since=since, until=until, ipv4=ipv4, ipv6=ipv6, limit=limit, where=where
            )
        )

    def exporters(self) -> list[Row]:
        """Each exporter: `exporter`, its address; `service` and `name` of the target that it is; `target_id`,
        `versions`, `first_seen`, `last_seen`, `datagrams`, `flows`, `lost`, `templates`.
        """
        oldest = datetime.now(UTC) - timedelta(seconds=self.target.forget_after)
        return self._rows(queries.EXPORTERS, oldest=oldest)

    def exporter_sums(self, since: datetime, until: datetime) -> dict[str, Row]:
        """What each exporter told of these minutes: `octets`, `packets`, `flows`."""
        return {row["exporter"]: row for row in self._rows(queries.EXPORTER_SUMS, since=since, until=until)}

    def interface_sums(self, since: datetime, until: datetime, most: int) -> list[Row]:
        """What went through each interface: `in_octets`, `in_packets`, `out_octets`, `out_packets`, `interface`
        (ifIndex), `exporter`, `target_id`, `told` (what the exporter calls it, or None), and `all_of_them`, how many
        there are; the `most` with the most.
        """
        return self._rows(queries.INTERFACE_SUMS, since=since, until=until, most=most)

    def interface_names(self, targets: Sequence[int]) -> dict[tuple[int, int], str]:
        """What the interfaces of SNMP targets are called, by target id and ifIndex."""
        rows = self._history.rows(queries.INTERFACES, targets=list(targets))
        return {(row["target_id"], int(row["index"])): row["key"] for row in rows if (row["index"] or "").isdecimal()}

    def interface_speeds(self, targets: Sequence[int]) -> dict[tuple[int, str], float]:
        """Bits a second of these interfaces, by target id and name, as SNMP told it within the last hour."""
        oldest = datetime.now(UTC) - timedelta(hours=1)
        rows = self._history.rows(queries.SPEEDS, targets=list(targets), oldest=oldest)
        return {(row["target_id"], row["key"]): row["speed"] for row in rows}

    def largest_conversations(self, since: datetime, until: datetime, most: int) -> list[Row]:
        """`exporter`, `source`, `destination`, `octets`."""
        return self._rows(queries.LARGEST_CONVERSATIONS, since=since, until=until, most=most)

    def past_of_conversations(self, some: Sequence[Row], since: datetime, until: datetime) -> list[Row]:
        """What these conversations had in each hour `ts`: `octets`."""
        columns = {f"{name}s": [row[name] for row in some] for name in ("exporter", "source", "destination")}
        return self._history.rows(queries.PAST_OF_CONVERSATIONS, since=since, until=until, **columns)

    def past_of_exporters(self, since: datetime, until: datetime) -> list[Row]:
        """What each exporter had in each hour `ts`: `octets`."""
        return self._rows(queries.PAST_OF_EXPORTERS, since=since, until=until)

    def flows_of(self, source: str, since: datetime) -> list[Row]:
        """What an address, or a network, sent: by exporter, destination, protocol and port, the most packets first."""
        return self._rows(queries.FLOWS_OF_SOURCE, source=source, since=since, most=MAX_EVIDENCE)

    def found_of(self, source: str, since: datetime) -> list[Row]:
        """The port scans and fan-outs that were found of an address: the latest of each."""
        return self._history.rows(queries.FOUND_OF_SOURCE, source=source, since=since)

    def country(self, address: str) -> str:
        """Where an address is, as ISO 3166 writes it; empty: it is not known, or the target names no database."""
        return self._places().country(address)

    def autonomous_system(self, address: str) -> tuple[int, str]:
        """Whose an address is, number and name; 0 and nothing: it is not known."""
        return self._places().autonomous_system(address)

    def _within(self, where: Filter | None) -> Filter:
        where = where or Filter()
        shown = self.target.exporters
        if shown and not any(where.exporter and where.exporter in network for network in shown):
            raise Refused(
                "this view shows some exporters, and the question names none of them",
                hint=f"name one: an address in {', '.join(map(str, shown[:5]))}",
            )
        return where

    def _asked(self, question: Callable[[], Answer]) -> Answer:
        remaining(self.target.statement_timeout)
        try:
            return question()
        except SQLAlchemyError as exc:
            raise ending(exc) from None

    def _named(self, row: Row) -> dict[str, Any]:
        named = dict(row)
        if row.get("port") is not None:
            named["service"] = service_name(row["port"], row.get("protocol"))
        for end in ("source", "destination"):
            if address := row.get(f"{end}_address"):
                if country := self.country(str(address)):
                    named[f"{end}_country"] = country
                if name := self.autonomous_system(str(address))[1]:
                    named[f"{end}_as_name"] = name
        return named

    def _places(self) -> GeoIp:
        if self._geoip is None:
            self._geoip = GeoIp(self.target.country, self.target.autonomous_systems)
        return self._geoip

    def _rows(self, query: Any, **parameters: object) -> list[Row]:
        return self._history.rows(query, networks=[str(one) for one in self.target.exporters], **parameters)


@lru_cache(maxsize=65_536)
def service_name(port: int, protocol: int | None) -> str:
    """What the system's table of services calls a port of TCP (6) or UDP (17), or of either; empty: nothing."""
    names = {6: ("tcp",), 17: ("udp",)}.get(protocol or 0, ("tcp", "udp"))
    for name in names:
        try:
            return socket.getservbyport(port, name)
        except (OSError, OverflowError):
            continue
    return ""
