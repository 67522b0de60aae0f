"""Slots as a fleet would finish them."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from nms_workers.errors import Outcome
from nms_workers.records import Layout, SampleBlock, series
from nms_workers.store.slot import Block, SlotResult

START = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)


def layout(size: int = 3, metric: str = "test_value") -> Layout:
    return Layout([series(metric, (("number", str(number)),)) for number in range(size)])


LAYOUT = layout()


def slot(target_id: int, number: int, values: Sequence[float] | None = None, **changes: Any) -> SlotResult:
    """The slot due `number` seconds after `START`, with one block of three values unless told otherwise."""
    due = changes.pop("due", START + timedelta(seconds=number))
    block_layout = changes.pop("layout", LAYOUT)
    read = np.array([number, number + 0.5, -number] if values is None else values, dtype=np.float64)
    blocks = (Block.of(SampleBlock(block_layout, read), due),) if read.size else ()
    defaults: dict[str, Any] = {
        "target_id": target_id,
        "service": "redis",
        "target": "one",
        "poll": "info",
        "due": due,
        "started": due,
        "finished": due + timedelta(milliseconds=20),
        "outcome": Outcome.OK,
        "blocks": blocks,
    }
    return SlotResult(**defaults | changes)
