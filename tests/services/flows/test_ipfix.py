import struct
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nms_workers.services.flows.decoded import InterfaceName, Reason
from nms_workers.services.flows.elements import ELEMENTS, REVERSE, VARIABLE
from nms_workers.services.flows.record import FLOW
from nms_workers.services.flows.templates import Templates
from tests.services.flows import encode
from tests.services.flows.encode import Spec, packed, variable
from tests.services.flows.exporters import export
from tests.services.flows.oracle import same_as_nfdump
from tests.services.flows.support import NOW, address, patient, read

NUMBERS = {
    1: "octets", 2: "packets", 4: "protocol", 5: "class_of_service", 6: "tcp_control_bits", 7: "source_port",
    9: "source_prefix_length", 10: "ingress_interface", 11: "destination_port", 13: "destination_prefix_length",
    14: "egress_interface", 16: "source_as", 17: "destination_as", 31: "flow_label", 32: "icmp_type_code",
    34: "sampling_interval", 52: "minimum_ttl", 53: "maximum_ttl", 56: "source_mac", 58: "vlan", 59: "post_vlan",
    60: "ip_version", 61: "direction", 80: "destination_mac", 89: "forwarding_status", 95: "application_id",
    136: "flow_end_reason", 227: "post_nat_source_port", 228: "post_nat_destination_port", 234: "ingress_vrf",
}  # fmt: skip
"""Elements and where they must come out, as the registry and the record describe them: not read from our table."""

FULL = {56: 6, 80: 6, 4: 1, 5: 1, 6: 2, 7: 2, 9: 1, 11: 2, 13: 1, 32: 2, 52: 1, 53: 1, 58: 2, 59: 2, 60: 1, 61: 1,
        89: 1, 136: 1, 227: 2, 228: 2, 1: 8, 2: 8}  # fmt: skip
ADDRESSES = {
    8: "source_address", 12: "destination_address", 15: "next_hop", 18: "bgp_next_hop", 225: "post_nat_source_address",
    226: "post_nat_destination_address", 27: "source_address", 28: "destination_address", 62: "next_hop",
    63: "bgp_next_hop", 281: "post_nat_source_address", 282: "post_nat_destination_address",
}  # fmt: skip
NOTHING = [Spec(210, 3), Spec(9, 1, REVERSE), Spec(2, 4, 4242), Spec(999, 5), Spec(371, VARIABLE), Spec(7, 40, 9)]
"""Padding, the way back, an enterprise's field, an element that is not registered, texts, a long one."""


def ipfix(*sets: bytes, **more: int) -> bytes:
    return encode.message(10, *sets, **more)


@st.composite
def templates(draw: st.DrawFn) -> tuple[list[Spec], list[str]]:
    """Fields in any order and, where they are numbers, of any length that holds them; what they feed."""
    numbers = draw(st.lists(st.sampled_from(sorted(NUMBERS)), min_size=1, unique=True))
    addresses = draw(st.lists(st.sampled_from(sorted(ADDRESSES)), unique_by=lambda number: ADDRESSES[number]))
    specs = [(Spec(number, draw(_length(number))), NUMBERS[number]) for number in numbers]
    specs += [
        (Spec(number, 4 if number in {8, 12, 15, 18, 225, 226} else 16), ADDRESSES[number]) for number in addresses
    ]
    specs += [(spec, "") for spec in draw(st.lists(st.sampled_from(NOTHING), max_size=4))]
    specs.append((Spec(1, 8), "octets") if 1 not in numbers else (Spec(210, 1), ""))
    shuffled = draw(st.permutations(specs))
    return [spec for spec, _ in shuffled], [name for _, name in shuffled]


def _length(number: int) -> st.SearchStrategy[int]:
    full = FULL.get(number, 4)
    return st.just(full) if number in {56, 80} else st.integers(1, full)


