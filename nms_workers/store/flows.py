"""Flows on their way into PostgreSQL: into a spool at once, then batch by batch, each exactly once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nms_workers.store.partitions import Retention


@dataclass(frozen=True, slots=True)
class Exporter:
    """What a batch tells of one exporter. Counts are those since the batch before; `templates` is what it has now.

    Args:
        address: packed, 4 bytes of IPv4 or 16 of IPv6 (IPv4-mapped is IPv4).
        versions: that it sent: 5, 7, 9, 10 or 105.
        datagrams, lost: received, and what its sequence numbers say is missing (in the units of its protocol).
        target_id: the target that it is; None: not known.
    """

    address: bytes
    versions: tuple[int, ...] = ()
    datagrams: int = 0
    lost: int = 0
    templates: int = 0
    target_id: int | None = None


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


class FlowWriter:
    """Keeps batches of flows. One for each process; the processes of a host share the folder.

    Args:
        folder: of the spool, made if missing; not on a network file system.
        url: of PostgreSQL.
        max_bytes: of the spool; a batch that finds no room is dropped, counted and told (235 bytes a flow).
        keep: how many keys (conversations, ports, pairs of AS, interfaces) of one exporter and window a roll-up keeps,
            the largest; the others are summed in one.
        schema, retention: as in `store.writer.Writer`.
    """

    def __init__(
        self,
        folder: Path,
        url: str,
        *,
        max_bytes: int = 2_000_000_000,
        keep: int = 10_000,
        schema: str | None = None,
        retention: Retention | None = None,
    ) -> None:
        raise NotImplementedError

    def start(self) -> None:
        """Begin to drain, in a thread. After a fork only."""

    def put(self, batch: Batch) -> bool:
        """Keep a batch: when this returns True, it survives the death of the process. False: the spool is full.

        Raises:
            SpoolError: the spool's folder cannot be written.
        """
        raise NotImplementedError

    def flush(self, timeout: float) -> bool:
        """Wait until all that is in the spool now is in PostgreSQL. False when `timeout` seconds pass before."""
        raise NotImplementedError

    def close(self, timeout: float) -> bool:
        """Flush, stop and let go of the connection. What could not be written in time stays in the spool."""
        raise NotImplementedError
