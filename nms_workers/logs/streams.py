"""Which data stream a source's lines go to: what its label says, else what the kind of its service says."""

import tomllib
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple, get_args

StreamName = Literal["monitoring", "network", "security"]
NAMES: tuple[StreamName, ...] = get_args(StreamName)
_DEFAULT: StreamName = "monitoring"


class Stream(NamedTuple):
    """One row of the table: the data stream, and its retention as Elasticsearch writes it (`30d`)."""

    stream: str
    retention: str
    kinds: tuple[str, ...]


@cache
def streams() -> dict[StreamName, Stream]:
    """The table."""
    table = tomllib.loads((Path(__file__).parent / "streams.toml").read_text(encoding="utf-8"))
    return {name: Stream(row["stream"], row["retention"], tuple(row["kinds"])) for name, row in table.items()}  # type: ignore[misc]


def stream_of(kind: str, label: str = "") -> StreamName:
    """`monitoring`, `network` or `security`.

    Args:
        kind: of the service, `suricata`; may be empty.
        label: what somebody said of this source: one of the three, or the data stream's name; else it is not heeded.
    """
    for name, row in streams().items():
        if label in (name, row.stream):
            return name
    return next((name for name, row in streams().items() if kind in row.kinds), _DEFAULT)
