"""The Data Plane API, versions 2 and 3: what it reads and changes in the running process.

Version 3 answers bare where version 2 wraps some answers as `{_version, data}`, and names a backend in the path where
version 2 does in the query. Changes of the configuration are in `transactions`.
Source: https://www.haproxy.com/documentation/dataplaneapi/, and the API's own description of itself.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypeVar
from urllib.parse import quote

import msgspec

from nms_workers.errors import ParseError, Refused, Unreachable
from nms_workers.services.haproxy.answers import Certificate, Info, ServerState, StickTable, TableEntry
from nms_workers.services.haproxy.stats import Native
from nms_workers.services.haproxy.target import DataPlane, State
from nms_workers.transport.http import HttpClient, Response

T = TypeVar("T")
Method = Literal["GET", "POST", "PUT", "DELETE"]

EXPLAINED = (400, 404, 406, 409, 422, 500)  # statuses whose words we tell
_HINTS = {
    404: "see get_backends and get_servers",
    409: "",
    500: "look at the log of the Data Plane API: can it speak to HAProxy's socket?",
}


class NotThere(Refused):
    """What was named does not exist there."""


class _Api(msgspec.Struct):
    version: str = ""


class _Root(msgspec.Struct):
    api: _Api


class _Error(msgspec.Struct):
    message: str = ""


class _Stats(msgspec.Struct):
    stats: list[Native] = []
    error: str = ""


class _Process(msgspec.Struct):
    info: dict[str, Any] | None = None
    error: str = ""


class _Server(msgspec.Struct):
    name: str
    address: str = ""
    port: int | None = None
    admin_state: State = "ready"
    operational_state: Literal["up", "down", "stopping"] | None = None


class _Listed(msgspec.Struct):
    name: str = ""
    storage_name: str = ""
    file: str = ""


class _Certificate(msgspec.Struct):
    not_before: datetime | None = None
    not_after: datetime | None = None
    subject: str = ""
    issuers: str = ""
    status: str = ""


class DataPlaneApi:
    """The API beside one HAProxy. Connects when first used; safe to share between threads.

    Every method raises what `HttpClient` does, `ParseError` when it is no Data Plane API, and `Refused` with the API's
    words; `NotThere` when what was named does not exist.
    """

    def __init__(self, settings: DataPlane) -> None:
        self.settings = settings
        self._http = HttpClient(settings, service="haproxy")
        self._version: int | None = None

    def close(self) -> None:
        """Let go of connections."""
        self._http.close()
        self._version = None

    def version(self) -> int:
        """Of the API: 3, or 2 where it has no 3. Asked once."""
        if self._version is None:
            self._version = self._ask_version()
        return self._version

    def call(
        self,
        method: Method,
        path: str,
        params: Mapping[str, str | int | None] | None = None,
        body: object = None,
        expect: Sequence[int] = (),
    ) -> Response:
        """One request, sent once.

        Args:
            path: below `/vN/services/haproxy`, its names quoted.
            params: the query.
            body: sent as JSON unless None.
            expect: statuses that the caller looks at itself.
        """
        where = f"/v{self.version()}/services/haproxy{path}"
        json: dict[str, Any] = {} if body is None else {"json": body}
        try:
            response = self._http.request(method, where, params=params or {}, expect=(*EXPLAINED, *expect), **json)
        except Unreachable:
            self._version = None  # it may come back as another
            raise
        if response.status in EXPLAINED and response.status not in expect:
            raise explained(response, f"{method} {path}")
        return response

    def stats(self) -> list[Native]:
        """The statistics of every frontend, backend and server."""
        answer = self.call("GET", "/stats/native")
        parts = answer.json(list[_Stats]) if self.version() == 2 else [answer.json(_Stats)]
        _told(part.error for part in parts)
        return [one for part in parts for one in part.stats]

    def info(self) -> Info:
        """The process, by the API's own names of the fields; the first one where there are several."""
        answer = self.call("GET", "/runtime/info")
        parts = answer.json(list[_Process]) if self.version() == 2 else [answer.json(_Process)]
        _told(part.error for part in parts)
        found = next((part.info for part in parts if part.info), None)
        if found is None:
            raise ParseError(f"{answer.url} tells of no process", hint="can the Data Plane API speak to HAProxy?")
        return {name: value for name, value in found.items() if isinstance(value, int | float | str)}

    def servers(self, backend: str) -> list[ServerState]:
        """The servers of a backend as they are now; their weights are not told."""
        answer = self.call("GET", self._servers(backend), self._of(backend)).json(list[_Server])
        return [
            ServerState(backend, one.name, one.address, one.port or 0, one.admin_state, one.operational_state)
            for one in answer
        ]

    def set_state(self, backend: str, server: str, state: State) -> None:
        """Set a server ready, to drain, or into maintenance."""
        self.call("PUT", self._server(backend, server), self._of(backend), {"admin_state": state})

    def add_server(self, backend: str, server: str, settings: Mapping[str, object]) -> None:
        """Add a server to the running process, in maintenance."""
        self.call("POST", self._servers(backend), self._of(backend), {"name": server, **settings})

    def delete_server(self, backend: str, server: str) -> None:
        """Delete a server from the running process; it must be in maintenance, without connections."""
        self.call("DELETE", self._server(backend, server), self._of(backend))

    def stick_tables(self) -> list[StickTable]:
        """The sticky tables."""
        return self.call("GET", "/runtime/stick_tables").json(list[StickTable])

    def table_entries(self, table: str, limit: int) -> list[TableEntry]:
        """At most so many entries of a sticky table."""
        if self.version() == 2:
            params: dict[str, str | int | None] = {"stick_table": table, "process": 1, "count": limit}
            answer = self.call("GET", "/runtime/stick_table_entries", params)
        else:
            path = f"/runtime/stick_tables/{quote(table, safe='')}/entries"
            answer = self.call("GET", path, {"count": limit})
        return [_entry(one) for one in answer.json(list[dict[str, Any]])[:limit]]

    def certificate_files(self) -> list[str]:
        """The names of the certificate files.

        Raises:
            Refused: it is version 2, which does not tell.
        """
        if self.version() == 2:
            raise Refused("version 2 of the Data Plane API does not tell certificates", hint="set socket as well")
        answer = self.call("GET", "/runtime/ssl_certs").json(list[_Listed])
        return [one.storage_name or one.file or one.name for one in answer]

    def certificate(self, file: str) -> Certificate | None:
        """One of them; None when its dates are not told."""
        one = self.call("GET", f"/runtime/ssl_certs/{quote(file, safe='')}").json(_Certificate)
        if one.not_before is None or one.not_after is None:
            return None
        return Certificate(file, one.not_before, one.not_after, one.subject, one.issuers, one.status)

    def _ask_version(self) -> int:
        for version in (3, 2):
            answer = self._http.get(f"/v{version}/info", expect=(404,))
            if answer.status != 404:
                answer.json(_Root)
                return version
        raise ParseError(f"{answer.url} is no Data Plane API", hint="check host and port in the url of dataplane")

    def _servers(self, backend: str) -> str:
        return "/runtime/servers" if self.version() == 2 else f"/runtime/backends/{quote(backend, safe='')}/servers"

    def _server(self, backend: str, server: str) -> str:
        return f"{self._servers(backend)}/{quote(server, safe='')}"

    def _of(self, backend: str) -> dict[str, str | int | None]:
        return {"backend": backend} if self.version() == 2 else {}


def explained(response: Response, what: str) -> Refused:
    """That the API said no, in its words."""
    try:
        words = response.json(_Error).message
    except ParseError:
        words = ""
    words = " ".join("".join(c if c.isprintable() else " " for c in words[:600]).split())[:300]
    kind = NotThere if response.status == 404 else Refused
    said = f"the Data Plane API answered {what} with {response.status}" + (f": {words}" if words else "")
    return kind(said, hint=_HINTS.get(response.status, ""))


def _told(errors: Any) -> None:
    if found := next(filter(None, errors), ""):
        raise Refused(f"the Data Plane API cannot ask HAProxy: {found:.200}", hint=_HINTS[500])


def _entry(one: Mapping[str, Any]) -> TableEntry:
    data = {name: float(value) for name, value in one.items() if type(value) is int and name not in ("exp", "use")}
    return TableEntry(str(one.get("key", "")), data)