@patient
@given(templates(), st.data())
def test_any_template_is_read_as_written(template: tuple[list[Spec], list[str]], data: st.DataObject) -> None:
    specs, names = template
    rows = data.draw(st.lists(st.tuples(*(_value(spec) for spec in specs)), min_size=1, max_size=5))
    body = b"".join(encode.record(specs, row) for row in rows)
    most = sum(1 if spec.length == VARIABLE else spec.length for spec in specs) - 1
    padding = data.draw(st.integers(0, min(most, 3)))
    told = read([ipfix(encode.template(10, 256, specs), encode.a_set(256, body, padding))])
    assert not told.problems
    for flow, row in zip(told.flows, rows, strict=True):
        for name, value in zip(names, row, strict=True):
            if name in ADDRESSES.values():
                assert address(flow[name]) == _text(value, none=name.startswith(("next", "bgp", "post"))), name
            elif name:
                assert flow[name] == value, name


def _text(value: int | bytes, *, none: bool) -> str:
    if isinstance(value, int):
        return "::" if none and not value else ".".join(str(part) for part in value.to_bytes(4))
    return address(struct.unpack(">QQ", value))


def _value(spec: Spec) -> st.SearchStrategy[Any]:
    if spec.length == VARIABLE:
        return st.binary(max_size=300).map(variable)
    if spec.length > 8:
        return st.binary(min_size=spec.length, max_size=spec.length)
    return st.integers(0, (1 << 8 * spec.length) - 1)


SPECS = [Spec(8, 4), Spec(12, 4), Spec(2, 4), Spec(1, 4)]
TEMPLATE = encode.template(10, 256, SPECS)
ROW = encode.record(SPECS, [1, 2, 3, 300])


def ntp(seconds: float) -> int:
    return int((seconds + 2_208_988_800) * (1 << 32))


@pytest.mark.parametrize(
    ("number", "length", "value"),
    [
        (150, 4, NOW - 9),
        (152, 8, (NOW - 9) * 1000),
        (154, 8, ntp(NOW - 9)),
        (156, 8, ntp(NOW - 9)),
        (158, 4, 9_000_000),
        (22, 4, 3_591_000),
    ],
    ids=["seconds", "milliseconds", "microseconds", "nanoseconds", "before the export", "since the exporter came up"],
)
@pytest.mark.parametrize("boot", ["record", "options"])
def test_times_come_in_any_unit(number: int, length: int, value: int, boot: str) -> None:
    """The exporter came up an hour before."""
    up = (NOW - 3600) * 1000
    start, end = Spec(number, length), Spec(number + (1 if number != 22 else -1), length)
    specs = [*SPECS, start, end, *([Spec(160, 8)] if boot == "record" else [])]
    template = encode.template(10, 256, specs) + encode.options_template(10, 300, [Spec(149, 4)], [Spec(160, 8)])
    row = encode.record(specs, [1, 2, 3, 300, value, value, *([up] if boot == "record" else [])])
    told_up = encode.a_set(300, (7).to_bytes(4) + up.to_bytes(8))
    told = read([ipfix(template, *([told_up] if boot == "options" else []), encode.a_set(256, row))])
    assert told.flows["flow_start"].tolist() == told.flows["flow_end"].tolist() == [(NOW - 9) * 1_000_000]
    assert not told.problems


def test_fractions_of_a_second_are_kept() -> None:
    specs = [*SPECS, Spec(154, 8), Spec(155, 8)]
    row = encode.record(specs, [1, 2, 3, 300, ntp(NOW - 8.75), ntp(NOW - 0.5)])
    (flow,) = read([ipfix(encode.template(10, 256, specs), encode.a_set(256, row))]).flows
    assert (flow["flow_start"], flow["flow_end"]) == ((NOW - 8.75) * 1e6, (NOW - 0.5) * 1e6)


def test_uptimes_without_a_start_of_the_exporter_are_no_times() -> None:
    specs = [*SPECS, Spec(22, 4), Spec(21, 4)]
    row = encode.record(specs, [1, 2, 3, 300, 100, 200])
    told = read([ipfix(encode.template(10, 256, specs), encode.a_set(256, row))])
    assert told.problems == {(0, Reason.TIME_REPLACED): 1}
    assert told.flows["flow_end"][0] == NOW * 1_000_000


@pytest.mark.parametrize(("end", "start"), [(True, NOW - 12), (False, NOW - 10)], ids=["of the end", "of the start"])
def test_a_duration_gives_the_other_end(end: bool, start: int) -> None:
    specs = [*SPECS, Spec(153 if end else 152, 8), Spec(161, 4)]
    row = encode.record(specs, [1, 2, 3, 300, (NOW - 10) * 1000, 2000])
    (flow,) = read([ipfix(encode.template(10, 256, specs), encode.a_set(256, row))]).flows
    assert (flow["flow_start"], flow["flow_end"]) == (start * 1_000_000, (start + 2) * 1_000_000)


