"""Records from what a cluster does by itself: tasks, lifecycles, snapshots, the allocation of shards."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nms_workers.mapping import MappingTable
from nms_workers.records import Event, Record, Sample, Severity
from nms_workers.services.elasticsearch import model
from nms_workers.services.elasticsearch.readings import unknown

_SLM = MappingTable(Path(__file__).with_name("slm_stats.csv"))
_ACTIONS = 200  # actions of tasks that have series of their own
_EXPLAINED = 5  # indices whose unassigned shards are explained
_WORDS = 1000  # characters of the cluster's own words in a message


def of_tasks(tasks: Sequence[model.Task], long: float, most: int) -> Iterator[Record]:
    """How many run of each action and how long; those that run for more than `long` seconds fire."""
    count = Counter(one.action for one in tasks)
    oldest: dict[str, float] = {}
    for one in tasks:
        if one.type != "persistent":  # these run as long as what they serve: transforms, machine learning jobs
            oldest[one.action] = max(oldest.get(one.action, 0.0), one.running_time_in_nanos / 1e9)
    for action, number in count.most_common(_ACTIONS):
        yield Sample("elasticsearch_tasks", number, {"action": action})
        if action in oldest:
            yield Sample("elasticsearch_tasks_oldest_seconds", oldest[action], {"action": action})
    yield Sample("elasticsearch_left_out", max(0, len(count) - _ACTIONS), {"what": "task_actions"})
    # A task of another is told by that one: a search of a hundred shards is one search.
    slow = [one for one in tasks if _is_long(one, long) and not one.parent_task_id]
    slow.sort(key=lambda one: -one.running_time_in_nanos)
    for one in slow[:most]:
        name, seconds = f"{one.node}:{one.id}", one.running_time_in_nanos / 1e9
        message = f"{one.action} has run for more than {long:g} s: {one.description[:_WORDS]}".rstrip(": ")
        about = {"task": name, "action": one.action, "seconds": seconds, "cancellable": one.cancellable}
        yield Event("long_task", message, "warning", f"long_task:{name}", "firing", about)
    yield Sample("elasticsearch_left_out", max(0, len(slow) - most), {"what": "long_tasks"})


def _is_long(task: model.Task, long: float) -> bool:
    return task.type != "persistent" and task.running_time_in_nanos > long * 1e9


def of_ilm(mode: str, failing: Sequence[model.IlmIndex], most: int) -> Iterator[Record]:
    """Whether it runs, and the indices that stand in the step ERROR."""
    yield Sample("elasticsearch_ilm_running", mode == "RUNNING")
    yield Sample("elasticsearch_ilm_indices_in_error", len(failing))
    for one in sorted(failing, key=lambda index: index.index)[:most]:
        why = str(one.step_info.get("reason") or one.step_info.get("message") or "")[:_WORDS]
        message = f"policy {one.policy} cannot do {one.failed_step or one.action} of {one.index}: {why}"
        about = {"index": one.index, "policy": one.policy, "phase": one.phase, "action": one.action}
        about |= {"failed_step": one.failed_step, "retries": str(one.failed_step_retry_count), "reason": why}
        yield Event("lifecycle_error", message, "error", f"lifecycle_error:{one.index}", "firing", about)
    yield Sample("elasticsearch_left_out", max(0, len(failing) - most), {"what": "ilm_errors"})


def of_lifecycle(stats: model.LifecycleStats) -> Iterator[Record]:
    """How the data stream lifecycle does as a whole."""
    yield Sample("elasticsearch_lifecycle_data_streams", stats.data_stream_count)
    total = sum(one.backing_indices_in_total for one in stats.data_streams)
    yield Sample("elasticsearch_lifecycle_indices", total)
    failing = sum(one.backing_indices_in_error for one in stats.data_streams)
    yield Sample("elasticsearch_lifecycle_indices_in_error", failing)
    if stats.last_run_duration_in_millis is not None:
        yield Sample("elasticsearch_lifecycle_run_seconds", stats.last_run_duration_in_millis / 1000)
    if stats.time_between_starts_in_millis is not None:
        yield Sample("elasticsearch_lifecycle_run_interval_seconds", stats.time_between_starts_in_millis / 1000)


def of_lifecycle_errors(stream: str, failing: Sequence[model.LifecycleIndex], most: int) -> Iterator[Record]:
    """An event for each backing index whose lifecycle fails."""
    for one in failing[:most]:
        why = str(one.error)[:_WORDS]
        message = f"the lifecycle of data stream {stream} fails at {one.index}: {why}"
        about = {"index": one.index, "data_stream": stream, "reason": why}
        yield Event("lifecycle_error", message, "error", f"lifecycle_error:{one.index}", "firing", about)


def of_repository(name: str, held: model.Snapshots) -> Iterator[Record]:
    """The snapshots of a repository; an event that fires while the newest that ended is not whole."""
    labels = {"repository": name}
    ended = [one for one in held.snapshots if one.state != "IN_PROGRESS"]
    yield Sample("elasticsearch_snapshots", held.total, labels)
    yield Sample("elasticsearch_snapshots_running", len(held.snapshots) - len(ended), labels)
    good = [one.end_time_in_millis for one in ended if one.state == "SUCCESS"]
    if good:
        yield Sample("elasticsearch_snapshot_last_success_age_seconds", max(0, time.time() - max(good) / 1000), labels)
    if ended:
        last = ended[0]
        yield Sample("elasticsearch_snapshot_last_duration_seconds", last.duration_in_millis / 1000, labels)
        yield Sample("elasticsearch_snapshot_last_failed_shards", last.shards.failed, labels)
        if last.state != "SUCCESS":
            why = f": {last.reason[:_WORDS]}" if last.reason else ""
            message = f"snapshot {last.snapshot} in {name} is {last.state.lower()}{why}"
            about = {"repository": name, "snapshot": last.snapshot, "state": last.state, "reason": last.reason or ""}
            about |= {"shards": str(last.shards.total), "failed_shards": str(last.shards.failed)}
            yield Event("snapshot_failed", message, "error", f"snapshot_failed:{name}", "firing", about)


def broken_repository(name: str, why: str) -> Event:
    """A repository whose snapshots cannot be read."""
    message = f"the snapshots of repository {name} cannot be read: {why[:_WORDS]}"
    return Event("repository_broken", message, "error", f"repository_broken:{name}", "firing", {"repository": name})


def of_slm(stats: Mapping[str, Any]) -> Iterator[Record]:
    """How policies take and delete snapshots."""
    yield from _SLM.samples(stats)
    yield from unknown("slm_stats", _SLM, [stats])


def of_shards(
    shards: Sequence[model.CatShard], explain: Callable[[model.CatShard], str], most: int
) -> Iterator[Record]:
    """Shards without a node by reason, and an event for each index that has some; the first are explained."""
    away = [one for one in shards if one.state == "UNASSIGNED"]
    count = Counter((one.reason or "unknown", "primary" if one.prirep == "p" else "replica") for one in away)
    for (reason, copy), number in sorted(count.items()):
        yield Sample("elasticsearch_shards_unassigned", number, {"reason": reason, "copy": copy})
    by_index: dict[str, list[model.CatShard]] = {}
    for one in sorted(away, key=lambda shard: (shard.prirep, shard.index, int(shard.shard))):  # primaries first
        by_index.setdefault(one.index, []).append(one)
    for at, (index, own) in enumerate(list(by_index.items())[:most]):
        why = explain(own[0]) if at < _EXPLAINED else ""
        yield _unassigned(index, own, why)
    yield Sample("elasticsearch_left_out", max(0, len(by_index) - most), {"what": "unassigned_indices"})


def _unassigned(index: str, shards: Sequence[model.CatShard], why: str) -> Event:
    primaries = sum(one.prirep == "p" for one in shards)
    reasons = sorted({one.reason or "unknown" for one in shards})
    message = f"{len(shards)} shards of {index} have no node, {primaries} of them primaries ({', '.join(reasons)})"
    about = {
        "index": index,
        "shards": [f"{one.shard}{one.prirep}" for one in shards[:100]],
        "reasons": reasons,
        "since": min((one.since for one in shards if one.since), default=""),
        "details": (shards[0].details or "")[:_WORDS],
        "explanation": why[:_WORDS],
    }
    severity: Severity = "critical" if primaries else "warning"
    return Event("shards_unassigned", message, severity, f"shards_unassigned:{index}", "firing", about)
