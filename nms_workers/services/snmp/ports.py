"""What a port is called, so that its history goes on when the agent numbers its interfaces anew.

ifIndex may change at every start of a device (RFC 2863 section 3.1.5). The name stays: ifName, else ifDescr with the
address of the hardware, else, where a device tells nothing else, ifIndex.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

MAX_LENGTH = 255


def identities(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The identity of each port: ifIndex to a text that no other port of the device has.

    Args:
        rows: ifIndex to what the interface says of itself: `name`, `description`, `mac`.
    """
    ways = (_by_name, _by_description, _by_index)
    found: dict[str, str] = {}
    for way in ways:
        named = {index: way(index, row) for index, row in rows.items() if index not in found}
        taken = Counter([*found.values(), *named.values()])
        found |= {index: name for index, name in named.items() if name and taken[name] == 1}
    for index in rows:  # what none of the ways tells apart
        found.setdefault(index, f"{_by_index(index, rows[index])}#{index}")
    return found


def _by_name(_: str, row: Mapping[str, Any]) -> str:
    return str(row.get("name") or "")[:MAX_LENGTH]


def _by_description(_: str, row: Mapping[str, Any]) -> str:
    description = str(row.get("description") or "")
    mac = str(row.get("mac") or "")
    return f"{description} {mac}".strip()[:MAX_LENGTH] if description else ""


def _by_index(index: str, _: Mapping[str, Any]) -> str:
    return f"ifIndex {index}"
