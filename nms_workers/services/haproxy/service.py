"""HAProxy: what is polled, and the actions on servers and frontends."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from nms_workers.change import Change
from nms_workers.records import Record, Sample
from nms_workers.service import Service, action, poll
from nms_workers.services.haproxy import frontends, internals, membership, readings, servers
from nms_workers.services.haproxy.client import HaproxyClient
from nms_workers.services.haproxy.servers import Before, Server
from nms_workers.services.haproxy.target import HaproxyTarget, Name, Port, ServerAddress, State, Weight

Seconds = Annotated[float, Field(ge=0, le=600, allow_inf_nan=False)]
StoredWeight = Annotated[int, Field(ge=0, le=256)]


class Haproxy(Service):
    """Load balancing: statistics, process, sticky tables and certificates of HAProxy, and changes of its servers.

    A target is one process, reached by one or more of its statistics page (`url`), its stats socket (`socket`) and its
    Data Plane API (`dataplane`), version 2 or 3. The socket gives all of it, the page the statistics alone: where it is
    the only way, leave the other polls out with `skip = ["info", "tables", "certificates", "internals"]`, and the last
    of them where the Data Plane API is.

    Servers that are down, drained or in maintenance, backends that are down and frontends that are stopped are events
    that last until it is over. Actions change the running process; those that take `persist` change the configuration
    file as well, in a transaction of the Data Plane API, and follow the reload.
    """

    kind = "haproxy"
    Target = HaproxyTarget
    client = HaproxyClient
    port = 8404

    @poll(every="15s", enumerates=("frontend", "backend", "server", "listener", "statistics", *readings.ALARMS))
    def stats(self, client: HaproxyClient) -> Iterator[Record]:
        """Every number of every frontend, backend, server and listener, and the states that are alarms."""
        yield from readings.of_stats(client.get_stats(), client.target.max_objects, client.where)

    @poll(every="15s", enumerates=("process",))
    def info(self, client: HaproxyClient) -> Iterator[Record]:
        """The process: its limits, connections, memory, TLS and version."""
        yield from readings.of_info(client.get_info(), client.where)

    @poll(every="60s")
    def tables(self, client: HaproxyClient) -> Iterator[Record]:
        """How full the sticky tables are."""
        yield from readings.of_tables(client.get_tables(), client.target.max_tables)

    @poll(every="60s", volatile=True)
    def table_entries(self, client: HaproxyClient) -> Iterator[Record]:
        """What the sticky tables store of some keys, where `table_entries` wants them."""
        limit = client.target.table_entries
        for table in client.get_tables()[: client.target.max_tables] if limit else ():
            yield from readings.of_entries(table.name, client.get_table_entries(table.name, limit))

    @poll(every="1h", deadline="5m", enumerates=("certificate", "certificate_expiry"))
    def certificates(self, client: HaproxyClient) -> Iterator[Record]:
        """When the certificates end; those that end soon fire as events."""
        files = client.get_certificate_files()
        yield Sample("haproxy_certificates", len(files))
        shown = 0
        for shown, one in enumerate(client.get_certificates(), 1):  # noqa: B007 - how many there were
            yield from readings.of_certificate(one, client.target.certificate_days)
        yield Sample("haproxy_certificates_left_out", max(0, len(files) - shown))

    @poll(every="60s", enumerates=("internals",))
    def internals(self, client: HaproxyClient) -> Iterator[Record]:
        """What each thread does, and what each memory pool holds."""
        yield from internals.records(client.get_activity(), client.get_pools())

    @action(undo="restore_server", serialize_by="backend")
    def set_server_state(
        self, client: HaproxyClient, backend: Name, server: Name, state: State, even_last: bool = False
    ) -> Change:
        """Make a server ready, drain it (no new sessions), or put it into maintenance (no sessions, no checks).

        The last server of a backend that takes requests is left alone unless `even_last` is said.
        """
        return servers.set_state(Server(client, backend, server), state, even_last)

    @action(undo="restore_server", serialize_by="backend", deadline="180s")
    def set_weight(  # noqa: PLR0913, PLR0917 - the arguments of the job
        self,
        client: HaproxyClient,
        backend: Name,
        server: Name,
        weight: Weight,
        persist: bool = False,
        even_last: bool = False,
    ) -> Change:
        """Give a server a weight, 0 to 256, or a share of its configured one, 0% to 100%; `persist` in the file too."""
        return servers.set_weight(Server(client, backend, server), weight, persist, even_last)

    @action(undo="restore_server", serialize_by="backend", deadline="180s")
    def set_addr(  # noqa: PLR0913, PLR0917 - the arguments of the job
        self,
        client: HaproxyClient,
        backend: Name,
        server: Name,
        address: ServerAddress,
        port: Port | None = None,
        persist: bool = False,
    ) -> Change:
        """Let a server be at another address, and port; `persist` in the file too."""
        return servers.move(Server(client, backend, server), address, port, persist)

    @action(undo="remove_server", serialize_by="backend", deadline="180s")
    def add_server(  # noqa: PLR0913, PLR0917 - the arguments of the job
        self,
        client: HaproxyClient,
        backend: Name,
        server: Name,
        address: ServerAddress,
        port: Port,
        weight: StoredWeight | None = None,
        check: bool = True,
        ready: bool = True,
        persist: bool = False,
    ) -> Change:
        """Add a server to a backend, checked and ready for sessions; `persist` in the file too."""
        wanted = membership.Wanted(address, port, weight, check, ready)
        return membership.add(Server(client, backend, server), wanted, persist)

    @action(undo="restore_server", serialize_by="backend", deadline="900s", confirm=True)
    def remove_server(  # noqa: PLR0913, PLR0917 - the arguments of the job
        self,
        client: HaproxyClient,
        backend: Name,
        server: Name,
        wait: Seconds = 30.0,
        persist: bool = False,
        even_last: bool = False,
    ) -> Change:
        """Remove a server from a backend when its connections have ended, which takes `wait` seconds at most.

        Without `persist` a server of the configuration file is back after a reload. Taken back at run time it has its
        address, weight, checks and state, and no other options.
        """
        return membership.remove(Server(client, backend, server), wait, persist, even_last)

    @action(serialize_by="backend", deadline="180s")
    def restore_server(self, client: HaproxyClient, backend: Name, server: Name, before: Before) -> Change:
        """Make a server what it was before a change, which is what takes the changes above back."""
        return membership.restore(Server(client, backend, server), before)

    @action(undo="enable_frontend", serialize_by="frontend", confirm=True)
    def disable_frontend(self, client: HaproxyClient, frontend: Name) -> Change:
        """Let a frontend take no new connections; those it has go on."""
        return frontends.set_enabled(client, frontend, False)

    @action(undo="disable_frontend", serialize_by="frontend")
    def enable_frontend(self, client: HaproxyClient, frontend: Name) -> Change:
        """Let a disabled frontend take connections again."""
        return frontends.set_enabled(client, frontend, True)