def test_a_start_or_an_end_alone_is_both() -> None:
    for number in (152, 153):
        specs = [*SPECS, Spec(number, 8)]
        row = encode.record(specs, [1, 2, 3, 300, (NOW - 10) * 1000])
        (flow,) = read([ipfix(encode.template(10, 256, specs), encode.a_set(256, row))]).flows
        assert flow["flow_start"] == flow["flow_end"] == (NOW - 10) * 1_000_000


def test_a_biflow_is_two_flows() -> None:
    specs = [
        *SPECS, Spec(7, 2), Spec(11, 2), Spec(10, 4), Spec(14, 4), Spec(6, 1),
        Spec(1, 4, REVERSE), Spec(2, 4, REVERSE), Spec(6, 1, REVERSE),
    ]  # fmt: skip
    rows = [
        [0x0A000001, 0x0A000002, 3, 300, 1000, 443, 5, 6, 0x1A, 900, 9, 0x12],
        [0x0A000001, 0x0A000002, 4, 400, 1000, 443, 5, 6, 0x1A, 0, 0, 0],
        [0x0A000001, 0x0A000002, 0, 0, 1000, 443, 5, 6, 0, 500, 5, 0x12],
    ]
    body = b"".join(encode.record(specs, row) for row in rows)
    told = read([ipfix(encode.template(10, 256, specs), encode.a_set(256, body))])
    assert [
        (
            *_end(flow, "source", "ingress"),
            *_end(flow, "destination", "egress"),
            flow["octets"],
            flow["tcp_control_bits"],
        )
        for flow in told.flows
    ] == [
        ("10.0.0.1", 1000, 5, "10.0.0.2", 443, 6, 300, 0x1A),
        ("10.0.0.1", 1000, 5, "10.0.0.2", 443, 6, 400, 0x1A),
        ("10.0.0.2", 443, 6, "10.0.0.1", 1000, 5, 900, 0x12),
        ("10.0.0.2", 443, 6, "10.0.0.1", 1000, 5, 500, 0x12),
    ]
    assert told.origin.tolist() == [0] * 4
    assert told.losses[0].received == 3, "records, not flows"


def _end(flow: Any, which: str, interface: str) -> tuple[str, int, int]:
    return address(flow[f"{which}_address"]), int(flow[f"{which}_port"]), int(flow[f"{interface}_interface"])


def test_labels_and_icmp() -> None:
    specs = [Spec(8, 4), Spec(70, 3), Spec(71, 3), Spec(176, 1), Spec(177, 1), Spec(195, 1), Spec(192, 1)]
    row = encode.record(specs, [1, 0xABCDE1, 0x000121, 8, 3, 46, 61])
    (flow,) = read([ipfix(encode.template(10, 256, specs), encode.a_set(256, row))]).flows
    assert (flow["mpls_label_1"], flow["mpls_label_2"], flow["icmp_type_code"]) == (0xABCDE, 0x12, 8 << 8 | 3)
    assert (flow["class_of_service"], flow["minimum_ttl"], flow["maximum_ttl"]) == (46 << 2, 61, 61)


@pytest.mark.parametrize(
    ("specs", "row", "interval"),
    [
        ([Spec(34, 4)], [100], 100),
        ([Spec(305, 4), Spec(306, 4)], [1, 99], 100),
        ([Spec(305, 4), Spec(306, 4)], [10, 10], 2),
        ([Spec(305, 4)], [1], 1),
        ([Spec(309, 4), Spec(310, 4)], [5, 500], 100),
    ],
    ids=["interval", "one and ninety-nine", "ten and ten", "every packet", "so many of so many"],
)
@pytest.mark.parametrize("where", ["options", "record", "selector"])
def test_sampling_is_told_in_many_ways(specs: list[Spec], row: list[int], interval: int, where: str) -> None:
    if where == "record":
        every = [*SPECS, *specs]
        sets = [encode.template(10, 256, every), encode.a_set(256, encode.record(every, [1, 2, 3, 300, *row]))]
    else:
        scope = [Spec(149, 4)] if where == "options" else [Spec(302, 8)]
        with_selector = [*SPECS, *([Spec(302, 2)] if where == "selector" else [])]
        sets = [
            encode.options_template(10, 300, scope, specs),
            encode.a_set(300, encode.record([*scope, *specs], [9, *row])),
            encode.template(10, 256, with_selector),
            encode.a_set(256, encode.record(with_selector, [1, 2, 3, 300, *([9] if where == "selector" else [])])),
        ]
    (flow,) = read([ipfix(*sets)]).flows
    assert (flow["sampling_interval"], flow["octets_scaled"], flow["packets_scaled"]) == (
        interval, 300 * interval, 3 * interval,
    )  # fmt: skip


