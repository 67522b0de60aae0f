"""FLUSHDB at a Valkey: a database for each action with one key in it, which the action deletes.

What the server saw comes from its own MONITOR (https://valkey.io/commands/monitor/).
"""

import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import redis

from nms_workers.bench.place import TARGETS, BenchError
from nms_workers.embedded import Redis
from nms_workers.jobs.wish import Wish
from nms_workers.service import service
from nms_workers.supervisor import Process

_LAST = "nms-workers-bench-is-over"
_TARGET = """
[[targets]]
service = "redis"
name = "t{}"
host = "127.0.0.1"
port = {}
password = "file:{}"
skip = {}
"""


class AtRedis:
    """A Valkey with `actions` databases.

    Args:
        folder: where its data lie.
    """

    def __init__(self, folder: Path, actions: int) -> None:
        self._server, self._actions = Redis(folder), actions
        self._server.prepare()
        self._flushed: dict[int, list[float]] = defaultdict(list)
        self._listening = threading.Event()
        more = ["--databases", str(actions), "--appendonly", "no"]
        self.process = Process("target", [*self._server.argv, *more], self._server.env, self._server.ready)

    def targets(self) -> str:
        """One server under several names."""
        server, skip = self._server, list(service("redis").polls())
        return "".join(_TARGET.format(n, server.port, server.folder.password_file, skip) for n in range(TARGETS))

    def wish(self, number: int) -> Wish:
        """Empty the database of this number."""
        target = f"t{number % TARGETS}"
        return Wish("redis", "flushdb", target, {"db": number, "confirm": target}, requested_by="bench")

    @contextmanager
    def watched(self) -> Iterator[None]:
        """What the server did before it answers the last command has been seen when the thread ends."""
        self._fill()
        thread = threading.Thread(target=self._listen, daemon=True)
        thread.start()
        if not self._listening.wait(10):
            raise BenchError("the target does not let itself be watched")
        try:
            yield
        finally:
            with redis.Redis.from_url(self._server.secret_url(), socket_timeout=10) as client:
                client.echo(_LAST)
            thread.join(10)

    def effects(self) -> Mapping[int, Sequence[float]]:
        """The moments of FLUSHDB."""
        return self._flushed

    def agrees(self, numbers: range) -> bool:
        """Every database is empty."""
        with redis.Redis.from_url(self._server.secret_url(), socket_timeout=30) as client:
            return not client.info("keyspace")

    def close(self) -> None:
        """Let go of the folder."""
        self._server.close()

    def _listen(self) -> None:
        with redis.Redis.from_url(self._server.secret_url()) as client, client.monitor() as monitor:
            self._listening.set()
            while True:
                seen = monitor.next_command()
                if seen["command"].endswith(_LAST):
                    return
                if seen["command"].upper().startswith("FLUSHDB"):
                    self._flushed[int(seen["db"])].append(float(seen["time"]))

    def _fill(self) -> None:
        url = self._server.secret_url()
        with redis.Redis.from_url(url, socket_timeout=30) as client, client.pipeline(transaction=False) as pipe:
            for number in range(self._actions):
                pipe.execute_command("SELECT", number)
                pipe.set("key", "value")
            pipe.execute_command("SELECT", 0)
            pipe.execute()
