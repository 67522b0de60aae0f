"""What the store takes of flows: batches, as the decoders give them, and the form in which they rest in the spool."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from nms_workers.errors import NmsError


class Exporter(msgspec.Struct, frozen=True, array_like=True):
    """What a batch tells of one exporter. Counts are those since the batch before; `templates` is what it has now.

    Args:
        address: packed, 4 bytes of IPv4 or 16 of IPv6.
        versions: that it sent: 5, 7, 9, 10 or 105.
        datagrams, lost: received, and what its sequence numbers say is missing (in the units of its protocol).
        target_id: the target that it is; None: not known.
        interfaces: names by ifIndex, where it told any.
    """

    address: bytes
    versions: tuple[int, ...] = ()
    datagrams: int = 0
    lost: int = 0
    templates: int = 0
    target_id: int | None = None
    interfaces: dict[int, str] = {}  # msgspec gives each its own


@dataclass(frozen=True, slots=True)
class Batch:
    """Flows as the decoders give them; best some ten thousand at once.

    Args:
        flows: shape (n,), a structured array with the fields of `services.flows.record.FLOW`.
        exporter: shape (n,): who sent each flow, an index into `exporters`.
        received: shape (n,): when its datagram came, microseconds since 1970.
        exporters: may name some that sent no flows: their datagrams count too.
    """

    flows: NDArray[np.void]
    exporter: NDArray[np.uint32]
    received: NDArray[np.int64]
    exporters: Sequence[Exporter]

    def body(self) -> list[bytes | memoryview]:
        """The batch in the form in which it is spooled."""
        layout = [(name, kind.base.str, list(kind.shape)) for name, (kind, *_) in self.flows.dtype.fields.items()]  # type: ignore[union-attr]
        head = _encode(_Head(layout, len(self.flows), tuple(self.exporters)))
        columns = (self.flows, self.exporter.astype("<u4", copy=False), self.received.astype("<i8", copy=False))
        return [
            len(head).to_bytes(4, "little"),
            head,
            *(np.ascontiguousarray(column).view("u1").data for column in columns),
        ]

    @classmethod
    def from_body(cls, body: bytes) -> "Batch":
        """The batch that was spooled.

        Raises:
            BatchError: it is not whole, or of another version.
        """
        start = 4 + int.from_bytes(body[:4], "little")
        try:
            head = _decode(body[4:start])
            layout = np.dtype([(name, kind, tuple(shape)) for name, kind, shape in head.layout])
            flows = np.frombuffer(body, layout, head.flows, start)
            exporter = np.frombuffer(body, "<u4", head.flows, start + flows.nbytes)
            received = np.frombuffer(body, "<i8", head.flows, start + flows.nbytes + exporter.nbytes)
        except (msgspec.MsgspecError, ValueError, TypeError) as exc:
            raise BatchError(
                f"a batch of flows cannot be read: {exc}", hint="it was cut short by a power cut"
            ) from None
        if len(exporter) and int(exporter.max()) >= len(head.exporters):
            raise BatchError("a batch of flows names an exporter that did not come with it")
        return cls(flows, exporter, received, head.exporters)


class _Head(msgspec.Struct, frozen=True, array_like=True):
    layout: list[tuple[str, str, list[int]]]
    flows: int
    exporters: tuple[Exporter, ...]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Head).decode


class BatchError(NmsError):
    """A batch that can never be written."""
