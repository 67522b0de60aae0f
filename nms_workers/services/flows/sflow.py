"""sFlow version 5."""

from collections.abc import Sequence

from nms_workers.services.flows.batch import Batch
from nms_workers.services.flows.decoded import Datagram


def decode_sflow(datagrams: Sequence[Datagram], batch: Batch) -> None:
    """Read datagrams of sFlow 5."""
