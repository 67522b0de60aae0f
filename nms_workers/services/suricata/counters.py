"""What the engine's counters mean: `counters.csv`, a mapping table over one `dump-counters`.

A row whose field begins with `threads.*.` is read in each thread, which becomes a label, all others in the sum over the
threads. Lists and texts are no counters.
Source: https://docs.suricata.io/en/latest/performance/statistics.html, and the JSON Schema of EVE 7.0 and 8.0.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nms_workers.mapping import MappingTable

TABLE = MappingTable(Path(__file__).with_name("counters.csv"))

_THREAD = "threads.1."


def total(dump: Mapping[str, Any]) -> dict[str, Any]:
    """The sum over all threads, nested as in the dump."""
    return {name: one for name, one in dump.items() if name != "threads"}


def unknown(dump: Mapping[str, Any]) -> list[str]:
    """Names of the counters that the table does not have, neither by thread nor as a sum."""
    threads = dump.get("threads", {}).values()
    found: set[str] = set()
    for part in (total(dump), *(one for one in threads if isinstance(one, Mapping))):  # 7.0 has numbers among them
        by_thread = {name.removeprefix(_THREAD) for name in TABLE.unknown({"threads": {"1": part}})}
        found |= by_thread.intersection(TABLE.unknown(part))
    return sorted(found)


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every number by its dotted name."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        elif isinstance(value, int | float):
            yield prefix + name, value
