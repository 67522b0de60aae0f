"""What the decoders of one batch write into."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nms_workers.services.flows.decoded import Decoded, Loss, Origin, Reason
from nms_workers.services.flows.record import FLOW, Flows
from nms_workers.services.flows.templates import Stream, StreamKey, Templates

_SKIPPED = 100  # names
_UNITS = {5: "flows", 7: "flows", 9: "datagrams", 10: "records", 105: "datagrams"}


def together(parts: list[Flows]) -> Flows:
    """All flows as one array. (`np.concatenate` would turn the bytes of addresses round, to those of this machine.)"""
    if len(parts) == 1:
        return parts[0]
    whole = np.empty(sum(len(part) for part in parts), FLOW)
    at = 0
    for part in parts:
        whole[at : at + len(part)] = part
        at += len(part)
    return whole


class Batch:
    """One batch of datagrams on its way to a `Decoded`."""

    def __init__(self, templates: Templates) -> None:
        self.templates = templates
        self.decoded = Decoded()
        self._origins: dict[tuple[bytes, bytes], int] = {}
        self._streams: dict[StreamKey, tuple[Stream, int]] = {}
        self._flows: list[Flows] = []
        self._origin: list[NDArray[np.uint32]] = []
        self._received: list[NDArray[np.int64]] = []

    def origin(self, address: bytes, agent: bytes = b"") -> int:
        """The index of who tells this."""
        key = (address, agent or address)
        if (index := self._origins.get(key)) is None:
            index = self._origins[key] = len(self.decoded.origins)
            self.decoded.origins.append(Origin(*key))
        return index

    def stream(self, key: StreamKey, now: int) -> tuple[Stream, int] | None:
        """The stream of this key and the index of its origin; None, and counted, where there are too many."""
        if (found := self._streams.get(key)) is not None:
            return found
        origin = self.origin(key.address, key.agent)
        if (stream := self.templates.stream(key, now)) is None:
            self.problem(origin, Reason.TOO_MANY_EXPORTERS)
            return None
        self._streams[key] = stream, origin
        return stream, origin

    def problem(self, origin: int, reason: Reason, times: int = 1) -> None:
        """Count something that could not be decoded."""
        if times:
            self.decoded.problems[origin, reason] += times

    def skip(self, what: str, times: int = 1) -> None:
        """Count something that is none of ours."""
        if what in self.decoded.skipped or len(self.decoded.skipped) < _SKIPPED:
            self.decoded.skipped[what] += times

    def add(self, flows: Flows, origin: NDArray[Any], received: NDArray[Any]) -> None:
        """Take over flows, with who told each and when."""
        self._flows.append(flows)
        self._origin.append(origin)
        self._received.append(received)

    def finish(self) -> Decoded:
        """Everything together."""
        told = self.decoded
        for key, count in self.templates.overdue(self._now()):
            self.problem(self.origin(key.address, key.agent), Reason.NO_TEMPLATE, count)
        if self._flows:
            told.flows = together(self._flows)
            told.origin = np.concatenate(self._origin)
            told.received = np.concatenate(self._received)
        for key, (stream, origin) in self._streams.items():
            told.losses.append(
                Loss(origin, key.version, key.domain, None, _UNITS[key.version], *stream.sequence.take())
            )
            for source, sequence in stream.sources.items():
                if sequence.received:
                    told.losses.append(Loss(origin, key.version, key.domain, source, "samples", *sequence.take()))
        told.templates_changed, self.templates.changed = self.templates.changed, False
        return told

    def _now(self) -> int:
        return max((stream.seen for stream, _ in self._streams.values()), default=0)
