"""Annotations: they have no name of their own, so one is known by all that it says."""

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from nms_workers.errors import Refused
from nms_workers.services.grafana.client import GrafanaClient, Query
from nms_workers.services.grafana.model import Annotation, Made

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Remark(NamedTuple):
    """What an annotation says.

    Args:
        dashboard: the uid of a dashboard; None: it is shown in every dashboard that asks for its tags.
        panel: the id of a panel of the dashboard; None: all of it.
    """

    text: str
    time: datetime
    end: datetime | None
    tags: tuple[str, ...]
    dashboard: str | None
    panel: int | None

    @property
    def body(self) -> dict[str, Any]:
        """As Grafana takes it."""
        whole = {"dashboardUID": self.dashboard, "panelId": self.panel, "timeEnd": self.end and _ms(self.end)}
        said = {"text": self.text, "time": _ms(self.time), "tags": list(self.tags)}
        return said | {name: value for name, value in whole.items() if value is not None}

    def says(self, one: Annotation) -> bool:
        """Whether this annotation says just the same. A moment may be told as a span of no length."""
        begins, ends = _ms(self.time), _ms(self.end or self.time)
        when = one.time == begins and (one.time_end or one.time) == ends
        where = (one.dashboard_uid or "") == (self.dashboard or "") and one.panel_id == (self.panel or 0)
        return when and where and one.text == self.text and set(one.tags or ()) == set(self.tags)


def find(client: GrafanaClient, remark: Remark) -> list[Annotation]:
    """The annotations that say just this."""
    at = _ms(remark.time)
    query: Query = {
        "from": at,
        "to": at,
        "tags": list(remark.tags),
        "dashboardUID": remark.dashboard,
        "panelId": remark.panel,
    }
    return [one for one in client.get_annotations(query) if remark.says(one)]


def create(client: GrafanaClient, remark: Remark) -> tuple[Annotation, bool]:
    """The annotation, and whether it was made now.

    Raises:
        Refused: Grafana does not take it.
    """
    if there := find(client, remark):
        return there[0], False
    made = client.send("POST", "/api/annotations", remark.body).json(Made)
    now = next((one for one in find(client, remark) if one.id == made.id), None)
    if now is None:
        raise Refused(f"Grafana made the annotation {made.id} and does not show it", hint="look at the log of Grafana")
    return now, True


def delete(client: GrafanaClient, remark: Remark) -> list[Annotation]:
    """Delete those that say just this; which there were."""
    there = find(client, remark)
    for one in there:
        client.send("DELETE", f"/api/annotations/{one.id}")
    if there and find(client, remark):
        raise Refused("Grafana deleted the annotation and still shows it", hint="look at the log of Grafana")
    return there


def _ms(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(milliseconds=1)
