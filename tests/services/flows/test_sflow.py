import struct
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nms_workers.services.flows.decoded import ETHERNET_COUNTERS, INTERFACE_COUNTERS, Reason, SamplePool
from nms_workers.services.flows.templates import Limits, Templates
from tests.services.flows import packets
from tests.services.flows.encode import (
    counter_sample,
    expanded_sample,
    flow_sample,
    header,
    located,
    packed,
    sflow,
    structure,
)
from tests.services.flows.exporters import export
from tests.services.flows.oracle import same_as_nfdump
from tests.services.flows.support import EXPORTER, NOW, address, patient, read, values

FRAME = packets.frame(0x0800, packets.ipv4("10.0.0.1", "10.0.0.2", 6, packets.tcp(1000, 443, 0x12)))
PORT = st.integers(0, 65_535)
FOUR = st.integers(0, (1 << 32) - 1).map(lambda number: address((0, 0xFFFF_0000_0000 | number)))
SIX = st.binary(min_size=16, max_size=16).map(lambda data: address(struct.unpack(">QQ", data)))
EXTENSIONS = {0: 0, 43: 1, 60: 2}  # protocol: length in words of eight bytes, after the first


@st.composite
def sampled(draw: st.DrawFn) -> tuple[bytes, dict[str, Any]]:
    """A frame and what must be read from it."""
    protocol = draw(st.sampled_from([6, 17, 132, 1, 58, 47]))
    source, destination = draw(PORT), draw(PORT)
    expected: dict[str, Any] = {"protocol": protocol}
    if protocol in {6, 17, 132}:
        expected |= {"source_port": source, "destination_port": destination}
    if protocol == 6:
        expected["tcp_control_bits"] = flags = draw(st.integers(0, 0xFFF))
        body = packets.tcp(source, destination, flags)
    elif protocol in {1, 58}:
        expected["icmp_type_code"] = source
        body = packets.icmp(source >> 8, source & 255)
    else:
        body = packets.udp(source, destination)
    kind, body = draw(_network(protocol, body, expected))
    if labels := draw(st.lists(st.integers(16, (1 << 20) - 1), max_size=5)):
        kind, body = 0x8847, packets.mpls(labels, body)
        expected |= {f"mpls_label_{index + 1}": label for index, label in enumerate(labels[:3])}
    tags = draw(st.lists(st.integers(0, 0xFFFF), max_size=3))
    expected |= {"vlan": tags[0] & 0xFFF} if tags else {}
    expected |= {"source_mac": packets.SOURCE_MAC, "destination_mac": packets.DESTINATION_MAC}
    return packets.frame(kind, body, tags), expected


@st.composite
def _network(draw: st.DrawFn, protocol: int, body: bytes, expected: dict[str, Any]) -> tuple[int, bytes]:
    tos, ttl = draw(st.integers(0, 255)), draw(st.integers(0, 255))
    expected |= {"class_of_service": tos, "minimum_ttl": ttl, "maximum_ttl": ttl}
    if draw(st.booleans()):
        source, destination = draw(FOUR), draw(FOUR)
        options = bytes(4 * draw(st.integers(0, 10)))
        found = packets.ipv4(source, destination, protocol, body, tos=tos, ttl=ttl, options=options)
        expected |= {"ip_version": 4, "source_address": source, "destination_address": destination}
        return 0x0800, found
    source, destination, label = draw(SIX), draw(SIX), draw(st.integers(0, (1 << 20) - 1))
    for extension in draw(st.lists(st.sampled_from(sorted(EXTENSIONS)), max_size=3)):
        words = EXTENSIONS[extension]
        protocol, body = extension, bytes([protocol, words]) + bytes(8 * words + 6) + body
    expected |= {"ip_version": 6, "source_address": source, "destination_address": destination, "flow_label": label}
    return 0x86DD, packets.ipv6(source, destination, protocol, body, tos=tos, ttl=ttl, label=label)


