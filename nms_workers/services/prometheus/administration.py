"""Changes of a Prometheus server: reload, snapshot, deletion of series. Each looks first, and verifies.

Sources: https://prometheus.io/docs/prometheus/latest/management_api/ and
https://prometheus.io/docs/prometheus/latest/querying/api/#tsdb-admin-apis
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from nms_workers.change import Change
from nms_workers.errors import Refused
from nms_workers.services.prometheus.api import words
from nms_workers.services.prometheus.client import PrometheusClient
from nms_workers.services.prometheus.model import Snapshot
from nms_workers.services.prometheus.readings import moment
from nms_workers.transport.deadline import remaining

_TRIES, _PAUSE = 5, 2.0  # seconds between two deletions
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def reload(client: PrometheusClient) -> Change:
    """Read the configuration and the rule files again.

    Raises:
        Refused: the server does not allow it, or the new configuration is faulty.
    """
    before = _configuration(client)
    answer = client.reload()
    if answer.status == 403:
        hint = "start Prometheus with --web.enable-lifecycle, or send its process SIGHUP"
        raise Refused(f"the server does not let itself be reloaded: {words(answer.text)}", hint=hint)
    after = _configuration(client)
    same = before["configuration_sha256"] == after["configuration_sha256"]
    if answer.status == 500:
        kept = "the old one is still in force" if same else "parts of the new one are in force already"
        hint = "`promtool check config` names the place; correct it and reload again"
        raise Refused(f"the new configuration is faulty, {kept}: {words(answer.text)}", hint=hint)
    if after["reload_successful"] is False or _earlier(after["loaded_at"], before["loaded_at"]):
        raise Refused(
            "the server took the command, and does not say that it loaded its configuration", hint="look at its log"
        )
    what = "the configuration is as it was" if same else "the configuration is another one now"
    return Change(changed=True, message=f"reloaded: {what}", before=before, after=after)


def create_snapshot(client: PrometheusClient, skip_head: bool) -> Change:
    """Keep all blocks, and the head unless it is skipped, in a new folder of the server's own disk."""
    params = {"skip_head": "true" if skip_head else "false"}
    name = client.command("/tsdb/snapshot", params).decoded(Snapshot).name
    message = f"snapshot {name} is in the folder snapshots of the server's data"
    return Change(changed=True, message=message, after={"snapshot": name, "skip_head": skip_head})


class Deletion(NamedTuple):
    """What is to be deleted: the samples from `start` to `end` of the series that any of the selectors matches."""

    match: Sequence[str]
    start: datetime
    end: datetime

    @classmethod
    def of(cls, match: Sequence[str], start: datetime | None, end: datetime | None) -> "Deletion":
        """With the whole past as the default; the future cannot be deleted.

        Raises:
            Refused: it ends before it begins.
        """
        now = datetime.now(UTC)
        asked = cls(match, start or _EPOCH, min(end or now, now))
        if asked.start >= asked.end:
            raise Refused(f"start {asked.start.isoformat()} is not before end {asked.end.isoformat()}")
        return asked


def delete_series(client: PrometheusClient, asked: Deletion, at_most: int, clean: bool, dry_run: bool) -> Change:
    """Delete samples, unless more than `at_most` series have some; with `clean` also from the disk, at once.

    Raises:
        Refused: more series, or the server does not allow it.
    """
    found = _held(client, asked)
    before = {"series": found, "start": asked.start.isoformat(), "end": asked.end.isoformat()}
    if found > at_most:
        hint = "narrow the selectors or the time, or raise at_most"
        raise Refused(f"{found} series have samples there, more than at_most ({at_most})", hint=hint)
    if dry_run or not found:
        message = f"samples of {found} series would be deleted" if found else "there are no such samples"
        return Change(changed=bool(found), message=message, before=before, after={"series": 0})
    times = {"start": f"{asked.start.timestamp():.3f}", "end": f"{asked.end.timestamp():.3f}"}
    for _ in range(_TRIES):
        client.command("/tsdb/delete_series", {"match[]": list(asked.match), **times})
        if not (left := _held(client, asked)):
            break
        time.sleep(remaining(_PAUSE))  # a scrape that was under way brought more
    else:
        raise Refused(f"the server took the command, and {left} of {found} series still have samples there")
    if clean:
        client.command("/tsdb/clean_tombstones", {})
    return Change(changed=True, message=f"samples of {found} series deleted", before=before, after={"series": 0})


def _held(client: PrometheusClient, asked: Deletion) -> int:
    """How many series have samples there. A list of series would not do: it also names those without samples."""
    span = round((asked.end - asked.start).total_seconds() * 1000) + 1  # both ends count
    count = 0
    for one in asked.match:
        rows = client.query(f"count(last_over_time({one}[{span}ms]))", time=asked.end).rows
        count += int(rows[0].points[0][1]) if rows else 0
    return count


def _configuration(client: PrometheusClient) -> dict[str, Any]:
    runtime = client.get_runtimeinfo()
    return {
        "configuration_sha256": client.get_config_hash(),
        "reload_successful": runtime.get("reloadConfigSuccess"),
        "loaded_at": runtime.get("lastConfigTime"),
    }


def _earlier(after: object, before: object) -> bool:
    """Whether a time went backwards; the server tells whole seconds, so two reloads in one second look equal."""
    now, then = moment(after), moment(before)
    return now is not None and then is not None and now < then
