"""Datagrams of any format in, flows out."""

from collections.abc import Sequence

from nms_workers.services.flows.batch import Batch
from nms_workers.services.flows.decoded import Datagram, Decoded, Reason
from nms_workers.services.flows.ipfix import decode_ipfix
from nms_workers.services.flows.netflow import decode_fixed, decode_v9
from nms_workers.services.flows.sets import DataSets
from nms_workers.services.flows.sflow import decode_sflow
from nms_workers.services.flows.templates import Templates

_SFLOW = b"\x00\x00\x00\x05"


def decode(datagrams: Sequence[Datagram], templates: Templates) -> Decoded:
    """Read NetFlow v5, v7, v9, IPFIX and sFlow v5, told apart by their first bytes, whatever port they came to.

    Never raises on any contents. The more datagrams at once, the less each costs: some hundreds are good. One datagram
    gives at most `Limits.records` flows of 235 bytes each, so a batch is the caller's bound on memory.

    Args:
        datagrams: in the order they came.
        templates: what is remembered between calls; changed.
    """
    batch = Batch(templates)
    if datagrams:
        templates.expire(datagrams[-1].received)
    by_version: dict[bytes, list[Datagram]] = {}
    for datagram in datagrams:
        by_version.setdefault(datagram.data[:2], []).append(datagram)
    sets = DataSets(batch)
    for version, some in by_version.items():
        if version in {b"\0\5", b"\0\7"}:
            decode_fixed(some, sets)
        elif version == b"\0\x09":
            decode_v9(some, sets)
        elif version == b"\0\x0a":
            decode_ipfix(some, sets)
        else:
            mine = [datagram for datagram in some if datagram.data[:4] == _SFLOW]
            decode_sflow(mine, batch)
            for datagram in some:
                if datagram.data[:4] != _SFLOW:
                    batch.problem(batch.origin(datagram.address), Reason.UNKNOWN_VERSION)
    sets.finish()
    return batch.finish()
