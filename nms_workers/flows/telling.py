"""What the collector tells of targets beside their flows: counters of interfaces, and who looks around."""

import logging
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from nms_workers.errors import Outcome
from nms_workers.fleet.inventory import Target
from nms_workers.flows import metrics
from nms_workers.flows.counters import Reading
from nms_workers.flows.enrichment import Known
from nms_workers.records import Event, Layout
from nms_workers.services.flows.detection import FAN_OUT, PORT_SCAN, Thresholds, Window
from nms_workers.store.flows import Batch
from nms_workers.store.slot import Block, SlotResult
from nms_workers.store.spool import SpoolError
from nms_workers.store.writer import Writer

log = logging.getLogger(__name__)

EVERY_SECONDS = 10.0
MAX_READINGS = 100_000  # between two times
COUNTERS, DETECTION = "sflow_counters", "detection"  # what the ledger calls them


class Teller:
    """Gathers, and every few seconds hands over as what a poll of these names brought in. For one thread.

    Args:
        worker: this process' name in the ledger.
        number: of this process among those that share its ports; each resolves what it found itself.
        thresholds: from when on something is found.
    """

    def __init__(self, writer: Writer, worker: str, number: int, thresholds: Thresholds) -> None:
        self._writer, self._worker, self._thresholds = writer, worker, thresholds
        self._detection = f"{DETECTION}-{number}"
        self._windows: dict[int, tuple[Target, Window]] = {}
        self._readings: list[Reading] = []
        self._next = time.monotonic() + EVERY_SECONDS
        self._whole_from = time.monotonic() + thresholds.window  # before, an old scan is not known to be over
        self._last_due = datetime.now(UTC)

    def read(self, readings: Iterable[Reading]) -> None:
        """Take counters."""
        for one in readings:
            if len(self._readings) < MAX_READINGS:
                self._readings.append(one)

    def look(self, batch: Batch, known: Known) -> None:
        """Take flows."""
        views = [known.view(one.address) for one in batch.exporters]
        now = time.monotonic()
        for target in {view.id: view for view in views if view}.values():
            ours = np.array([view is not None and view.id == target.id for view in views])
            _, window = self._windows.setdefault(target.id, (target, Window(self._thresholds)))
            self._windows[target.id] = (target, window)
            window.add(batch.flows if ours.all() else batch.flows[ours[batch.exporter]], now)
        if len(batch.flows) and None in views:
            metrics.HOMELESS.labels("flows").inc(sum(np.bincount(batch.exporter)[[v is None for v in views]]))

    def tell(self, known: Known, *, last: bool = False) -> None:
        """Hand over, if it is time."""
        now = time.monotonic()
        if now < self._next and not last:
            return
        self._next = now + EVERY_SECONDS
        by_target: dict[int, list[Reading]] = {}
        for one in self._readings:
            by_target.setdefault(one.target.id, []).append(one)
        self._readings = []
        for group in by_target.values():
            self._put(group[0].target, COUNTERS, readings=group)
        active = {view.id for _, view in known.views}
        for target, window in list(self._windows.values()):
            if target.id not in active:
                del self._windows[target.id]
            elif not last:
                self._put(target, self._detection, events=window.found(now), complete=now >= self._whole_from)

    def _put(
        self,
        target: Target,
        poll: str,
        *,
        readings: Sequence[Reading] = (),
        events: Sequence[Event] = (),
        complete: bool = False,
    ) -> None:
        now = datetime.now(UTC)
        # one row of the ledger never stands for two of these
        self._last_due = due = max(now, self._last_due + timedelta(microseconds=1))
        result = SlotResult(
            target_id=target.id,
            service=target.service,
            target=target.name,
            poll=poll,
            due=due,
            started=now,
            finished=now,
            outcome=Outcome.OK,
            worker=self._worker,
            blocks=tuple(Block.of(one.block, now) for one in readings),
            events=tuple(events),
            enumerated=(PORT_SCAN, FAN_OUT) if poll == self._detection else (),
            complete=complete,
        )
        layouts: dict[bytes, Layout] = {one.block.layout.digest: one.block.layout for one in readings}
        try:
            self._writer.put(result, layouts.values())
        except SpoolError as exc:
            log.error("%s of %s cannot be kept: %s", poll, target, exc)  # noqa: TRY400 - the message says it all
