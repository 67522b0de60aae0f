"""Requests to a cluster by the official client of its version."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from nms_workers.errors import ParseError, Refused, Timeout, Unreachable
from nms_workers.services.elasticsearch.failures import EXPLAINED, Denied, explained
from nms_workers.services.elasticsearch.model import Root
from nms_workers.services.elasticsearch.target import ElasticsearchTarget
from nms_workers.transport.deadline import remaining
from nms_workers.transport.http import HttpClient

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

    from nms_workers.services.elasticsearch.api import Api

T = TypeVar("T")

_OLDEST = 8
_NEWEST = 9  # of the official clients; a later server answers it as 9 would
_TAGLINE = "You Know, for Search"


class Session:
    """Speaks to one cluster. Thread-safe. Asks for its version first, and takes the client that fits.

    `ask` and `api` raise, beside what `HttpClient` does:
        NotThere: no such object.
        Denied: the cluster said no; a `Refused` with the cluster's own word for why.
        ParseError: it is no Elasticsearch, or an answer of another shape.
    """

    def __init__(self, target: ElasticsearchTarget) -> None:
        self._target = target
        self._http = HttpClient(target, service="elasticsearch")
        self._lock = threading.Lock()
        self._root: Root | None = None
        self._api: Api | None = None

    def close(self) -> None:
        """Let go of connections; the next request asks for the version anew."""
        self._forget()
        self._http.close()

    def root(self, fresh: bool = False) -> Root:
        """Name and version of the cluster; as they were when it was first asked, unless `fresh`."""
        with self._alone():
            if self._root is None or fresh:
                root = self._ask_root()
                if self._root and self._root.version.release[0] != root.version.release[0]:
                    self._api = None
                self._root = root
            return self._root

    def api(self) -> "Api":
        """The official client for the version of this cluster."""
        major = self._target.major or self._major()
        with self._alone():
            if self._api is None:
                from nms_workers.services.elasticsearch.api import Api  # noqa: PLC0415 - see there

                self._api = Api(self._http, major)
            return self._api

    def ask(self, call: Callable[["Elasticsearch"], Any], shape: type[T]) -> T:
        """One request.

        Args:
            call: makes it: `lambda api: api.cluster.health()`.
            shape: what the answer must look like, any type msgspec knows.
        """
        with self.told() as api:
            answer = call(api.client).body
        try:
            return msgspec.convert(answer, shape)
        except msgspec.ValidationError as exc:
            hint = "this version of Elasticsearch may not be supported"
            raise ParseError(f"the cluster answered with JSON of another shape: {exc}", hint=hint) from None

    @contextmanager
    def told(self) -> Iterator["Api"]:
        """The official client; what it raises inside is raised as our own errors."""
        try:
            api = self.api()
            try:
                yield api
            except api.errors as exc:
                raise api.meaning(exc) from None
        except Unreachable:
            self._forget()  # it may come back as another version
            raise
        except Denied as exc:
            if exc.kind == "media_type_header_exception":
                self._forget()
            raise

    def _major(self) -> int:
        root = self.root()
        if root.version.build_flavor == "serverless":
            return _NEWEST
        major, _ = root.version.release
        if major < _OLDEST:
            raise Refused(f"Elasticsearch {root.version.number} is not supported", hint="8 and later are")
        return min(major, _NEWEST)

    def _ask_root(self) -> Root:
        answer = self._http.get("/", expect=EXPLAINED)
        if answer.status == 403:
            error = explained("GET", answer)
            error.hint += "; or set `major` in the target's settings, and nothing is asked that takes `monitor`"
            raise error
        if answer.status in EXPLAINED:
            raise explained("GET", answer)
        try:
            root = answer.json(Root)
        except ParseError as exc:
            hint = exc.hint if b"<" in answer.body[:1] else "check host and port in the url"
            raise ParseError(f"{answer.url} is no Elasticsearch: {exc.message}", hint=hint) from None
        if root.tagline != _TAGLINE or answer.headers.get("X-Elastic-Product") != "Elasticsearch":
            found = f"it is {root.version.distribution} {root.version.number}" if root.version.distribution else ""
            message = f"{answer.url} is no Elasticsearch 8 or later" + (f": {found}" if found else "")
            raise ParseError(message, hint="check host and port in the url")
        return root

    def _forget(self) -> None:
        with self._lock:
            self._root = self._api = None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One thread at a time, waiting no longer than the work at hand has time."""
        if not self._lock.acquire(timeout=remaining(self._target.timeout.total)):
            raise Timeout("another thread still asks for the cluster's version", hint="is the cluster overloaded?")
        try:
            yield
        finally:
            self._lock.release()
