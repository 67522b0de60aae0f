"""Bounds, age and order of eviction of the cache, and its use by many threads."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from nms_workers.transport.cache import CacheSettings, ResponseCache
from nms_workers.transport.response import Response


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def response(size: int = 10) -> Response:
    return Response(status=200, headers={}, body=b"x" * size, url="http://x")


def cache(clock: Clock | None = None, **options: Any) -> ResponseCache:
    return ResponseCache(CacheSettings(**options), clock=clock or Clock())


@pytest.mark.parametrize("evict", ["lru", "lfu", "ttl"])
def test_age(evict: str) -> None:
    clock = Clock()
    kept = cache(clock, evict=evict, seconds=10)
    kept.put("a", response())
    clock.now += 9.9
    assert kept.get("a") == response()
    clock.now += 0.2
    assert kept.get("a") is None
    assert len(kept) == 0


@pytest.mark.parametrize(
    ("evict", "used", "gone"),
    [("lru", "bbca", "b"), ("lfu", "aabbc", "c"), ("ttl", "bbca", "b")],
)
def test_what_goes_first(evict: str, used: str, gone: str) -> None:
    kept = cache(evict=evict, seconds=10, max_entries=3)
    for key in "abc":
        kept.put(key, response())
    for key in used:
        kept.get(key)
    kept.put("d", response())
    assert [key for key in "abcd" if kept.get(key) is None] == [gone]


@pytest.mark.parametrize("evict", ["lru", "lfu", "ttl"])
@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 1000])
def test_both_bounds_hold(evict: str, size: int) -> None:
    kept = cache(evict=evict, max_entries=7, max_bytes=700)
    for key in range(100):
        kept.put(key, response(size))
        assert len(kept) <= 7
        assert len(kept) * size <= 700
    assert len(kept) == (min(7, 700 // max(size, 1)))


def test_clear() -> None:
    kept = cache()
    kept.put("a", response())
    kept.clear()
    assert kept.get("a") is None


@pytest.mark.parametrize("evict", ["lru", "lfu", "ttl"])
def test_threads(evict: str) -> None:
    kept = cache(evict=evict, max_entries=5)

    def use(seed: int) -> int:
        wrong = 0
        for step in range(2000):
            key = (seed + step) % 9
            kept.put(key, response(key))
            found = kept.get(key)
            wrong += found is not None and len(found.body) != key
        return wrong

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(use, range(8))) == 0
    assert len(kept) == 5
