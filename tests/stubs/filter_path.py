"""`filter_path` of Elasticsearch: what is left of an answer.

Source: https://www.elastic.co/docs/reference/elasticsearch/rest-apis/common-options#common-options-response-filtering
"""

import fnmatch
from collections.abc import Iterator
from typing import Any


def filtered(told: Any, patterns: list[str]) -> Any:
    """What `filter_path` leaves of an answer; patterns that begin with - take away. None: nothing is left."""
    wanted = [one.split(".") for one in patterns if not one.startswith("-")]
    unwanted = [one[1:].split(".") for one in patterns if one.startswith("-")]
    kept = _keep(told, wanted) if wanted else told
    return _drop(kept, unwanted)


def _keep(told: Any, ways: list[list[str]]) -> Any:
    if any(not way for way in ways):
        return told
    if isinstance(told, list):
        return [one for one in (_keep(each, ways) for each in told) if one is not None] or None
    if not isinstance(told, dict):
        return None
    kept = {}
    for name, below in told.items():
        if (next_ways := list(_below(name, ways))) and (found := _keep(below, next_ways)) is not None:
            kept[name] = found
    return kept or None


def _drop(told: Any, ways: list[list[str]]) -> Any:
    if isinstance(told, list):
        return [_drop(one, ways) for one in told]
    if not isinstance(told, dict):
        return told
    kept = {}
    for name, below in told.items():
        next_ways = list(_below(name, ways))
        if not any(not way for way in next_ways):
            kept[name] = _drop(below, next_ways)
    return kept


def _below(name: str, ways: list[list[str]]) -> Iterator[list[str]]:
    """The rest of each way that goes on at this name. Dots inside a name count as a way, as they do there."""
    parts = name.split(".")
    for way in ways:
        if fnmatch.fnmatchcase(name, way[0] if way else ""):
            yield way[1:]
        elif len(parts) > 1 and way[: len(parts)] == parts:
            yield way[len(parts) :]
