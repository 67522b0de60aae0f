"""What one slot left behind, in the form in which it is spooled and written."""

from datetime import datetime

import msgspec
import numpy as np

from nms_workers.errors import Outcome
from nms_workers.records import Entity, Event, Link, SampleBlock

NETWORK_FLOAT = np.dtype(">f8")


class Block(msgspec.Struct, frozen=True, array_like=True):
    """The values of one layout at one moment.

    Args:
        digest: `Layout.digest`.
        ts: aware; when the values were measured.
        values: float64 in network byte order, one for each member of the layout: what PostgreSQL's binary COPY takes.
    """

    digest: bytes
    ts: datetime
    values: bytes

    @classmethod
    def of(cls, block: SampleBlock, read_at: datetime) -> "Block":
        """The block of a poll; one without a time of its own gets `read_at`."""
        return cls(block.layout.digest, block.ts or read_at, block.values.astype(NETWORK_FLOAT).tobytes())

    def __len__(self) -> int:
        return len(self.values) // NETWORK_FLOAT.itemsize


class SlotResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a slot ended and what was read in it. Times are aware datetimes.

    Args:
        target_id: `targets.id`; `service` and `target` are its kind and name.
        due: names the slot together with `target_id` and `poll`; two results of one slot are written once.
        started: None when nobody ran it (`expired`, `lost`, `skipped`).
        detail: one line for people when the outcome is not `ok`.
        worker: who ran it, `host:pid`.
        manual: asked for by a person, not by the schedule.
        blocks: their layouts are given to `Writer.put` beside the result.
        events: one without a time of its own happened at `finished`.
        enumerated: the kinds (of entities, links, and firing events) this poll names in full.
        complete: whether it did so this time; only then may what it did not name be gone (or resolved).
    """

    target_id: int
    service: str
    target: str
    poll: str
    due: datetime
    finished: datetime
    outcome: Outcome
    started: datetime | None = None
    detail: str = ""
    worker: str = ""
    manual: bool = False
    blocks: tuple[Block, ...] = ()
    events: tuple[Event, ...] = ()
    entities: tuple[Entity, ...] = ()
    links: tuple[Link, ...] = ()
    enumerated: tuple[str, ...] = ()
    complete: bool = False

    @property
    def samples(self) -> int:
        """How many values the blocks hold."""
        return sum(map(len, self.blocks))

    @property
    def milliseconds(self) -> float | None:
        """How long the run took; None when nobody ran it."""
        return None if self.started is None else (self.finished - self.started).total_seconds() * 1000

    def without_records(self, detail: str) -> "SlotResult":
        """The slot with an outcome of `error` and nothing else: its records are dropped, and `detail` says why."""
        return msgspec.structs.replace(
            self,
            outcome=Outcome.ERROR,
            detail=detail,
            blocks=(),
            events=(),
            entities=(),
            links=(),
            enumerated=(),
            complete=False,
        )
