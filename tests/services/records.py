"""How the tests of services look at records, and wait."""

import time
from collections.abc import Callable, Iterable
from typing import Any

from nms_workers.records import Entity, Event, Record, Sample


def values(records: Iterable[Record], metric: str) -> dict[tuple[tuple[str, str], ...], float]:
    """Labels to value of one metric."""
    return {r.series.labels: r.value for r in records if isinstance(r, Sample) and r.metric == metric}


def value(records: Iterable[Record], metric: str, **labels: str) -> float:
    """The value of one series; fails when it is not there once."""
    wanted = tuple(sorted(labels.items()))
    (found,) = [r.value for r in records if isinstance(r, Sample) and r.metric == metric and r.series.labels == wanted]
    return found


def entities(records: Iterable[Record], kind: str) -> dict[str, dict[str, Any]]:
    """Attributes by key of the entities of a kind."""
    return {r.key: r.attributes for r in records if isinstance(r, Entity) and r.kind == kind}


def events(records: Iterable[Record], kind: str = "") -> list[Event]:
    """The events, of one kind or of all."""
    return [r for r in records if isinstance(r, Event) and kind in ("", r.kind)]


def await_true(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """What the condition returns when it first is true."""
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.05)
    return result
