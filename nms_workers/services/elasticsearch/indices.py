"""Changes of whole indices: made, deleted, merged."""

import time
from collections.abc import Mapping
from typing import Any

from nms_workers.change import Change
from nms_workers.errors import Refused
from nms_workers.services.elasticsearch import model
from nms_workers.services.elasticsearch.client import ElasticsearchClient
from nms_workers.services.elasticsearch.failures import Denied
from nms_workers.transport.deadline import remaining, time_left

_FORCE_MERGE = "indices:admin/forcemerge"
_MARGIN = 10.0  # seconds before the job's deadline at which a merge is left to itself
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0  # seconds between two looks


def create(client: ElasticsearchClient, index: str, mappings: dict[str, Any], settings: dict[str, Any]) -> Change:
    """Make an index, unless it is there and as wanted.

    Raises:
        Refused: it is there and otherwise, or the cluster does not take the mappings or settings.
    """
    if (there := client.get_index(index)) is not None:
        return _as_wanted(index, there, mappings, settings)
    try:
        client.create_index(index, mappings, settings)
    except Denied as exc:
        if exc.kind != "resource_already_exists_exception" or (there := client.get_index(index)) is None:
            raise
        return _as_wanted(index, there, mappings, settings)  # somebody was quicker
    made = client.get_index(index)
    if made is None:
        raise Refused(f"the cluster made index {index}, and it is not there", hint="was it deleted meanwhile?")
    return Change(True, f"index {index} made", {"exists": False, "made": made.uuid}, _about(made))


def _as_wanted(index: str, there: model.IndexBody, mappings: dict[str, Any], settings: dict[str, Any]) -> Change:
    other = list(_missing(mappings, there.mappings, "mappings")) + _other_settings(settings, there.settings)
    if other:
        hint = "choose another name, or change what is there"
        raise Refused(f"there is an index {index} with other {', '.join(other[:10])}", hint=hint)
    about = _about(there)
    return Change(False, f"there is an index {index} already, as wanted", {"exists": True}, about)


def remove_empty(client: ElasticsearchClient, index: str, made: str) -> Change:
    """Delete the index that was made, if it is still that one and empty.

    Raises:
        Refused: it holds documents, or another index has its name now.
    """
    there = client.get_index(index)
    if there is None:
        return Change(False, f"there is no index {index}", {"exists": False}, {"exists": False})
    if there.uuid != made:
        raise Refused(f"index {index} is another than the one that was made", hint="delete_index deletes it")
    client.refresh(index)  # what was written a moment ago counts
    if held := client.count(index):
        raise Refused(f"index {index} holds {held} documents now", hint="delete_index deletes it with them")
    client.delete_index(index)
    return Change(True, f"index {index} deleted, it was empty", _about(there) | {"exists": True}, {"exists": False})


def delete(client: ElasticsearchClient, index: str) -> Change:
    """Delete an index with its documents, if it is there.

    Raises:
        Refused: the name is an alias or a data stream, or the index belongs to a data stream.
    """
    there = client.get_index(index)
    if there is None:
        return Change(False, f"there is no index {index}", {"exists": False}, {"exists": False})
    if there.data_stream is not None:
        raise Refused(f"index {index} belongs to data stream {there.data_stream}", hint="set_retention shortens it")
    (found,) = client.get_indices([index]) or (None,)
    held = {"docs": found.docs_count, "bytes": found.store_size} if found else {}
    client.delete_index(index)
    if client.get_index(index) is not None:
        raise Refused(f"the cluster deleted index {index}, and it is there", hint="who makes it again?")
    return Change(True, f"index {index} deleted", _about(there) | held | {"exists": True}, {"exists": False})


def force_merge(client: ElasticsearchClient, index: str, segments: int) -> Change:
    """Merge each shard of an index into at most so many segments.

    The cluster does it as a task, which is followed; a task that outlasts the job is left to itself. Run again, it
    follows the task that runs.

    Raises:
        Refused: the index is too big, there is none, or the merge failed.
    """
    there = client.get_index(index)
    if there is None:
        raise Refused(f"there is no index {index}", hint="get_indices lists those there are")
    had = client.most_segments(index)
    before = {"segments": had}
    running = _running(client, index)
    if running is None:
        if had <= segments:
            return Change(False, f"no shard of {index} has more than {segments} segments", before, before)
        _small_enough(client, index)
        running = client.start_force_merge(index, segments)
    done = _follow(client, running)
    has = client.most_segments(index)
    after = {"segments": has, "task": running, "done": done}
    if not done:
        return Change(True, f"{index} is being merged by task {running}, which goes on by itself", before, after)
    return Change(has < had, f"{index} merged: at most {has} segments a shard", before, after)


def _running(client: ElasticsearchClient, index: str) -> str | None:
    """The task that merges this index already."""
    wanted = f"Force-merge indices [{index}]"
    for task in client.get_tasks(_FORCE_MERGE):
        if task.description.startswith(wanted):
            return f"{task.node}:{task.id}"
    return None


def _small_enough(client: ElasticsearchClient, index: str) -> None:
    size, most = sum(one.bytes for one in client.get_indices([index])), client.target.max_merge_bytes
    if size > most:
        raise Refused(f"index {index} has {size} bytes, more than {most}", hint="raise max_merge_bytes of the target")


def _follow(client: ElasticsearchClient, task: str) -> bool:
    """Whether a task ended while we had time to look."""
    pause = _SHORTEST_PAUSE
    while True:
        seen = client.get_task(task)
        if seen is None:
            return True  # it ended, and the cluster forgot it: the segments tell
        if seen.completed:
            _whole(task, seen)
            return True
        if time_left() < _MARGIN + pause:
            return False
        time.sleep(remaining(pause))
        pause = min(pause * 1.5, _LONGEST_PAUSE)


def _whole(task: str, seen: model.FollowedTask) -> None:
    if seen.error is not None:
        raise Refused(f"task {task} failed: {seen.error.get('reason', 'no reason told')!s:.400}")
    failed = (seen.response or {}).get("_shards", {}).get("failed", 0)
    if failed:
        raise Refused(f"task {task} failed for {failed} shards", hint="look at the logs of the nodes that hold them")


def _about(index: model.IndexBody) -> dict[str, Any]:
    shards = {name: index.settings.get(f"index.{name}") for name in ("number_of_shards", "number_of_replicas")}
    return {"uuid": index.uuid, "aliases": sorted(index.aliases), **shards}


def _missing(wanted: Mapping[str, Any], there: Mapping[str, Any], way: str) -> list[str]:
    """The dotted names of what is wanted and not so."""
    found: list[str] = []
    for name, value in wanted.items():
        if isinstance(value, Mapping) and isinstance(there.get(name), Mapping):
            found += _missing(value, there[name], f"{way}.{name}")
        elif _word(value) != _word(there.get(name)):
            found.append(f"{way}.{name}")
    return found


def _other_settings(wanted: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    full = {name if name.startswith("index.") else f"index.{name}": value for name, value in wanted.items()}
    return sorted(name for name, value in full.items() if _word(value) != _word(there.get(name)))


def _word(value: Any) -> Any:
    """Elasticsearch gives settings back as text, and booleans of mappings as either."""
    if isinstance(value, list):
        return [_word(one) for one in value]
    return str(value).lower() if isinstance(value, bool | int | float) else value
