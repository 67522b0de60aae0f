"""How the tests of this service read and act."""

from collections.abc import Iterable, Mapping
from typing import Any

from nms_workers.change import Change
from nms_workers.records import Event, Record, Sample
from nms_workers.services.kibana.client import KibanaClient
from nms_workers.services.kibana.service import Kibana


def read(client: KibanaClient, poll: str) -> list[Record]:
    """Every record of one run of a poll."""
    return list(Kibana.polls()[poll].run(client))


def act(client: KibanaClient, action: str, **arguments: Any) -> Change:
    """Run an action as a job does: its arguments come as JSON and are validated."""
    declared = Kibana.actions()[action]
    return declared.run(client, **declared.validate(arguments))


def undo(client: KibanaClient, action: str, arguments: Mapping[str, Any], change: Change) -> Change:
    """Take an action back as the undo of a job does."""
    name = Kibana.actions()[action].undo
    assert name is not None
    takes = Kibana.actions()[name].arguments.model_fields
    given = {key: value for key, value in arguments.items() if key in takes} | {"before": change.before}
    return act(client, name, **given)


def values(records: Iterable[Record], metric: str) -> dict[str, float]:
    """The values of a metric by its labels: `a/b`."""
    found = [one for one in records if isinstance(one, Sample) and one.metric == metric]
    return {"/".join(one.labels.values()): one.value for one in found}


def value(records: Iterable[Record], metric: str) -> float:
    """The value of a metric that has one series."""
    (found,) = values(records, metric).values()
    return found


def firing(records: Iterable[Record]) -> dict[str, Event]:
    """Events that fire, by fingerprint."""
    return {one.fingerprint: one for one in records if isinstance(one, Event) and one.state == "firing"}
