"""The server that the service of the tests speaks to: JSON lines over TCP. It stalls, slows down, hangs up and counts.

It runs in the test's own process, so that a test can look at it and turn its knobs.
"""

import json
import select
import socket
import socketserver
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Self

PASSWORD = "horse staple battery"
VALUES = 8


@dataclass
class Behaviour:
    """How it answers one poll: seconds before each value, and after which value it stalls until released."""

    pause: float = 0.0
    stall_after: int | None = None
    hang_up_after: int | None = None


@dataclass
class Seen:
    """What it counted. Keys are target names, (target, poll), or names of effects."""

    connections: Counter[str] = field(default_factory=Counter)
    open: Counter[str] = field(default_factory=Counter)
    reads: Counter[tuple[str, str]] = field(default_factory=Counter)
    at_once: Counter[tuple[str, str]] = field(default_factory=Counter)
    most_at_once: Counter[tuple[str, str]] = field(default_factory=Counter)
    stalled: Counter[str] = field(default_factory=Counter)
    effects: Counter[str] = field(default_factory=Counter)
    refused: int = 0


class ProbeServer:
    """A context manager: it listens on `port` until its end."""

    def __init__(self) -> None:
        self.seen = Seen()
        self.polls: dict[str, Behaviour] = {}
        self.hold_effects = False  # answer `apply` only when released
        self._sequence = count(1)
        self._lock = threading.Lock()
        self._released = threading.Event()
        owner = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                owner.serve(self)

        class Listener(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True
            block_on_close = False

        self._listener = Listener(("127.0.0.1", 0), Handler)
        self.port: int = self._listener.server_address[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._listener.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._listener.shutdown()
        self._listener.server_close()

    def behave(self, poll: str, behaviour: Behaviour) -> None:
        """From its next read on, answer this poll so."""
        self.polls[poll] = behaviour

    def release(self) -> None:
        """Whoever is stalled goes on, and nobody stalls any more."""
        self.polls.clear()
        self.hold_effects = False
        self._released.set()
        self._released = threading.Event()

    def serve(self, handler: socketserver.StreamRequestHandler) -> None:
        """One connection."""
        target = ""
        try:
            for line in handler.rfile:
                request = json.loads(line)
                match request.pop("do"):
                    case "hello":
                        target = request["target"]
                        if not self._welcome(handler, target, request["password"]):
                            return
                    case "poll":
                        if not self._poll(handler, target, request["poll"]):
                            return
                    case "look":
                        self._say(handler, applied=self.seen.effects[request["effect"]] > 0)
                    case "apply":
                        self._apply(handler, request["effect"])
        except ConnectionError:
            return  # the worker was killed: that is what these tests are about
        finally:
            with self._lock:
                self.seen.open[target] -= bool(target)

    def _welcome(self, handler: socketserver.StreamRequestHandler, target: str, password: str) -> bool:
        good = password == PASSWORD
        with self._lock:
            self.seen.connections[target] += good
            self.seen.open[target] += 1
            self.seen.refused += not good
        self._say(handler, welcome=good)
        return good

    def _poll(self, handler: socketserver.StreamRequestHandler, target: str, poll: str) -> bool:
        key = (target, poll)
        with self._lock:
            sequence = next(self._sequence)
            self.seen.reads[key] += 1
            self.seen.at_once[key] += 1
            self.seen.most_at_once[key] = max(self.seen.most_at_once[key], self.seen.at_once[key])
        try:
            return self._answer(handler, poll, sequence)
        finally:
            with self._lock:
                self.seen.at_once[key] -= 1

    def _answer(self, handler: socketserver.StreamRequestHandler, poll: str, sequence: int) -> bool:
        how = self.polls.get(poll, Behaviour())
        self._say(handler, sequence=sequence)
        for index in range(VALUES):
            if index == how.stall_after:
                self._stall(handler, poll)
            if index == how.hang_up_after:
                return False
            if how.pause:
                _wait(handler.connection, how.pause)
            self._say(handler, value=float(sequence * 100 + index))
        self._say(handler, end=sequence)
        return True

    def _apply(self, handler: socketserver.StreamRequestHandler, effect: str) -> None:
        with self._lock:
            self.seen.effects[effect] += 1
        if self.hold_effects:
            self._stall(handler, effect)
        self._say(handler, done=True)

    def _stall(self, handler: socketserver.StreamRequestHandler, what: str) -> None:
        released = self._released
        with self._lock:
            self.seen.stalled[what] += 1
        while not released.is_set():
            _wait(handler.connection, 0.05)

    @staticmethod
    def _say(handler: socketserver.StreamRequestHandler, **answer: Any) -> None:
        handler.wfile.write(json.dumps(answer).encode() + b"\n")


def _wait(connection: socket.socket, seconds: float) -> None:
    """Let time pass. Who hung up is not served any more: ConnectionResetError."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if select.select([connection], [], [], left)[0] and not connection.recv(1, socket.MSG_PEEK):
            raise ConnectionResetError("the client hung up")
