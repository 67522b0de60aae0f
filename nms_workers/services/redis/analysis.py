"""Bounded looks at the keys of a server: how many match, which are big, which prefixes and types hold the memory."""

import heapq
from collections import Counter
from collections.abc import Iterator

from redis.exceptions import ResponseError

from nms_workers.services.redis.connection import Server
from nms_workers.services.redis.results import KeyGroup, KeySize

_SCAN_COUNT = 1000
_BATCH = 200  # keys measured in one go: MEMORY USAGE of many large keys at once would hold the server up
OTHER = "other"


def scan(server: Server, limit: int, pattern: str = "") -> Iterator[tuple[list[str], bool]]:
    """Keys of the server's database in batches, and with the last whether it reached the end.

    Args:
        limit: about how many keys the server looks at; `SCAN` may name a key twice.
        pattern: a glob; default: every key.

    Raises:
        TargetError: as `Server.call`.
    """
    match = ("MATCH", pattern) if pattern else ()
    cursor = 0
    for looked in range(0, limit, _SCAN_COUNT):
        count = min(_SCAN_COUNT, limit - looked)
        cursor, keys = server.call("SCAN", cursor, *match, "COUNT", count)
        yield keys, cursor == 0
        if cursor == 0:
            return


def count_keys(server: Server, pattern: str, limit: int) -> tuple[int, bool]:
    """How many keys match, and whether the scan reached the end.

    Raises:
        TargetError: as `Server.call`.
    """
    found, complete = 0, False
    for keys, at_end in scan(server, limit, pattern):
        found, complete = found + len(keys), at_end
    return found, complete


class KeySizes:
    """Sums over keys whose memory was measured. Groups beyond `max_groups` are summed as `other`."""

    def __init__(self, separator: str = ":", max_groups: int = 1000) -> None:
        self.keys = 0
        self.bytes = 0
        self._separator, self._max_groups = separator, max_groups
        self._sizes: list[KeySize] = []
        self._prefixes: dict[str, Counter[str]] = {}
        self._types: dict[str, Counter[str]] = {}

    def measure(self, server: Server, sample: int) -> bool:
        """Measure about `sample` keys of a server; whether these were all.

        Raises:
            TargetError: as `Server.call`.
        """
        complete = False
        for keys, at_end in scan(server, sample):
            complete = at_end
            for start in range(0, len(keys), _BATCH):
                self._add(server, keys[start : start + _BATCH])
        return complete

    def biggest(self, top: int) -> tuple[KeySize, ...]:
        """The largest keys, largest first."""
        return tuple(heapq.nlargest(top, self._sizes, key=lambda one: one.bytes))

    def by_prefix(self) -> tuple[KeyGroup, ...]:
        """Sums by what stands before the separator, largest first; the name of keys without one is empty."""
        return _groups(self._prefixes)

    def by_type(self) -> tuple[KeyGroup, ...]:
        """Sums by type, largest first."""
        return _groups(self._types)

    def _add(self, server: Server, keys: list[str]) -> None:
        types = server.calls([("TYPE", key) for key in keys])
        sizes = server.calls([("MEMORY USAGE", key) for key in keys])
        for key, kind, size in zip(keys, types, sizes, strict=True):
            for answer in (kind, size):
                if isinstance(answer, ResponseError):
                    raise server.explain(answer, "MEMORY USAGE" if answer is size else "TYPE")
            if size is None:  # deleted since, or its name is no UTF-8
                continue
            self.keys += 1
            self.bytes += size
            self._sizes.append(KeySize(key, kind, size))
            prefix, found, _ = key.partition(self._separator)
            self._count(self._prefixes, prefix if found else "", size)
            self._count(self._types, kind, size)

    def _count(self, groups: dict[str, Counter[str]], name: str, size: int) -> None:
        name = name if name in groups or len(groups) < self._max_groups else OTHER
        groups.setdefault(name, Counter()).update(keys=1, bytes=size)


def _groups(sums: dict[str, Counter[str]]) -> tuple[KeyGroup, ...]:
    groups = [KeyGroup(name, one["keys"], one["bytes"]) for name, one in sums.items()]
    return tuple(sorted(groups, key=lambda group: -group.bytes))
