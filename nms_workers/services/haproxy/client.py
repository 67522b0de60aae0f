"""The HAProxy client: reads and changes one process by its socket, its page or the Data Plane API. Usable alone.

client = HaproxyClient(HaproxyTarget(socket="/run/haproxy/admin.sock"))
for server in client.get_servers("web"):
    print(server.name, server.state)
client.close()
"""

from collections.abc import Iterator
from typing import TypeVar

from nms_workers.errors import Refused
from nms_workers.services.haproxy import answers, internals, stats
from nms_workers.services.haproxy.answers import Certificate, Info, ServerState, StickTable, TableEntry
from nms_workers.services.haproxy.dataplane import DataPlaneApi
from nms_workers.services.haproxy.page import StatsPage
from nms_workers.services.haproxy.runtime import RuntimeSocket, can_be_said, quoted
from nms_workers.services.haproxy.target import HaproxyTarget
from nms_workers.services.haproxy.transactions import Configuration

T = TypeVar("T")

_SOCKET = "set socket, or leave this poll out by skip,"
_READERS = "set socket or dataplane, or leave this poll out by skip,"


class HaproxyClient:
    """One HAProxy. Connects when first used; safe to share between threads.

    What can be read in more than one way is read by the socket, then by the Data Plane API, then from the page. Every
    method raises `Unreachable`, `Timeout`, `AuthError`, `ParseError` or `Refused`, which it also does when none of the
    ways that are set can do it.

    Attributes:
        socket, dataplane, configuration: the ways that are set; None otherwise.
    """

    def __init__(self, target: HaproxyTarget) -> None:
        self.target = target
        self.socket = RuntimeSocket(target.socket, target.socket_timeout) if target.socket else None
        self.dataplane = DataPlaneApi(target.dataplane) if target.dataplane else None
        self.configuration = Configuration(self.dataplane) if self.dataplane else None
        self._page = StatsPage(target) if target.url else None

    def close(self) -> None:
        """Let go of connections; the next use opens new ones."""
        for way in (self.dataplane, self._page):
            if way:
                way.close()

    @property
    def where(self) -> str:
        """What is read: the socket or a URL."""
        target = self.target
        return target.socket or (target.dataplane.url if target.dataplane else None) or target.url or "dataplane"

    def get_stats(self) -> list[stats.Row]:
        """Every frontend, backend, server and listener with its statistics, in this order.

        Listeners have statistics where their frontend has `option socket-stats`; the Data Plane API does not tell them.
        """
        if self.socket:
            return stats.from_csv(self.socket.ask("show stat"))
        if self.dataplane:
            return stats.from_native(self.dataplane.stats())
        return needed(self._page, "set url").rows()

    def get_info(self) -> Info:
        """The process: versions, limits, what it has done. Fields as `show info` names them, or the Data Plane API."""
        if self.socket:
            return answers.info(self.socket.ask("show info"))
        return needed(self.dataplane, _READERS).info()

    def get_backends(self) -> list[stats.Row]:
        """The backends with their statistics."""
        return [row for row in self.get_stats() if row.kind == "backend"]

    def get_servers(self, backend: str | None = None) -> list[stats.Row]:
        """The servers with their statistics, of one backend or of all.

        Raises:
            Refused: there is no such backend.
        """
        rows = self.get_stats()
        if backend is not None and not any(row.kind == "backend" and row.proxy == backend for row in rows):
            raise Refused(f"there is no backend {backend}", hint="see get_backends")
        return [row for row in rows if row.kind == "server" and backend in (None, row.proxy)]

    def get_servers_state(self, backend: str | None = None) -> list[ServerState]:
        """What servers were set to, and how they fare: of one backend, or of all.

        Raises:
            Refused: there is no such backend.
        """
        if self.socket:
            of = f" {quoted(backend)}" if backend else ""
            answer = self.socket.ask(f"show servers state{of}")
            if answer.startswith("Can't find backend"):
                raise Refused(f"there is no backend {backend}", hint="see get_backends")
            return answers.servers_state(answer)
        api = needed(self.dataplane, "set socket or dataplane")
        named = [row for row in stats.from_native(api.stats()) if row.kind == "backend"]
        if backend is not None and backend not in {row.proxy for row in named}:
            raise Refused(f"there is no backend {backend}", hint="see get_backends")
        names = [backend] if backend is not None else [row.proxy for row in named]
        return [server for name in names for server in api.servers(name)]

    def get_tables(self) -> list[StickTable]:
        """The sticky tables: how many entries they may hold, and hold."""
        if self.socket:
            return answers.stick_tables(self.socket.ask("show table"))
        return needed(self.dataplane, _READERS).stick_tables()

    def get_table_entries(self, table: str, limit: int = 100) -> list[TableEntry]:
        """At most `limit` entries of a sticky table; reading stops there.

        Raises:
            Refused: there is no such table.
        """
        if not self.socket:
            return needed(self.dataplane, _READERS).table_entries(table, limit)
        answer = self.socket.ask(f"show table {quoted(table)}", max_lines=limit + 1)
        if answer.startswith("No such table"):
            raise Refused(f"there is no sticky table {table}", hint="see get_tables")
        return list(answers.table_entries(answer))

    def get_certificate_files(self) -> list[str]:
        """The certificate files that are loaded."""
        if self.socket:
            return answers.certificate_files(self.socket.ask("show ssl cert"))
        return needed(self.dataplane, _READERS).certificate_files()

    def get_certificates(self) -> Iterator[Certificate]:
        """The certificates of these files, one request each, as they are read; at most `max_certificates`.

        Left out are bundles, which HAProxy cannot show, and files whose names cannot be written in a command.
        """
        for file in self.get_certificate_files()[: self.target.max_certificates]:
            if found := self._certificate(file):
                yield found

    def get_activity(self) -> dict[str, dict[str, int]]:
        """What each thread has done: field to number of the thread to number."""
        return internals.threads(needed(self.socket, _SOCKET).ask("show activity"))

    def get_pools(self) -> dict[str, dict[str, int]]:
        """The memory pools: name to `allocated` and `used` objects, `bytes` and `failures`."""
        return internals.pools(needed(self.socket, _SOCKET).ask("show pools"))

    def _certificate(self, file: str) -> Certificate | None:
        if not self.socket:
            return needed(self.dataplane, _READERS).certificate(file)
        if not can_be_said(file):
            return None
        answer = self.socket.ask(f"show ssl cert {quoted(file)}")
        return None if answer.startswith("Can't display") else answers.certificate(answer)


def needed(way: T | None, what: str) -> T:
    """A way that has to be set.

    Args:
        what: has to be done where it is not.

    Raises:
        Refused: it is not.
    """
    if way is None:
        hint = f"{what} in the target's settings"
        raise Refused("none of the ways to HAProxy that are set can do this", hint=hint)
    return way