@pytest.mark.parametrize("long", [False, True])
def test_names_of_variable_length_are_learnt(long: bool) -> None:
    template = encode.options_template(10, 300, [Spec(10, 4)], [Spec(82, VARIABLE), Spec(83, VARIABLE)])
    body = b"".join(
        index.to_bytes(4) + variable(f"eth{index}".encode(), long=long) + variable(b"up" * index, long=long)
        for index in range(3)
    )
    told = read([ipfix(template, encode.a_set(300, body))])
    assert told.interfaces == [InterfaceName(0, index, f"eth{index}", "up" * index) for index in range(3)]
    assert told.losses[0].received == 3


def test_fields_that_no_table_knows_are_named() -> None:
    known = Templates()
    read([ipfix(encode.template(10, 256, [*SPECS, Spec(999, 4), Spec(5, 2, 4242), Spec(7, 17)]))], known)
    assert known.unknown_fields == {"0.999": 1, "4242.5": 1, "sourceTransportPort[17]": 1}
    read([ipfix(encode.template(10, 257, [Spec(1000 + number, 4) for number in range(200)]))], known)
    assert len(known.unknown_fields) == known.limits.names


def test_records_that_are_no_flows_are_skipped() -> None:
    specs = [Spec(4, 1), Spec(22, 4)]
    told = read([ipfix(encode.template(10, 256, specs), encode.a_set(256, bytes(10)))])
    assert (len(told.flows), told.skipped, told.losses[0].received) == (0, {"record": 2}, 2)


def test_the_sequence_counts_records_and_waits_for_what_it_cannot_count() -> None:
    known = Templates()
    data = encode.a_set(256, ROW * 4)
    steps = [
        ([ipfix(TEMPLATE, sequence=100)], 0),
        ([ipfix(data, sequence=100), ipfix(data, sequence=104)], 0),
        ([ipfix(data, sequence=118)], 10),
        ([ipfix(encode.a_set(999, ROW), sequence=122), ipfix(data, sequence=900)], 0),
        ([ipfix(data, sequence=905)], 1),
    ]
    for datagrams, lost in steps:
        (loss,) = read(datagrams, known).losses
        assert (loss.unit, loss.lost, loss.late, loss.restarts) == ("records", lost, 0, 0)


def test_an_exporter_that_counts_its_own_records_in_loses_nothing() -> None:
    sizes = [5, 3, 9, 9, 1, 7]
    datagrams, number = [ipfix(TEMPLATE, sequence=0)], 0
    for size in sizes:
        number += size
        datagrams.append(ipfix(encode.a_set(256, ROW * size), sequence=number))
    (loss,) = read(datagrams).losses
    assert (loss.received, loss.lost, loss.late, loss.restarts) == (sum(sizes), 0, 0, 0)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (ipfix(TEMPLATE)[:15], Reason.TRUNCATED),
        (ipfix(TEMPLATE)[:2] + b"\0\5" + ipfix(TEMPLATE)[4:], Reason.BAD_LENGTH),
        (ipfix(encode.a_set(4, bytes(8))), Reason.RESERVED_SET),
        (ipfix(b"\1\0\0\2"), Reason.BAD_LENGTH),
        (ipfix(encode.a_set(2, struct.pack(">HHHH", 256, 9, 8, 4))), Reason.BAD_LENGTH),
        (ipfix(encode.a_set(2, struct.pack(">HHHH", 256, 1, 0x8008, 4))), Reason.BAD_LENGTH),
        (ipfix(encode.options_template(10, 300, [], [Spec(34, 4)])), Reason.BAD_TEMPLATE),
        (ipfix(encode.a_set(3, struct.pack(">HHHHHI", 300, 1, 2, 34, 4, 0))), Reason.BAD_TEMPLATE),
    ],
    ids=["short", "no length", "reserved", "set", "fields", "enterprise", "no scope", "more scope than fields"],
)
def test_what_is_wrong_is_named(data: bytes, reason: Reason) -> None:
    assert read([data]).problems == {(0, reason): 1}


