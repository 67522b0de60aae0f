"""How the tests of this service read."""

from collections.abc import Iterable

from nms_workers.records import Record, Sample
from nms_workers.services.ntopng.client import NtopngClient
from nms_workers.services.ntopng.service import Ntopng


def read(client: NtopngClient, poll: str) -> list[Record]:
    """Every record of one run of a poll."""
    return list(Ntopng.polls()[poll].run(client))


def values(records: Iterable[Record], metric: str, *labels: str) -> dict[str, float]:
    """The values of a metric by these labels: `a/b`; without any, by all."""
    found = [one for one in records if isinstance(one, Sample) and one.metric == metric]
    return {"/".join(one.labels[name] for name in labels or one.labels): one.value for one in found}