@patient
@given(st.lists(sampled(), min_size=1, max_size=8), st.booleans())
def test_headers_are_read_as_written(some: list[tuple[bytes, dict[str, Any]]], expanded: bool) -> None:
    sample = expanded_sample if expanded else flow_sample
    told = read([sflow(*(sample(header(frame, frame=1500, most=512)) for frame, _ in some))])
    assert not told.problems
    assert len(told.flows) == len(some)
    for flow, (_, expected) in zip(told.flows, some, strict=True):
        always = {
            "flow_start": NOW * 1_000_000, "flow_end": NOW * 1_000_000, "octets": 1500, "packets": 1,
            "octets_scaled": 150_000, "packets_scaled": 100, "sampling_interval": 100, "ingress_interface": 3,
            "egress_interface": 4, "observation_domain": 3, "export_version": 105,
        }  # fmt: skip
        zero = {"0.0.0.0", "::"}
        right = {name: value for name, value in (always | expected).items() if value}
        found = {**dict.fromkeys(right.keys() & {"source_address", "destination_address"}, "::"), **values(flow)}
        assert {name: "::" if value in zero else value for name, value in found.items()} == {
            name: "::" if value in zero else value for name, value in right.items()
        }


@pytest.mark.parametrize("most", range(0, 75, 7))
def test_a_header_that_is_cut_off_gives_what_is_whole(most: int) -> None:
    (flow,) = (told := read([sflow(flow_sample(header(FRAME, most=most)))])).flows
    assert (flow["octets"], flow["source_mac"] != 0) == (54, most >= 14)
    assert told.problems == ({(0, Reason.BAD_HEADER): 1} if most < 34 else {})
    assert (flow["source_port"], flow["tcp_control_bits"]) == (1000 if most >= 38 else 0, 0x12 if most >= 48 else 0)


def test_headers_of_ip_alone() -> None:
    six = packets.ipv6("2001:db8::1", "2001:db8::2", 17, packets.udp(5, 6))
    told = read([sflow(flow_sample(header(FRAME[14:], protocol=11)), flow_sample(header(six, protocol=12)))])
    assert [address(flow["source_address"]) for flow in told.flows] == ["10.0.0.1", "2001:db8::1"]
    assert told.flows["destination_port"].tolist() == [443, 6]


def test_what_is_not_ip_is_counted_by_its_frame() -> None:
    arp = packets.frame(0x0806, bytes(28))
    told = read([sflow(flow_sample(header(arp)), flow_sample(header(FRAME, protocol=7)))])
    assert told.flows["octets"].tolist() == [42, 54]
    assert told.flows["ip_version"].tolist() == [0, 0]
    assert told.problems == {(0, Reason.BAD_HEADER): 1}, "PPP; ARP is known and has no ports"


@pytest.mark.parametrize(
    "bad", [b"\x54" + FRAME[15:34], b"\x44" + FRAME[15:34], packets.frame(0x86DD, FRAME[14:])[14:] + bytes(20)],
    ids=["version", "header length", "IPv4 said to be IPv6"],
)  # fmt: skip
def test_a_header_that_contradicts_itself_is_told(bad: bytes) -> None:
    kind = 0x86DD if len(bad) > 20 else 0x0800
    told = read([sflow(flow_sample(header(packets.frame(kind, bad))))])
    assert told.problems == {(0, Reason.BAD_HEADER): 1}
    assert told.flows["ip_version"].tolist() == [0]


def test_later_fragments_have_no_ports() -> None:
    four = packets.ipv4("10.0.0.1", "10.0.0.2", 17, packets.udp(5, 6), fragment=100)
    later = bytes([17, 0]) + struct.pack(">HI", 100 << 3, 1) + packets.udp(5, 6)
    first = bytes([17, 0]) + struct.pack(">HI", 1, 1) + packets.udp(5, 6)
    frames = [
        packets.frame(0x0800, four),
        *(packets.frame(0x86DD, packets.ipv6("::1", "::2", 44, body)) for body in (later, first)),
    ]
    told = read([sflow(*(flow_sample(header(frame)) for frame in frames))])
    assert told.flows["protocol"].tolist() == [17, 17, 17]
    assert told.flows["destination_port"].tolist() == [0, 0, 6]


