"""Reading polls and running actions as the fleet does."""

from nms_workers.change import Change
from nms_workers.records import Event, Layout, Record, Sample
from nms_workers.services.elasticsearch.client import ElasticsearchClient
from nms_workers.services.elasticsearch.service import Elasticsearch


def read(client: ElasticsearchClient, poll: str) -> list[Record]:
    """What a poll yields; no series twice, no event twice."""
    found = list(Elasticsearch.polls()[poll].run(client))
    series = tuple(one.series for one in found if isinstance(one, Sample))
    assert len(Layout(series)) == len(set(series))
    fired = [one.fingerprint for one in found if isinstance(one, Event)]
    assert len(set(fired)) == len(fired)
    return found


def value(records: list[Record], metric: str, **labels: str) -> float:
    """The one sample of a metric with these labels."""
    (found,) = values(records, metric, **labels)
    return found


def values(records: list[Record], metric: str, **labels: str) -> list[float]:
    """The samples of a metric that have these labels."""
    return [one.value for one in samples(records, metric) if labels.items() <= dict(one.series.labels).items()]


def samples(records: list[Record], metric: str) -> list[Sample]:
    """All samples of a metric."""
    return [one for one in records if isinstance(one, Sample) and one.metric == f"elasticsearch_{metric}"]


def events(records: list[Record], kind: str) -> list[Event]:
    """The events of a kind; all of this service last."""
    found = [one for one in records if isinstance(one, Event) and one.kind == kind]
    assert all(one.state == "firing" for one in found)
    return found


def act(client: ElasticsearchClient, action: str, **arguments: object) -> Change:
    """Run an action with arguments as a job brings them."""
    declared = Elasticsearch.actions()[action]
    return declared.run(client, **declared.validate(arguments))
