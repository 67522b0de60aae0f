"""Many agents read at once, by threads: gufo-snmp lets go of the interpreter while it waits."""

import contextvars
import queue
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from nms_workers.errors import NmsError, TargetError
from nms_workers.records import Record

C = TypeVar("C")

AT_ONCE = 32  # agents; most of the time each is waited for
_MARGIN = 1000  # records read and not yet taken


def together(
    clients: Mapping[str, C], read: Callable[[C], Iterable[Record]]
) -> Iterator[tuple[str, Record | NmsError]]:
    """The records of all clients as they come, and for a client that fails its error after them.

    Every thread works under the deadline of the caller. Who stops taking stops the threads at their next record.
    """
    done: queue.Queue[tuple[str, Record | NmsError] | str] = queue.Queue(_MARGIN)
    stopped = False

    def one(name: str, client: C) -> None:
        try:
            for record in read(client):
                if stopped:
                    return
                done.put((name, record))
        except NmsError as exc:
            done.put((name, exc))
        except Exception as exc:  # noqa: BLE001 - a fault of ours at one agent costs only that one
            done.put((name, TargetError(f"{type(exc).__name__}: {exc}")))
        finally:
            done.put(name)

    with ThreadPoolExecutor(min(AT_ONCE, len(clients)), thread_name_prefix="snmp") as pool:
        try:
            for name, client in clients.items():
                pool.submit(contextvars.copy_context().run, one, name, client)
            left = len(clients)
            while left:
                found = done.get()
                if isinstance(found, str):
                    left -= 1
                else:
                    yield found
        finally:
            stopped = True
            pool.shutdown(wait=False, cancel_futures=True)
            _drain(done)


def _drain(done: "queue.Queue[Any]") -> None:
    """Threads that wait to hand over go on."""
    while True:
        try:
            done.get_nowait()
        except queue.Empty:
            return