SWITCH = structure(1001, struct.pack(">IIII", 10, 0, 20, 0))
ROUTER = structure(1002, located("10.0.0.9") + struct.pack(">II", 24, 16))
ROUTER0 = structure(1002, struct.pack(">III", 0, 24, 16))  # an address of no known kind
ROUTER6 = structure(1002, located("2001:db8::9") + struct.pack(">II", 64, 48))
PATH = struct.pack(">IIIIII", 2, 2, 2, 65001, 65002, 1) + struct.pack(">II", 1, 65003)
GATEWAY = structure(
    1003, located("10.0.0.8") + struct.pack(">III", 65000, 64999, 64998) + PATH + struct.pack(">II", 0, 100)
)
MPLS = structure(1006, located("10.0.0.8") + struct.pack(">III", 2, 100 << 12, 200 << 12 | 256) + struct.pack(">I", 0))
NAT = structure(1007, located("198.51.100.1") + located("198.51.100.2"))
NAT6 = structure(1007, located("2001:db8::3") + located("2001:db8::4"))
NAT_PORTS = structure(1020, struct.pack(">II", 4000, 8443))
FOUR_SAMPLED = structure(
    3, struct.pack(">II", 900, 17) + packed("10.1.0.1") + packed("10.1.0.2") + struct.pack(">IIII", 53, 5353, 0, 4)
)
SIX_SAMPLED = structure(
    4, struct.pack(">II", 900, 6) + packed("::5") + packed("::6") + struct.pack(">IIII", 1, 2, 18, 8)
)
ETHERNET = structure(2, struct.pack(">I6s2x6s2xI", 64, b"\2\0\0\0\0\5", b"\2\0\0\0\0\6", 0x0800))


@pytest.mark.parametrize(
    ("told_", "expected"),
    [
        (SWITCH, {"vlan": 10, "post_vlan": 20}),
        (ROUTER, {"next_hop": "10.0.0.9", "source_prefix_length": 24, "destination_prefix_length": 16}),
        (ROUTER0, {"source_prefix_length": 24, "destination_prefix_length": 16}),
        (ROUTER6, {"next_hop": "2001:db8::9", "source_prefix_length": 64, "destination_prefix_length": 48}),
        (GATEWAY, {"bgp_next_hop": "10.0.0.8", "source_as": 64999, "destination_as": 65003}),
        (MPLS, {"mpls_label_1": 100, "mpls_label_2": 200}),
        (NAT, {"post_nat_source_address": "198.51.100.1", "post_nat_destination_address": "198.51.100.2"}),
        (NAT6, {"post_nat_source_address": "2001:db8::3", "post_nat_destination_address": "2001:db8::4"}),
        (NAT_PORTS, {"post_nat_source_port": 4000, "post_nat_destination_port": 8443}),
    ],
    ids=["switch", "router", "router without a hop", "router 6", "gateway", "mpls", "nat", "nat 6", "nat ports"],
)
def test_extended_data_is_read(told_: bytes, expected: dict[str, Any]) -> None:
    plain = values(read([sflow(flow_sample(header(FRAME)))]).flows[0])
    for structures in ((header(FRAME), told_), (told_, header(FRAME))):
        told = read([sflow(flow_sample(*structures))])
        assert values(told.flows[0]) == plain | expected
        assert not told.problems


@pytest.mark.parametrize(
    ("told_", "expected"),
    [
        (FOUR_SAMPLED, {"octets": 900, "protocol": 17, "source_address": "10.1.0.1", "destination_address": "10.1.0.2",
                        "source_port": 53, "destination_port": 5353, "class_of_service": 4, "ip_version": 4}),
        (SIX_SAMPLED, {"octets": 900, "protocol": 6, "source_address": "::5", "destination_address": "::6",
                       "source_port": 1, "destination_port": 2, "class_of_service": 8, "tcp_control_bits": 18,
                       "ip_version": 6}),
        (ETHERNET, {"octets": 64, "source_mac": 0x020000000005, "destination_mac": 0x020000000006}),
    ],
    ids=["ipv4", "ipv6", "ethernet"],
)  # fmt: skip
def test_an_agent_may_read_the_packet_itself(told_: bytes, expected: dict[str, Any]) -> None:
    found = values(read([sflow(flow_sample(told_))]).flows[0])
    assert expected.items() <= found.items()
    assert found["octets_scaled"] == 100 * expected["octets"]
    both = values(read([sflow(flow_sample(told_, header(FRAME)))]).flows[0])
    assert both["octets"] == len(FRAME), "the packet itself is the better witness"


