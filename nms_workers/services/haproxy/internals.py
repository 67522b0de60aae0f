"""What HAProxy tells of its threads and its memory pools; `internals.csv` says which field is which metric.

Both answers are meant for developers and grow with each version, so that a field we do not know is only counted.
Source: `show activity` and `show pools` of https://docs.haproxy.org/3.0/management.html#9.3.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nms_workers.errors import ParseError
from nms_workers.mapping import MappingTable
from nms_workers.records import Entity, Record, Sample

TABLE = MappingTable(Path(__file__).with_name("internals.csv"))

_MOST = 100  # threads, pools, and names of unknown fields
_HINT = "is it HAProxy's stats socket?"
_FIELD = re.compile(r"(?P<name>\w+): (?P<total>\d+)(?: \[(?P<each>[\d ]+)\])?", re.ASCII)
_POOL = re.compile(
    r"\s*- Pool (?P<name>\S+) \((?P<size>\d+) bytes\) : (?P<allocated>\d+) allocated \((?P<bytes>\d+) bytes\), "
    r"(?P<used>\d+) used .*?(?P<failures>\d+) failures",
    re.ASCII,
)


def threads(text: str) -> dict[str, dict[str, int]]:
    """`show activity`: field to thread to number; a process with one thread tells the total alone.

    Raises:
        ParseError: it is something else.
    """
    if not text.startswith("thread_id: "):
        raise ParseError("the answer does not look like HAProxy's `show activity`", hint=_HINT)
    found = {}
    for line in text.splitlines()[1:]:
        if match := _FIELD.fullmatch(line.strip()):
            each = (match["each"] or match["total"]).split()
            found[match["name"]] = {str(number): int(value) for number, value in enumerate(each, 1)}
    return found


def pools(text: str) -> dict[str, dict[str, int]]:
    """`show pools`: name to what it holds; those with the same name are added up.

    Raises:
        ParseError: it is something else.
    """
    found: dict[str, Counter[str]] = {}
    for line in text.splitlines():
        if match := _POOL.match(line):
            numbers = {field: int(match[field]) for field in ("allocated", "bytes", "used", "failures")}
            found.setdefault(match["name"], Counter()).update(numbers)
    if not found:
        raise ParseError("the answer does not look like HAProxy's `show pools`", hint=_HINT)
    return {name: dict(numbers) for name, numbers in found.items()}


def records(activity: Mapping[str, Mapping[str, int]], memory: Mapping[str, Mapping[str, int]]) -> Iterator[Record]:
    """The numbers of each thread and each pool, up to a hundred of both."""
    of_threads = {field: dict(list(each.items())[:_MOST]) for field, each in activity.items()}
    of_pools = {name: memory[name] for name in sorted(memory)[:_MOST]}
    answer: dict[str, Any] = {"threads": of_threads, "pools": of_pools}
    yield from TABLE.samples(answer)
    unknown = sorted({".".join(name.split(".")[:2]) for name in TABLE.unknown(answer)})
    yield Sample("haproxy_unknown_fields", len(unknown), {"of": "internals"})
    yield Entity("internals", "threads and pools", {"unknown_fields": unknown[:_MOST]})
    count = max((len(each) for each in activity.values()), default=0)
    yield Sample("haproxy_threads_left_out", max(0, count - _MOST))
    yield Sample("haproxy_pools_left_out", max(0, len(memory) - _MOST))
