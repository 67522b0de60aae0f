"""Slots as a fleet would finish them."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from nms_workers.errors import Outcome
from nms_workers.records import Layout, SampleBlock, series
from nms_workers.store.slot import Block, SlotResult

# children inherit it: a run may go on over the full hour
_HOUR = os.environ.setdefault("NMS_TEST_START", datetime.now(UTC).strftime("%Y-%m-%dT%H:00:00+00:00"))
START = datetime.fromisoformat(_HOUR)


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
