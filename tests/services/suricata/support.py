"""How the tests of this service read and wait."""

from collections.abc import Callable, Iterable
from typing import Any

from nms_workers.change import Change
from nms_workers.records import Record
from nms_workers.services.suricata.client import SuricataClient
from nms_workers.services.suricata.service import Suricata
from tests.services.records import await_true, events, value, values

__all__ = ["act", "await_true", "collect", "events", "read", "signatures", "value", "values"]


def read(client: SuricataClient, poll: str = "events") -> list[Record]:
    """Every record of one run of a poll."""
    return list(Suricata.polls()[poll].run(client))


def act(client: SuricataClient, name: str, /, **arguments: Any) -> Change:
    """Run an action as a job does: arguments validated first."""
    action = Suricata.actions()[name]
    return action.run(client, **action.validate(arguments))


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