@pytest.mark.parametrize(
    ("came", "left", "expected"),
    [
        ((0, 3), (0, 4), (3, 4, 0, 0)),
        ((0, 9), (0, 3), (9, 3, 1, 0)),
        ((0, 9), (0, 8), (9, 8, 255, 0)),
        ((0, 3), (1, 256), (3, 0, 0, 0x80)),
        ((0, 3), (2, 5), (3, 0, 0, 0)),
        ((0, 0x3FFFFFFF), (0, 0x3FFFFFFF), (0, 0, 255, 0)),
    ],
    ids=["in", "out", "neither", "dropped", "to many", "inside"],
)
@pytest.mark.parametrize("expanded", [False, True], ids=["compact", "expanded"])
def test_interfaces_and_direction(
    came: tuple[int, int], left: tuple[int, int], expected: tuple[int, ...], expanded: bool
) -> None:
    if expanded:
        sample = expanded_sample(header(FRAME), came=came, left=left)
    else:
        sample = flow_sample(header(FRAME), came=came[0] << 30 | came[1], left=left[0] << 30 | left[1])
    (flow,) = read([sflow(sample)]).flows
    names = ("ingress_interface", "egress_interface", "direction", "forwarding_status")
    assert tuple(int(flow[name]) for name in names) == expected


def test_interfaces_of_32_bits_need_expanded_samples() -> None:
    (flow,) = read([sflow(expanded_sample(header(FRAME), source=1 << 31, came=(0, 1 << 31)))]).flows
    assert (flow["ingress_interface"], flow["direction"]) == (1 << 31, 0)


def test_the_agent_is_told_beside_the_sender() -> None:
    told = read([sflow(flow_sample(header(FRAME)), agent=agent) for agent in ("192.0.2.9", "2001:db8::9")])
    assert [(one.address, one.agent) for one in told.origins] == [
        (EXPORTER, packed("192.0.2.9")),
        (EXPORTER, packed("2001:db8::9")),
    ]
    assert told.origin.tolist() == [0, 1]


def test_agents_tell_of_their_sampling() -> None:
    samples = [flow_sample(header(FRAME), number=index, source=5, pool=100 * index, drops=index) for index in (1, 2, 3)]
    other = flow_sample(header(FRAME), source=6)
    assert read([sflow(*samples, other)]).pools == [SamplePool(0, 3, 5, 100, 300, 3), SamplePool(0, 3, 6, 100, 1000, 0)]


def test_lost_datagrams_and_samples_are_counted() -> None:
    known = Templates()
    for number, samples in ((1, (1, 2)), (2, (3, 7)), (5, (8,))):
        told = read([sflow(*(flow_sample(header(FRAME), number=n) for n in samples), sequence=number)], known)
    losses = {loss.unit: (loss.source, loss.received, loss.lost) for loss in told.losses}
    assert losses == {"datagrams": (None, 1, 2), "samples": (3, 1, 0)}
    losses = {
        loss.unit: loss.lost for loss in read([sflow(flow_sample(header(FRAME), number=12), sequence=6)], known).losses
    }
    assert losses == {"datagrams": 0, "samples": 3}


def test_sources_of_samples_are_bounded() -> None:
    known = Templates(Limits(samplers=4))
    told = read([sflow(*(flow_sample(header(FRAME), source=source) for source in range(9)))], known)
    assert len(told.flows) == 9
    assert sum(loss.unit == "samples" for loss in told.losses) == 4


IF = [7, 6, 10**10, 1, 3, 1 << 40, 11, 12, 13, 14, 15, 16, 1 << 41, 21, 22, 23, 24, 25, 1]


@pytest.mark.parametrize("expanded", [False, True], ids=["compact", "expanded"])
def test_counters_of_interfaces(expanded: bool) -> None:
    generic = structure(1, struct.pack(">IIQIIQ6IQ6I", *IF))
    ethernet = structure(2, struct.pack(">13I", *range(1, 14)))
    if expanded:
        sample = structure(4, struct.pack(">IIII", 1, 0, 7, 3) + generic + ethernet + structure(1001, bytes(28)))
    else:
        sample = counter_sample(generic, ethernet, structure(1001, bytes(28)), source=7)
    told = read([sflow(sample, flow_sample(header(FRAME)), sample)])
    assert [row.tolist() for row in told.interface_counters] == [(0, NOW * 1_000_000, 3, *IF)] * 2
    assert [row.tolist() for row in told.ethernet_counters] == [(0, NOW * 1_000_000, 3, 7, *range(1, 14))] * 2
    assert told.skipped == {"counters 0:1001": 2}
    assert (told.interface_counters.dtype, told.ethernet_counters.dtype) == (INTERFACE_COUNTERS, ETHERNET_COUNTERS)
    assert len(told.flows) == 1


