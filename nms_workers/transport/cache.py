"""Answers kept for a while, so that polls that ask the same thing within seconds ask the target once."""

import threading
import time
from collections.abc import Callable, Hashable
from typing import Literal

from cachetools import Cache, LFUCache, LRUCache, TTLCache
from pydantic import BaseModel, Field, PositiveInt

from nms_workers.service import TargetSettings
from nms_workers.transport.response import Response


class CacheSettings(BaseModel):
    """What is kept, and for how long.

    Args:
        evict: which answer goes first when room is needed: the longest unused (`lru`), the least used (`lfu`), or what
            has expired and then the longest unused (`ttl`).
        seconds: an answer older than this is never used, whatever `evict` says.
        max_entries, max_bytes: bounds of one target's cache; bytes count the bodies.
    """

    model_config = TargetSettings.model_config

    evict: Literal["lru", "lfu", "ttl"] = "ttl"
    seconds: float = Field(default=10.0, gt=0, le=86_400)
    max_entries: PositiveInt = 256
    max_bytes: PositiveInt = 16 * 1024 * 1024


_Entry = tuple[float, Response]


class ResponseCache:
    """Thread-safe; bounded by entries and by bytes.

    Args:
        settings: bounds and order of eviction.
        clock: monotonic seconds.
    """

    def __init__(self, settings: CacheSettings, *, clock: Callable[[], float] = time.monotonic) -> None:
        # cachetools bounds one size. An entry counts at least an even share of the bytes, so both bounds hold.
        room, share = settings.max_bytes, settings.max_bytes / settings.max_entries

        def size(entry: _Entry) -> float:
            return max(share, len(entry[1].body))

        self._entries: Cache[Hashable, _Entry]
        if settings.evict == "ttl":
            self._entries = TTLCache(room, settings.seconds, timer=clock, getsizeof=size)
        else:
            self._entries = {"lru": LRUCache, "lfu": LFUCache}[settings.evict](room, getsizeof=size)
        self._seconds, self._clock = settings.seconds, clock
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Response | None:
        """The answer kept under `key`, unless it is too old."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            kept_at, response = entry
            if self._clock() - kept_at >= self._seconds:
                del self._entries[key]
                return None
            return response

    def put(self, key: Hashable, response: Response) -> None:
        """Keep the answer, unless it alone is larger than the whole cache."""
        with self._lock:
            entry = (self._clock(), response)
            if self._entries.getsizeof(entry) <= self._entries.maxsize:
                self._entries[key] = entry

    def clear(self) -> None:
        """Forget everything: after a change of the target, what was read before is no longer true."""
        with self._lock:
            self._entries.clear()

    def __len__(self) -> int:
        with self._lock:
            return len(self._entries)