def test_a_field_of_variable_length_that_leads_out_ends_the_set() -> None:
    specs = [Spec(8, 4), Spec(371, VARIABLE), Spec(1, 4)]
    good = encode.record(specs, [1, variable(b"abc"), 5])
    for bad in (b"\0\0\0\1\xfe", b"\0\0\0\1\xff\xff", b"\0\0\0\1\xff\xff\xff" + bytes(20)):
        told = read([ipfix(encode.template(10, 256, specs), encode.a_set(256, good + bad + bytes(8), 0))])
        assert told.flows["octets"].tolist() == [5]
        assert told.problems == {(0, Reason.BAD_LENGTH): 1}


def test_an_options_record_that_is_cut_off_is_told() -> None:
    template = encode.options_template(10, 300, [Spec(10, 4)], [Spec(82, VARIABLE)])
    told = read([ipfix(template, encode.a_set(300, (5).to_bytes(4) + b"\x09eth", 0))])
    assert told.problems == {(0, Reason.BAD_OPTIONS): 1}
    assert not told.interfaces


def test_the_table_of_elements_names_fields_that_exist() -> None:
    words = {"start", "end", "duration", "boot", "icmp_type", "icmp_code", "ttl", "sampler", "sampling_packets",
             "sampling_space", "sampling_size", "sampling_population", "reverse_octets", "reverse_packets",
             "interface_name", "interface_description"}  # fmt: skip
    used = {element.field for element in ELEMENTS.values() if element.field}
    assert used <= {*FLOW.names, *words}
    never = {"octets_scaled", "packets_scaled", "observation_domain", "export_version", "flow_start", "flow_end"}
    assert set(FLOW.names) - used <= {*never, "icmp_type_code"}
    ranks = [(element.field, element.rank) for element in ELEMENTS.values() if element.field]
    assert len(set(ranks)) == len(ranks), "two elements of the same rank for one field"


@pytest.mark.parametrize(
    "name", ["softflowd-ipfix", "softflowd-ipfix-sampled", "softflowd-ipfix-milliseconds",
             "softflowd-ipfix-microseconds", "softflowd-ipfix-ethernet", "pmacct-ipfix"],
)  # fmt: skip
def test_real_exporters_are_read_as_nfdump_reads_them(name: str, tmp_path: Path) -> None:
    told_as_port = name == "pmacct-ipfix"  # ICMP, which nfdump then skips
    same_as_nfdump(export(name, tmp_path), tmp_path, times="micro" not in name, icmp=not told_as_port)


def test_both_ways_of_a_real_exporter_are_flows_of_their_own(tmp_path: Path) -> None:
    found = []
    for name in ("softflowd-ipfix-both-ways", "softflowd-ipfix"):
        (folder := tmp_path / name).mkdir()
        told = read(export(name, folder), received=int(time.time() * 1e6))
        found.append((told.losses[0].received, sorted(_who(flow) for flow in told.flows)))
    (both, there_and_back), (single, one_way) = found
    assert there_and_back == one_way
    assert both < single, "one record tells of two flows"


def _who(flow: Any) -> tuple[Any, ...]:
    ends = (address(flow["source_address"]), address(flow["destination_address"]))
    return (*ends, *(int(flow[name]) for name in ("source_port", "destination_port", "packets", "octets")))


def test_addresses_are_text_to_people() -> None:
    specs = [Spec(27, 16), Spec(28, 16), Spec(1, 4)]
    row = encode.record(specs, [packed("fe80::1"), packed("2001:db8::ff"), 1])
    (flow,) = read([ipfix(encode.template(10, 256, specs), encode.a_set(256, row))]).flows
    assert (address(flow["source_address"]), flow["ip_version"]) == ("fe80::1", 6)