def test_what_we_do_not_read_is_skipped_by_its_length() -> None:
    known = header(FRAME)
    odd = structure(4300 << 12 | 7, b"abcde")
    told = read(
        [
            sflow(
                structure(5, bytes(40)),
                flow_sample(odd, known, odd),
                flow_sample(odd),
                structure(4300 << 12 | 1002, b""),
            )
        ]
    )
    assert told.flows["octets"].tolist() == [54]
    assert told.skipped == {
        "sample 0:5": 1, "sample 4300:1002": 1, "structure 4300:7": 3, "sample without a packet": 1,
    }  # fmt: skip
    assert not told.problems


@pytest.mark.parametrize(
    ("data", "reason", "flows"),
    [
        (sflow()[:12], Reason.TRUNCATED, 0),
        (sflow()[:4] + b"\0\0\0\3" + sflow()[8:], Reason.BAD_LENGTH, 0),
        (sflow(flow_sample(header(FRAME)), flow_sample(header(FRAME)))[:-4], Reason.TRUNCATED, 1),
        (sflow(flow_sample(header(FRAME)))[:-1] + b"\0" + b"\0\0\0\1\0\0\0", Reason.TRUNCATED, None),
        (sflow(structure(1, bytes(20))), Reason.BAD_SAMPLE, 0),
        (sflow(flow_sample(header(FRAME), b"\0\0\0\1\0\0\xff\xff")), Reason.BAD_SAMPLE, 1),
        (sflow(flow_sample(header(FRAME), b"\0\0\0")), Reason.BAD_SAMPLE, 1),
        (sflow(flow_sample(header(FRAME), structure(1001, bytes(12)))), Reason.BAD_SAMPLE, 1),
        (sflow(flow_sample(header(FRAME), structure(1, bytes(8)))), Reason.BAD_SAMPLE, 1),
        (sflow(flow_sample(header(FRAME), structure(1003, bytes(16) + b"\xff" * 20))), Reason.BAD_SAMPLE, 1),
        (sflow(flow_sample(header(FRAME), structure(1006, bytes(4) + b"\xff" * 20))), Reason.BAD_SAMPLE, 1),
        (sflow(counter_sample(b"\0\0\0\1\0\0\xff\xff")), Reason.BAD_SAMPLE, 0),
    ],
    ids=["short", "agent", "second sample", "garbage", "sample", "structure", "structures", "switch", "header",
         "gateway", "mpls", "counters"],
)  # fmt: skip
def test_what_is_wrong_is_named(data: bytes, reason: Reason, flows: int | None) -> None:
    told = read([data])
    if flows is None:  # more bytes than samples: no harm
        assert (len(told.flows), told.problems) == (1, {})
        return
    assert told.problems == {(0, reason): 1}
    assert len(told.flows) == flows


def test_one_datagram_cannot_ask_for_more_than_a_bound() -> None:
    tiny = flow_sample(structure(2, bytes(24)))
    told = read([sflow(*[tiny] * 700)], Templates(Limits(records=500)))
    assert len(told.flows) == 500
    assert told.problems == {(0, Reason.TOO_MANY_RECORDS): 200}


@pytest.mark.parametrize("name", ["pmacct-sflow", "pmacct-sflow-every-packet"])
def test_a_real_agent_is_read_as_nfdump_reads_it(name: str, tmp_path: Path) -> None:
    same_as_nfdump(export(name, tmp_path), tmp_path, times=False, icmp=False, sflow=True)


def test_a_real_agent_that_takes_every_packet_tells_all_of_them(tmp_path: Path) -> None:
    told = read(export("pmacct-sflow-every-packet", tmp_path), received=int(time.time() * 1e6))
    sent = packets.traffic()
    lengths = sorted(len(packet) + 4 for packet in sent)  # it counts the checksum of the frame in
    assert sorted(told.flows["octets"].tolist()) == sorted(told.flows["octets_scaled"].tolist()) == lengths
    assert {one.agent for one in told.origins} == {packed("192.0.2.8")}
    ports = [int.from_bytes(packet[36:38]) if packet[12] == 8 else int.from_bytes(packet[56:58]) for packet in sent]
    is_icmp = [packet[12] == 8 and packet[23] == 1 for packet in sent]
    expected = [0 if icmp else port for icmp, port in zip(is_icmp, ports, strict=True)]
    assert sorted(told.flows["destination_port"].tolist()) == sorted(expected)
