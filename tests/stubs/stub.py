"""What the stubs share: a server of one vendor's HTTP API that keeps state, on real sockets.

A subclass keeps its state in attributes and answers in methods marked with `route`. Given the vendor's description it
checks every request that arrives, and its own answers too; `close()` fails the test that sent or got a wrong one.
"""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar

from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from tests.contract.vendor import Contract

F = TypeVar("F", bound=Callable[..., Any])


def route(path: str, *methods: str) -> Callable[[F], F]:
    """Mark a method as the answer to a path (werkzeug's rules: `/api/dashboards/uid/<uid>`); default: GET.

    The method takes the request and the names of the path, and returns JSON, `(JSON, status)` or a `Response`.
    """

    def mark(method: F) -> F:
        method.__routes__ = [*getattr(method, "__routes__", ()), (path, methods or ("GET",))]  # type: ignore[attr-defined]
        return method

    return mark


class Stub:
    """Listens at `listens_at` as long as it is open; port 0: at a free one. Thread-safe: one request at a time.

    Args:
        contract: the vendor's description; None: nothing is checked.
    """

    listens_at: ClassVar[tuple[str, int]] = ("127.0.0.1", 0)
    unchecked: ClassVar[Mapping[str, str]] = {}  # path prefix to why the description cannot check it

    def __init__(self, contract: Contract | None = None) -> None:
        self.seen: list[Request] = []
        self.violations: list[str] = []
        self._contract = contract
        self._lock = threading.Lock()
        named = ((name, getattr(type(self), name)) for name in dir(type(self)))
        marked = [(name, *one) for name, method in named for one in getattr(method, "__routes__", ())]
        self._rules = Map([Rule(path, endpoint=name, methods=methods) for name, path, methods in marked])
        self._listen(self.listens_at[1])
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def refuse(self, request: Request) -> Any | None:
        """An answer to who may not ask, such as `({"message": "Unauthorized"}, 401)`; None: go on."""

    @contextmanager
    def away(self) -> Iterator[None]:
        """Listen to nobody meanwhile; what it keeps stays, and so does its port."""
        self._stop_listening()
        try:
            yield
        finally:
            self._listen(self.port)

    def close(self) -> None:
        """Stop. Fails when a request or an answer was not as the vendor describes."""
        self._stop_listening()
        if self.violations:
            raise AssertionError("not as the vendor describes: " + "; ".join(self.violations))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def paths(self, method: str = "") -> list[str]:
        """The paths of all requests so far, with their queries."""
        return [one.full_path.rstrip("?") for one in self.seen if method in ("", one.method)]

    def _listen(self, port: int) -> None:
        self._server = make_server(self.listens_at[0], port, self._answer, threaded=True, request_handler=_Silent)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def _stop_listening(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, environ: Any, start_response: Any) -> Any:
        request = Request(environ)
        request.get_data()  # read now, whoever asks later
        with self._lock:
            self.seen.append(request)
            response = self._route(request)
            described = self._contract and not any(request.path.startswith(one) for one in self.unchecked)
            if self._contract and described:
                self.violations += self._contract.faults(request, response)
        return response(environ, start_response)

    def _route(self, request: Request) -> Response:
        if (refusal := self.refuse(request)) is not None:
            return as_response(refusal)
        try:
            name, arguments = self._rules.bind_to_environ(request.environ).match()
            return as_response(getattr(self, name)(request, **arguments))
        except HTTPException as exc:
            return Response(json.dumps({"message": exc.name}), exc.code, content_type="application/json")


def as_response(answer: Any) -> Response:
    """A response from JSON, `(JSON, status)` or a response."""
    if isinstance(answer, Response):
        return answer
    body, status = answer if isinstance(answer, tuple) else (answer, 200)
    return Response(b"" if status == 204 else json.dumps(body), status, content_type="application/json")


class _Silent(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_: Any) -> None:
        """Nothing to the terminal."""
