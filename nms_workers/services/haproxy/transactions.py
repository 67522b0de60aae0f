"""Changes of HAProxy's configuration file by the Data Plane API: all of one change or nothing of it.

A transaction begins at a version of the file. When somebody else changed the file meanwhile it is refused (409) and
begun anew. A change that HAProxy has to reload for is followed until the reload has ended; when it failed, what was
changed is put back.
"""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal
from urllib.parse import quote

import msgspec

from nms_workers.errors import Refused, TargetError, Timeout
from nms_workers.services.haproxy.dataplane import DataPlaneApi, NotThere, explained
from nms_workers.transport.deadline import remaining
from nms_workers.transport.http import Response

log = logging.getLogger(__name__)

Settings = dict[str, Any]
"""A server as the configuration has it, by the API's names: `address`, `port`, `weight`, `check` ..."""

Change = Callable[[str], object]
"""Makes its requests inside the transaction of this id."""

_ATTEMPTS = 5
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0  # seconds between two looks at a reload
_CONFLICT = 409


class _Transaction(msgspec.Struct):
    id: str
    status: str = ""


class _Reload(msgspec.Struct):
    status: Literal["failed", "in_progress", "succeeded"]
    response: str = ""


class _Wrapped(msgspec.Struct):
    data: Any


class _Outdated(Exception):
    """Somebody else changed the configuration meanwhile."""


class _ReloadFailed(Exception):
    """HAProxy did not take the new configuration; the message has its words."""


class Configuration:
    """The servers in HAProxy's configuration file.

    Every method raises what `DataPlaneApi` does; `Refused` when HAProxy did not take the configuration, or somebody
    else keeps changing it; `Timeout` when a reload takes too long.
    """

    def __init__(self, api: DataPlaneApi) -> None:
        self._api = api

    def server(self, backend: str, server: str) -> Settings | None:
        """A server as it is configured; None: it is not."""
        try:
            answer = self._api.call("GET", self._path(backend, server), self._of(backend))
        except NotThere:
            return None
        return dict(answer.json(_Wrapped).data if self._api.version() == 2 else answer.json(dict[str, Any]))

    def add(self, backend: str, server: str, settings: Settings) -> None:
        """Add a server."""
        body = {"name": server, **settings}
        self._commit(self._post(backend, body), self._delete(backend, server))

    def edit(self, backend: str, server: str, settings: Settings) -> None:
        """Change some settings of a server; the others stay.

        Raises:
            NotThere: it is not in the configuration.
        """
        self.replace(backend, server, self._found(backend, server) | settings)

    def replace(self, backend: str, server: str, settings: Settings) -> None:
        """Configure a server that is there with these settings and no others."""
        before = self._found(backend, server)
        self._commit(self._put(backend, settings | {"name": server}), self._put(backend, before))

    def delete(self, backend: str, server: str) -> Settings:
        """Delete a server; what was configured of it."""
        before = self._found(backend, server)
        self._commit(self._delete(backend, server), self._post(backend, before))
        return before

    def _found(self, backend: str, server: str) -> Settings:
        if (found := self.server(backend, server)) is None:
            hint = "was it added at run time? then change it without persist"
            raise NotThere(f"the configuration has no server {backend}/{server}", hint=hint)
        return found

    def _commit(self, change: Change, back: Change) -> None:
        try:
            self._run(change)
        except _ReloadFailed as failed:
            try:
                self._run(back)
            except (TargetError, _ReloadFailed) as exc:
                message = f"HAProxy did not take the new configuration ({failed}), and it could not be put back: {exc}"
                raise Refused(message, hint="the file differs from what runs: correct it before a restart") from None
            message = f"HAProxy did not take the new configuration, and it was put back: {failed}"
            raise Refused(message, hint="look at HAProxy's log") from None

    def _run(self, change: Change) -> None:
        """One transaction, begun anew when it was outdated."""
        for _ in range(_ATTEMPTS):
            try:
                response = self._attempt(change)
            except _Outdated:
                continue
            if response.status == 202:
                self._follow(response.headers.get("Reload-ID", ""))
            return
        hint = "try again later, and see who else changes it"
        raise Refused(f"somebody else changed the configuration {_ATTEMPTS} times while we tried", hint=hint)

    def _attempt(self, change: Change) -> Response:
        version = self._api.call("GET", "/configuration/version").json(int)
        begun = self._api.call("POST", "/transactions", {"version": version}, expect=(_CONFLICT,))
        if begun.status == _CONFLICT:
            raise _Outdated
        transaction = begun.json(_Transaction).id
        try:
            change(transaction)
            return self._end(transaction)
        except (TargetError, _Outdated):
            self._drop(transaction)
            raise

    def _end(self, transaction: str) -> Response:
        done = self._api.call("PUT", f"/transactions/{quote(transaction, safe='')}", expect=(_CONFLICT, 406))
        if done.status == _CONFLICT or (done.status == 406 and self._is_outdated(transaction)):
            raise _Outdated
        if done.status == 406:
            raise explained(done, "the commit")
        return done

    def _is_outdated(self, transaction: str) -> bool:
        found = self._api.call("GET", f"/transactions/{quote(transaction, safe='')}").json(_Transaction)
        return found.status == "outdated"

    def _drop(self, transaction: str) -> None:
        """Give a transaction up: there may only be so many."""
        try:
            self._api.call("DELETE", f"/transactions/{quote(transaction, safe='')}", expect=(404,))
        except TargetError as exc:
            log.warning("a transaction of the Data Plane API could not be given up: %s", exc)

    def _follow(self, reload: str) -> None:
        if not reload:
            return  # what it answers with where reloads are somebody else's
        limit = self._api.settings.reload_timeout
        ends, pause = time.monotonic() + limit, _FIRST_PAUSE
        while (now := self._api.call("GET", f"/reloads/{quote(reload, safe='')}").json(_Reload)).status != "succeeded":
            if now.status == "failed":
                raise _ReloadFailed(" ".join(now.response.split())[:300] or "without a word")
            if time.monotonic() >= ends:
                hint = "it goes on by itself: look at HAProxy's log, and raise reload_timeout"
                raise Timeout(f"the reload {reload:.40} has not ended in {limit:g} s", hint=hint)
            time.sleep(remaining(pause))
            pause = min(pause * 1.5, _LONGEST_PAUSE)

    def _post(self, backend: str, body: Settings) -> Change:
        return lambda id_: self._api.call("POST", self._path(backend), self._of(backend, id_), body)

    def _put(self, backend: str, body: Settings) -> Change:
        return lambda id_: self._api.call("PUT", self._path(backend, body["name"]), self._of(backend, id_), body)

    def _delete(self, backend: str, server: str) -> Change:
        return lambda id_: self._api.call("DELETE", self._path(backend, server), self._of(backend, id_))

    def _path(self, backend: str, server: str = "") -> str:
        version_2 = self._api.version() == 2
        servers = "servers" if version_2 else f"backends/{quote(backend, safe='')}/servers"
        return f"/configuration/{servers}" + (f"/{quote(server, safe='')}" if server else "")

    def _of(self, backend: str, transaction: str | None = None) -> Mapping[str, str | int | None]:
        parent = {"parent_name": backend, "parent_type": "backend"} if self._api.version() == 2 else {}
        return parent | ({"transaction_id": transaction} if transaction else {})
