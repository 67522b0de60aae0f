"""How the tests of this service read and wait."""

import time
from collections.abc import Callable, Iterable
from typing import Any

from nms_workers.records import Event, Record, Sample
from nms_workers.service import Change
from nms_workers.services.suricata.client import SuricataClient
from nms_workers.services.suricata.service import Suricata


def read(client: SuricataClient, poll: str = "events") -> list[Record]:
    """Every record of one run of a poll."""
    return list(Suricata.polls()[poll].run(client))


def act(client: SuricataClient, name: str, /, **arguments: Any) -> Change:
    """Run an action as a job does: arguments validated first."""
    action = Suricata.actions()[name]
    return action.run(client, **action.validate(arguments))


def values(records: Iterable[Record], metric: str) -> dict[tuple[tuple[str, str], ...], float]:
    """Labels to value of one metric."""
    return {r.series.labels: r.value for r in records if isinstance(r, Sample) and r.metric == metric}


def value(records: Iterable[Record], metric: str, **labels: str) -> float:
    """The value of one series; a KeyError when it is not there."""
    return values(records, metric)[tuple(sorted(labels.items()))]


def events(records: Iterable[Record], kind: str = "") -> list[Event]:
    """The events, of one kind or of all."""
    return [r for r in records if isinstance(r, Event) and kind in ("", r.kind)]


def await_true(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """What the condition returns when it first is true."""
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.05)
    return result


def collect(client: SuricataClient, enough: Callable[[list[Record]], Any], seconds: float = 30.0) -> list[Record]:
    """Every record of as many runs of the event poll as it takes; the last of a series wins."""
    records: list[Record] = []

    def run() -> Any:
        records.extend(read(client))
        return enough(records)

    await_true(run, seconds)
    return records


def signatures(records: Iterable[Record]) -> list[int]:
    """The ids of the rules that raised these alerts."""
    return [event.attributes["alert"]["signature_id"] for event in events(records, "alert")]
