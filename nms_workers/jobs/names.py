"""The addresses of host names, found with a time limit and kept for a while: a dead name server holds up no job."""

import logging
import socket
import time
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from queue import Empty, SimpleQueue
from threading import Lock, Thread

from cachetools import LRUCache, TTLCache

log = logging.getLogger(__name__)

Addresses = frozenset[IPv4Address | IPv6Address]

KEPT = 60.0  # seconds an answer is good for
FORGIVEN = 10.0  # seconds a name server that did not answer is not asked again
AT_ONCE = 128  # names: so many that no name server knows do not stand in the way of one that is in /etc/hosts
LONGEST_LIST = 10_000  # names
TOLD = 20  # names that one line of the log holds


class Names:
    """Names and their addresses, as the system resolves them (`/etc/hosts`, then DNS).

    The C library's look-up cannot be given a time limit, so it runs in threads that are left behind.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._fresh: TTLCache[str, Addresses] = TTLCache(LONGEST_LIST, KEPT)
        self._silent: TTLCache[str, bool] = TTLCache(LONGEST_LIST, FORGIVEN)
        self._last: LRUCache[str, Addresses] = LRUCache(LONGEST_LIST)

    def addresses(self, names: Iterable[str], limit: float) -> dict[str, Addresses | None]:
        """The addresses of each name: none when there is no such name. An address is its own name.

        Args:
            limit: seconds all of this may take.

        Returns:
            by name; where no name server answered in time the last addresses known, or None.
        """
        wanted = list(dict.fromkeys(names))[:LONGEST_LIST]
        literal = {name: address for name in wanted if (address := _literal(name))}
        with self._lock:
            looked_up = [name for name in wanted if name not in literal]
            asked = [name for name in looked_up if name not in self._fresh and name not in self._silent]
        answers = _ask(asked, limit)
        unknown = [name for name in asked if name not in answers]
        with self._lock:
            self._fresh.update(answers)
            self._last.update(answers)
            self._silent.update(dict.fromkeys(unknown, True))
            found = {name: self._fresh.get(name, self._last.get(name)) for name in looked_up}
        if unknown:
            log.warning("no name server said in time where these are: %s", ", ".join(unknown[:TOLD]))
        return literal | found


@lru_cache(LONGEST_LIST)
def _literal(text: str) -> Addresses:
    try:
        return frozenset((ip_address(text),))
    except ValueError:
        return frozenset()


def _ask(names: list[str], limit: float) -> dict[str, Addresses]:
    """What was answered in time."""
    todo: SimpleQueue[str] = SimpleQueue()
    done: SimpleQueue[tuple[str, Addresses | None]] = SimpleQueue()
    for name in names:
        todo.put(name)

    def work() -> None:
        while time.monotonic() < ends:
            try:
                name = todo.get_nowait()
            except Empty:
                return
            done.put((name, _look_up(name)))

    ends = time.monotonic() + limit
    for _ in range(min(AT_ONCE, len(names))):
        Thread(target=work, daemon=True, name="nms-names").start()
    found: dict[str, Addresses] = {}
    for _ in names:
        try:
            name, addresses = done.get(timeout=max(0.0, ends - time.monotonic()))
        except Empty:
            break
        if addresses is not None:
            found[name] = addresses
    return found


def _look_up(name: str) -> Addresses | None:
    """None: nobody could say."""
    try:
        answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except socket.gaierror as exc:
        return frozenset() if exc.errno in (socket.EAI_NONAME, socket.EAI_NODATA) else None
    except (OSError, UnicodeError):
        return None
    return frozenset(ip_address(str(answer[4][0]).partition("%")[0]) for answer in answers)
