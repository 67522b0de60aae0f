"""Datagrams of any format in, flows out."""

from collections.abc import Sequence

from nms_workers.services.flows.decoded import Datagram, Decoded
from nms_workers.services.flows.templates import Templates


def decode(datagrams: Sequence[Datagram], templates: Templates) -> Decoded:
    """Read NetFlow v5, v7, v9, IPFIX and sFlow v5, told apart by their first bytes, whatever port they came to.

    Never raises on any contents. The more datagrams at once, the less each costs: some hundreds are good. One datagram
    gives at most `Limits.records` flows of 235 bytes each, so a batch is the caller's bound on memory.

    Args:
        datagrams: in the order they came.
        templates: what is remembered between calls; changed.
    """
    raise NotImplementedError
