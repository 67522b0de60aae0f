"""What the engine's counters mean: `counters.csv` as a lookup.

One row of the table is one counter of `dump-counters`. In a counter `*` stands for one name; in `labels` `{0}` is what
the first of them stood for. A value is multiplied by `scale`. `scope` says where it is read: `thread` counters in each
thread, which becomes a label, `total` counters in the sum over all threads. Type, unit and description stand in
`metrics.csv`. Lists and texts are no counters.
Source: https://docs.suricata.io/en/latest/performance/statistics.html, and the JSON Schema of EVE 7.0 and 8.0.
"""

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal

from nms_workers.records import Sample


@dataclass(frozen=True)
class Counter:
    """One row of `counters.csv`."""

    counter: str
    metric: str
    scale: float
    labels: tuple[tuple[str, str], ...]
    scope: Literal["thread", "total"]


@cache
def counters() -> tuple[Counter, ...]:
    """The rows of `counters.csv`, in order."""
    with Path(__file__).with_name("counters.csv").open(encoding="utf-8", newline="") as lines:
        return tuple(_counter(row) for row in csv.DictReader(lines))


def samples(dump: Mapping[str, Any]) -> Iterator[Sample]:
    """The samples of one `dump-counters`.

    Args:
        dump: counters as nested mappings; `threads` holds the same by thread.
    """
    yield from _scoped("total", {name: one for name, one in dump.items() if name != "threads"}, {})
    for thread, own in _threads(dump):
        yield from _scoped("thread", own, {"thread": thread})


def unknown(dump: Mapping[str, Any]) -> list[str]:
    """Names of the counters that the table does not have."""
    every = {name for name, _ in flat({key: one for key, one in dump.items() if key != "threads"})}
    for _, own in _threads(dump):
        every |= {name for name, _ in flat(own)}
    return sorted(name for name in every if _match(name) is None)


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every number by its dotted name."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        elif isinstance(value, int | float):
            yield prefix + name, value


def _threads(dump: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    threads = dump.get("threads")
    for name, own in threads.items() if isinstance(threads, Mapping) else ():
        if isinstance(own, Mapping):  # Suricata 7 puts two numbers among the threads
            yield name, own


def _scoped(scope: str, values: Mapping[str, Any], labels: dict[str, str]) -> Iterator[Sample]:
    for name, value in flat(values):
        match = _match(name)
        if match and match[0].scope == scope:
            counter, parts = match
            own = {label: text.format(*parts) for label, text in counter.labels}
            yield Sample(counter.metric, value * counter.scale, own | labels)


@lru_cache(maxsize=8192)
def _match(name: str) -> tuple[Counter, tuple[str, ...]] | None:
    exact, patterns = _index()
    if name in exact:
        return exact[name], ()
    for pattern, counter in patterns:
        if found := pattern.fullmatch(name):
            return counter, found.groups()
    return None


@cache
def _index() -> tuple[dict[str, Counter], tuple[tuple[re.Pattern[str], Counter], ...]]:
    exact = {one.counter: one for one in counters() if "*" not in one.counter}
    wild = [one for one in counters() if "*" in one.counter]
    return exact, tuple((re.compile(re.escape(one.counter).replace(r"\*", "([^.]+)")), one) for one in wild)


def _counter(row: Mapping[str, str]) -> Counter:
    return Counter(
        counter=row["counter"],
        metric=row["metric"],
        scale=float(row["scale"] or 1),
        labels=tuple((name, text) for name, text in (pair.split("=") for pair in row["labels"].split(",") if pair)),
        scope="thread" if row["scope"] == "thread" else "total",
    )
