"""A real HTTP server in this process whose routes may misbehave in any way a socket allows."""

import os
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


@dataclass(frozen=True)
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    headers: Message
    body: bytes
    port: int  # of the caller: the same port is the same connection


class Call(BaseHTTPRequestHandler):
    """One request, in the hands of a route."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "_Server"
    body: bytes

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:  # the client gave up, as it should
            self.close_connection = True

    def _route(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.partition("?")[0]
        self.server.seen.append(Seen(self.command, self.path, self.headers, self.body, self.client_address[1]))
        routes = self.server.routes
        (routes.get(path) or routes.get("*", lambda call: call.answer(404, b"no such page")))(self)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = _route  # noqa: N815 - http.server's names

    def answer(self, status: int = 200, body: bytes = b"{}", **headers: str) -> None:
        """A proper answer; underscores in header names stand for hyphens."""
        if status == 204 or self.command == "HEAD":
            body = b""
        head = {"Content-Length": str(len(body))} | {name.replace("_", "-"): text for name, text in headers.items()}
        self.send_response(status)
        for name, text in head.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    def drip(self, data: bytes) -> None:
        """One byte every 50 ms, until the client has enough of it."""
        for at in range(len(data)):
            self.wfile.write(data[at : at + 1])
            if self.server.over.wait(0.05):
                return

    def stall(self) -> None:
        """Nothing more, until the test is over."""
        self.server.over.wait(30)
        self.close_connection = True

    def hang_up(self) -> None:
        """Close in the orderly way."""
        self.close_connection = True

    def reset(self) -> None:
        """Close with RST."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())  # an orderly shutdown first would send FIN
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Silence."""


Route = Callable[[Call], object]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    context: ssl.SSLContext | None
    routes: Mapping[str, Route]
    seen: list[Seen]
    over: threading.Event

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.context:
            request = self.context.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
            try:
                request.do_handshake()
            except OSError:  # a handshake that was meant to fail
                _close_gently(socket.socket(fileno=request.detach()))
                return
        super().finish_request(request, client_address)
        if isinstance(request, ssl.SSLSocket):
            request.close()


def _close_gently(sock: socket.socket) -> None:
    """Closing with something unread sends RST, and RST overtakes the alert that says what was wrong."""
    with sock, suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
        sock.settimeout(2)
        while sock.recv(4096):
            pass


class Site:
    """A server with these routes, path to what it does; `*` is every other path.

    Listens on 127.0.0.1 as long as it is open.
    """

    def __init__(self, routes: Mapping[str, Route], context: ssl.SSLContext | None = None, port: int = 0) -> None:
        self._server = _Server(("127.0.0.1", port), Call)
        self._server.context, self._server.routes = context, routes
        self._server.seen, self._server.over = [], threading.Event()
        self.port = self._server.server_address[1]
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def seen(self) -> list[Seen]:
        """All requests so far."""
        return self._server.seen

    def close(self) -> None:
        self._server.over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> "Site":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
