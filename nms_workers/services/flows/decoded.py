"""What goes into a decoder and what comes out of it: datagrams in, one array of flows and what was learnt beside it.

Everything is made for batches: the decoders take what one system call or one second gave, of any number of exporters.
"""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nms_workers.services.flows.record import FLOW, Flows


class Datagram(NamedTuple):
    """One datagram as it came.

    Args:
        data: its bytes.
        address: of the sender, packed: 4 bytes of IPv4 or 16 of IPv6.
        port: of the sender.
        received: microseconds since 1970.
    """

    data: bytes
    address: bytes
    port: int
    received: int


class Origin(NamedTuple):
    """Who tells: the sender of the datagram, and the agent that sFlow names in it (the sender itself otherwise)."""

    address: bytes  # packed, as in Datagram
    agent: bytes


class Reason(StrEnum):
    """Why something could not be decoded, or not as it stands. The set is fixed; each is counted by origin."""

    UNKNOWN_VERSION = "unknown_version"  # neither NetFlow 5, 7, 9 nor IPFIX nor sFlow 5
    TRUNCATED = "truncated"  # shorter than it says; whole records before the cut are kept
    BAD_LENGTH = "bad_length"  # a length inside leads out of the datagram or nowhere
    RESERVED_SET = "reserved_set"  # a set id that no standard gives a meaning
    BAD_TEMPLATE = "bad_template"  # too many fields, too long, without a byte, or an id below 256
    TOO_MANY_TEMPLATES = "too_many_templates"  # over a bound: a template that was not taken
    TOO_MANY_EXPORTERS = "too_many_exporters"  # over a bound: a datagram of a new exporter
    TOO_MANY_RECORDS = "too_many_records"  # over a bound: records of one datagram that were left out
    NO_TEMPLATE = "no_template"  # a data set whose template did not come while it was held
    BAD_OPTIONS = "bad_options"  # an options record that could not be read
    BAD_SAMPLE = "bad_sample"  # sFlow: a sample or a structure in it that contradicts itself
    BAD_HEADER = "bad_header"  # sFlow: a sampled packet header that is not one of Ethernet, IPv4 or IPv6
    TIME_REPLACED = "time_replaced"  # records whose start or end cannot be; decoded, with the time of the export
    CLOCK_REPLACED = "clock_replaced"  # datagrams whose export time cannot be; decoded, with the time of receipt


class Loss(NamedTuple):
    """What the sequence numbers of one stream say about a batch.

    Args:
        origin: index into `Decoded.origins`.
        version: 5, 7, 9, 10 or 105.
        domain: engine (v5, v7), source id (v9), observation domain (IPFIX), sub-agent (sFlow).
        source: sFlow's data source whose samples these are; None: the stream of datagrams itself.
        unit: what is counted: `flows` (v5, v7), `datagrams` (v9, sFlow), `records` (IPFIX), `samples`.
        received: units that came.
        lost: units that were skipped; some of them may come late.
        late: units that came after a later one, and were counted as lost before.
        restarts: how often the numbers began anew.
    """

    origin: int
    version: int
    domain: int
    source: int | None
    unit: str
    received: int
    lost: int
    late: int
    restarts: int


class InterfaceName(NamedTuple):
    """A name that an exporter told in an options record. `origin` is an index into `Decoded.origins`."""

    origin: int
    interface: int
    name: str
    description: str


class SamplePool(NamedTuple):
    """The latest of sFlow's own counters of one data source (sFlow 5, `flow_sample`). `source`: ifIndex, mostly."""

    origin: int
    domain: int
    source: int
    sampling_interval: int
    pool: int  # packets that could have been sampled, wraps at 2**32
    drops: int  # samples the agent could not take, wraps at 2**32


_WHERE: list[Any] = [("origin", "u4"), ("received", "i8"), ("domain", "u4"), ("interface", "u4")]

INTERFACE_COUNTERS = np.dtype(
    [
        *_WHERE,
        ("type", "u4"),  # ifType
        ("speed", "u8"),  # bits per second
        ("duplex", "u4"),  # 0 unknown, 1 full, 2 half, 3 in, 4 out
        ("status", "u4"),  # bit 0: ifAdminStatus up, bit 1: ifOperStatus up
        ("in_octets", "u8"),
        ("in_unicast_packets", "u4"),
        ("in_multicast_packets", "u4"),
        ("in_broadcast_packets", "u4"),
        ("in_discards", "u4"),
        ("in_errors", "u4"),
        ("in_unknown_protocols", "u4"),
        ("out_octets", "u8"),
        ("out_unicast_packets", "u4"),
        ("out_multicast_packets", "u4"),
        ("out_broadcast_packets", "u4"),
        ("out_discards", "u4"),
        ("out_errors", "u4"),
        ("promiscuous", "u4"),
    ]
)
"""sFlow 5 `if_counters`; a counter the agent does not have is all ones. `origin`: index into `Decoded.origins`."""

ETHERNET_COUNTERS = np.dtype(
    [
        *_WHERE,
        ("alignment_errors", "u4"),
        ("fcs_errors", "u4"),
        ("single_collision_frames", "u4"),
        ("multiple_collision_frames", "u4"),
        ("sqe_test_errors", "u4"),
        ("deferred_transmissions", "u4"),
        ("late_collisions", "u4"),
        ("excessive_collisions", "u4"),
        ("internal_mac_transmit_errors", "u4"),
        ("carrier_sense_errors", "u4"),
        ("frames_too_long", "u4"),
        ("internal_mac_receive_errors", "u4"),
        ("symbol_errors", "u4"),
    ]
)
"""sFlow 5 `ethernet_counters` (dot3StatsTable of RFC 3635)."""


@dataclass(slots=True)
class Decoded:
    """What a batch of datagrams held. The order of the flows is not that of the datagrams.

    Args:
        flows: shape (n,), dtype `FLOW`.
        origin: shape (n,): who told each flow, an index into `origins`.
        received: shape (n,): when its datagram came, microseconds since 1970.
        origins: who is named in this batch.
        problems: how often, by (index into `origins`, reason).
        losses: one for each stream that came in this batch.
        interfaces, pools: what exporters told of themselves.
        interface_counters, ethernet_counters: sFlow's counter samples, by the dtypes of these names.
        skipped: what is not of flows and was not read: sFlow structures as `sample enterprise:format` or
            `structure enterprise:format`, data records as `record`. At most 100 names.
        templates_changed: what `Templates.dump()` gives is another than before.
    """

    flows: Flows = field(default_factory=lambda: np.zeros(0, FLOW))
    origin: NDArray[np.uint32] = field(default_factory=lambda: np.zeros(0, np.uint32))
    received: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    origins: list[Origin] = field(default_factory=list)
    problems: Counter[tuple[int, Reason]] = field(default_factory=Counter)
    losses: list[Loss] = field(default_factory=list)
    interfaces: list[InterfaceName] = field(default_factory=list)
    pools: list[SamplePool] = field(default_factory=list)
    interface_counters: NDArray[np.void] = field(default_factory=lambda: np.zeros(0, INTERFACE_COUNTERS))
    ethernet_counters: NDArray[np.void] = field(default_factory=lambda: np.zeros(0, ETHERNET_COUNTERS))
    skipped: Counter[str] = field(default_factory=Counter)
    templates_changed: bool = False
