"""What one run of one poll of one target brought in, on its way from records to what is stored."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import TypeVar

import numpy as np

from nms_workers.errors import ParseError
from nms_workers.records import Entity, Event, Labels, Layout, Link, Record, Sample, SampleBlock, Series
from nms_workers.store.slot import Block

MAX_OF_EACH = 10_000  # events, entities and links that one run may bring


_Kind = TypeVar("_Kind", Event, Entity, Link)


@lru_cache(maxsize=4096)
def _layout(members: tuple[Series, ...]) -> Layout:
    """Equal sets of series share one layout, so what depends on it is computed once."""
    return Layout(members)


@dataclass
class Harvest:
    """Takes records as they are yielded.

    Args:
        volatile: make each label set a layout of its own.
        max_series: the target's budget; samples beyond it are dropped and counted.
    """

    volatile: bool
    max_series: int
    events: list[Event] = field(default_factory=list)
    entities: list[Entity] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    _groups: dict[tuple[datetime | None, Labels], dict[Series, float]] = field(default_factory=dict)
    _blocks: dict[tuple[datetime | None, bytes], SampleBlock] = field(default_factory=dict)
    _held: int = 0
    _faults: Counter[str] = field(default_factory=Counter)

    def add(self, record: Record) -> None:
        """Take one record.

        Raises:
            ParseError: a poll yielded something that is no record, or a flow, which has a way of its own.
        """
        match record:
            case Sample():
                self._add_sample(record)
            case SampleBlock():
                self._add_block(record)
            case Event():
                self._add_to(self.events, record, "events")
            case Entity():
                self._add_to(self.entities, record, "entities")
            case Link():
                self._add_to(self.links, record, "links")
            case _:
                raise ParseError(f"the poll yielded a {type(record).__name__}, which is no record")

    def __bool__(self) -> bool:
        return bool(self._groups or self._blocks or self.events or self.entities or self.links)

    def blocks(self, read_at: datetime) -> tuple[list[Block], list[Layout]]:
        """The samples as blocks, and the layouts they need. Members are in one order whatever the order of yielding."""
        whole = list(self._blocks.values())
        for (ts, _), values in self._groups.items():
            members = sorted(values, key=lambda one: (one.metric, one.labels))
            array = np.fromiter((values[one] for one in members), np.float64, len(members))
            whole.append(SampleBlock(_layout(tuple(members)), array, ts))
        layouts = {block.layout.digest: block.layout for block in whole}
        return [Block.of(block, read_at) for block in whole], list(layouts.values())

    @property
    def faults(self) -> str:
        """What had to be left out and why, in one line; empty when nothing was."""
        return "; ".join(f"{count} {what}" for what, count in sorted(self._faults.items()))

    def _add_sample(self, sample: Sample) -> None:
        one = sample.series
        group = self._groups.setdefault((sample.ts, one.labels if self.volatile else ()), {})
        if one in group:
            self._faults["samples came twice in one read, the first was kept"] += 1
        elif self._fits(1):
            group[one] = sample.value

    def _add_block(self, block: SampleBlock) -> None:
        name = (block.ts, block.layout.digest)
        if name in self._blocks:
            self._faults["samples came twice in one read, the first was kept"] += len(block.layout)
        elif self._fits(len(block.layout)):
            self._blocks[name] = block

    def _add_to(self, held: list[_Kind], record: _Kind, what: str) -> None:
        if len(held) < MAX_OF_EACH:
            held.append(record)
        else:
            self._faults[f"{what} beyond {MAX_OF_EACH} in one read were dropped"] += 1

    def _fits(self, count: int) -> bool:
        if self._held + count > self.max_series:
            self._faults[f"samples beyond the target's max_series of {self.max_series} were dropped"] += count
            return False
        self._held += count
        return True
