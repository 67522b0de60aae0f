from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nms_workers.services.flows.decoded import InterfaceName, Reason
from nms_workers.services.flows.templates import Templates
from tests.services.flows import encode
from tests.services.flows.encode import UPTIME, Spec
from tests.services.flows.exporters import export
from tests.services.flows.oracle import same_as_nfdump
from tests.services.flows.support import NOW, address, patient, read

BYTE, SHORT, LONG = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 32))

V5 = st.fixed_dictionaries(
    {
        **dict.fromkeys(("source", "destination", "hop", "packets", "octets"), LONG),
        **dict.fromkeys(("input", "output", "sport", "dport", "sas", "das"), SHORT),
        **dict.fromkeys(("flags", "protocol", "tos", "smask", "dmask"), BYTE),
        "first": st.integers(UPTIME - 600_000, UPTIME - 60_000),
        "last": st.integers(UPTIME - 60_000, UPTIME),
    }
)
NAMES = {
    "packets": "packets", "octets": "octets", "input": "ingress_interface", "output": "egress_interface",
    "sport": "source_port", "dport": "destination_port", "sas": "source_as", "das": "destination_as",
    "flags": "tcp_control_bits", "protocol": "protocol", "tos": "class_of_service", "smask": "source_prefix_length",
    "dmask": "destination_prefix_length",
}  # fmt: skip
SPECS = [Spec(8, 4), Spec(12, 4), Spec(2, 4), Spec(1, 4), Spec(22, 4), Spec(21, 4), Spec(4, 1)]
ROW = [0x0A000001, 0x0A000002, 3, 300, UPTIME - 9_000, UPTIME - 2_000, 17]


def v9(*sets: bytes, **more: int) -> bytes:
    return encode.message(9, *sets, **more)


def data(*rows: list[int], template: int = 256, padding: int | None = None) -> bytes:
    return encode.a_set(template, b"".join(encode.record(SPECS, row) for row in rows), padding)


TEMPLATE = encode.template(9, 256, SPECS)


def expected(record: dict[str, int], sampling: int) -> dict[str, int]:
    told = {name: record[word] for word, name in NAMES.items()}
    return told | {
        "flow_start": NOW * 1_000_000 - (UPTIME - record["first"]) * 1000,
        "flow_end": NOW * 1_000_000 - (UPTIME - record["last"]) * 1000,
        "octets_scaled": record["octets"] * max(sampling, 1),
        "packets_scaled": record["packets"] * max(sampling, 1),
        "sampling_interval": sampling,
    }


@pytest.mark.parametrize("version", [5, 7])
@patient
@given(records=st.lists(V5, min_size=1, max_size=30), sampling=st.integers(0, (1 << 14) - 1))
def test_fixed_records_are_read_as_written(version: int, records: list[dict[str, int]], sampling: int) -> None:
    if version == 7:
        sampling = 0  # it has no such field
    told = read([encode.v5(records, sampling=0x4000 | sampling) if version == 5 else encode.v7(records)])
    assert len(told.flows) == len(records)
    assert not told.problems
    for flow, record in zip(told.flows, records, strict=True):
        for name, value in expected(record, sampling).items():
            assert flow[name] == value, name
        for name, word in (("source_address", "source"), ("destination_address", "destination")):
            assert tuple(flow[name]) == (0, 0xFFFF_0000_0000 | record[word])
        assert tuple(flow["next_hop"]) == (0, 0xFFFF_0000_0000 | record["hop"] if record["hop"] else 0)
        assert (flow["ip_version"], flow["export_version"], flow["direction"]) == (4, version, 255)
        assert flow["observation_domain"] == (0x102 if version == 5 else 0)


def test_a_batch_of_several_exporters_keeps_them_apart() -> None:
    first = encode.v5([{"octets": 1, "packets": 1, "first": UPTIME, "last": UPTIME}] * 2)
    templates = Templates()
    one, other = bytes([10, 0, 0, 1]), bytes(15) + b"\1"
    told = read([first, first], templates, address=one)
    assert [told.origins[index].address for index in told.origin] == [one] * 4
    told = read([first], templates, address=other, received=NOW * 1_000_000 + 5)
    assert [told.origins[index].address for index in told.origin] == [other] * 2
    assert told.received.tolist() == [NOW * 1_000_000 + 5] * 2


def test_a_short_datagram_gives_its_whole_records() -> None:
    whole = encode.v5([{"octets": octets, "first": UPTIME, "last": UPTIME} for octets in (1, 2, 3)])
    told = read([whole[:-1], whole[:23], b"\0\5", whole])
    assert told.flows["octets"].tolist() == [1, 2, 1, 2, 3]
    assert told.problems == {(0, Reason.TRUNCATED): 3}


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\1abc", b"\0\0\0\4" + bytes(40), b"GET / HTTP/1.1"])
def test_what_is_no_export_is_counted(data: bytes) -> None:
    told = read([data])
    assert told.problems == {(0, Reason.UNKNOWN_VERSION): 1}
    assert len(told.flows) == 0


@pytest.mark.parametrize(
    ("sent", "received", "start", "end", "problems"),
    [
        ((UPTIME - 5_000, UPTIME), 0, -5, 0, {}),
        (((UPTIME - 2**31 // 1_000) & 0xFFFFFFFF, UPTIME), 0, -2_147.483, 0, {}),
        ((UPTIME, UPTIME - 5_000), 0, -5, -5, {Reason.TIME_REPLACED}),  # it ended before it began
        ((UPTIME - 10_000, UPTIME + 120_000), 0, -10, 0, {Reason.TIME_REPLACED}),  # it has not ended yet
        ((UPTIME + 2_000, UPTIME + 3_000), 0, 2, 3, {}),  # so little is the exporter's rounding
        ((0xFFFFFFFF - 7_000, UPTIME), 0, -1_007.001, 0, {}),  # the uptime wrapped in between
        (((UPTIME - 800_000_000) & 0xFFFFFFFF, UPTIME), 0, 0, 0, {Reason.TIME_REPLACED}),  # nine days
        ((UPTIME - 5_000, UPTIME), 86_400, 86_395, 86_400, {Reason.CLOCK_REPLACED}),
        ((UPTIME - 5_000, UPTIME), -86_400, -86_405, -86_400, {Reason.CLOCK_REPLACED}),
    ],
)
def test_times_that_cannot_be_are_replaced(
    sent: tuple[int, int], received: int, start: float, end: float, problems: set[Reason]
) -> None:
    record = {"octets": 1, "first": sent[0], "last": sent[1]}
    told = read([encode.v5([record])], received=(NOW + received) * 1_000_000)
    assert told.flows["flow_start"][0] - NOW * 1_000_000 == round(start * 1e6)
    assert told.flows["flow_end"][0] - NOW * 1_000_000 == round(end * 1e6)
    assert {reason for _, reason in told.problems} == set(problems)


@pytest.mark.parametrize(
    ("numbers", "lost", "late", "restarts"),
    [
        ([0, 2, 4], 0, 0, 0),
        ([10, 12, 16, 18], 2, 0, 0),
        ([10, 16, 12, 14, 18], 4, 4, 0),  # two were overtaken
        ([(1 << 32) - 2, 0, 2], 0, 0, 0),  # it wraps
        ([(1 << 32) - 2, 2], 2, 0, 0),
        ([1_000_000, 0, 2, 4], 0, 0, 1),
        ([5_000_000, 40_000_000, 40_000_002], 0, 0, 1),
        ([500, *range(100, 130, 2)], 0, 14, 1),  # it began anew, not at 0: seen when eight in a row are in order
    ],
)
def test_gaps_of_the_sequence_are_losses(numbers: list[int], lost: int, late: int, restarts: int) -> None:
    record = {"octets": 1, "first": UPTIME, "last": UPTIME}
    told = read([encode.v5([record, record], sequence=number) for number in numbers])
    (loss,) = told.losses
    assert (loss.version, loss.domain, loss.unit) == (5, 0x102, "flows")
    assert (loss.received, loss.lost, loss.late, loss.restarts) == (2 * len(numbers), lost, late, restarts)


def test_v9_counts_datagrams_across_batches() -> None:
    templates = Templates()
    assert read([v9(TEMPLATE, sequence=1)], templates).losses[0].lost == 0
    told = read([v9(data(ROW, ROW), sequence=3), v9(data(ROW), sequence=4)], templates)
    assert [(loss.unit, loss.received, loss.lost) for loss in told.losses] == [("datagrams", 2, 1)]


@patient
@given(rows=st.lists(st.tuples(LONG, LONG, LONG, LONG, BYTE), min_size=1, max_size=40), sets=st.integers(1, 4))
def test_v9_records_are_read_as_written(rows: list[tuple[int, ...]], sets: int) -> None:
    written = [[*row[:4], UPTIME - 9_000, UPTIME - 2_000, row[4]] for row in rows]
    told = read([v9(TEMPLATE, *(data(*written[index::sets]) for index in range(sets)))])
    read_back = Counter(
        (int(flow["source_address"][1]) & 0xFFFFFFFF, int(flow["destination_address"][1]) & 0xFFFFFFFF,
         int(flow["packets"]), int(flow["octets"]), int(flow["protocol"]))
        for flow in told.flows
    )  # fmt: skip
    assert read_back == Counter(rows)
    assert set((told.flows["flow_end"] - NOW * 1_000_000).tolist()) == {-2_000_000}
    assert not told.problems


@pytest.mark.parametrize("padding", [0, 1, 2, 3, 4, 24, 25, 26, 60])
def test_v9_padding_is_no_record(padding: int) -> None:
    told = read([v9(encode.a_set(0, TEMPLATE[4:], padding), data(ROW, ROW, padding=padding))])
    assert told.flows["octets"].tolist() == [300, 300]
    assert not told.problems


def test_templates_and_data_share_a_datagram_in_any_number() -> None:
    other = [Spec(27, 16), Spec(28, 16), Spec(1, 8), Spec(2, 8)]
    both = encode.a_set(0, TEMPLATE[4:] + encode.template(9, 300, other)[4:])
    six = encode.record(other, [encode.packed("2001:db8::1"), encode.packed("2001:db8::2"), 1 << 40, 1 << 33])
    told = read([v9(both, data(ROW), encode.a_set(300, six + six), data(ROW))])
    assert sorted(told.flows["octets"].tolist()) == [300, 300, 1 << 40, 1 << 40]
    found = next(flow for flow in told.flows if flow["ip_version"] == 6)
    assert (address(found["source_address"]), address(found["destination_address"])) == ("2001:db8::1", "2001:db8::2")
    assert found["flow_start"] == found["flow_end"] == NOW * 1_000_000, "no time was sent"


def test_both_kinds_of_address_in_one_template() -> None:
    specs = [Spec(8, 4), Spec(27, 16), Spec(12, 4), Spec(28, 16), Spec(1, 4)]
    none4, none6 = 0, bytes(16)
    four = encode.record(specs, [0x0A000001, none6, 0x0A000002, none6, 1])
    six = encode.record(specs, [none4, encode.packed("2001:db8::1"), none4, encode.packed("::2"), 2])
    told = read([v9(encode.template(9, 256, specs), encode.a_set(256, four + six))])
    assert [address(flow["source_address"]) for flow in told.flows] == ["10.0.0.1", "2001:db8::1"]
    assert [address(flow["destination_address"]) for flow in told.flows] == ["10.0.0.2", "::2"]
    assert told.flows["ip_version"].tolist() == [4, 6]


SYSTEM, INTERFACE = 1, 2  # scopes
SAMPLED = [*SPECS, Spec(48, 1), Spec(10, 2), Spec(34, 4)]


@pytest.mark.parametrize(
    ("sampler", "interface", "own", "interval"),
    [(0, 0, 0, 10), (7, 0, 0, 20), (0, 5, 0, 30), (7, 5, 0, 20), (7, 5, 40, 40), (8, 6, 0, 10)],
    ids=["all", "sampler", "interface", "sampler first", "record first", "neither is known"],
)
def test_options_say_how_it_is_sampled(sampler: int, interface: int, own: int, interval: int) -> None:
    everything = encode.options_template(9, 400, [Spec(SYSTEM, 4)], [Spec(34, 4), Spec(35, 1)])
    by_sampler = encode.options_template(9, 401, [Spec(SYSTEM, 4)], [Spec(48, 1), Spec(49, 1), Spec(50, 4)])
    by_interface = encode.options_template(9, 402, [Spec(INTERFACE, 4)], [Spec(34, 4)])
    told_ = [
        encode.a_set(400, (0).to_bytes(4) + (10).to_bytes(4) + b"\1"),
        encode.a_set(401, (0).to_bytes(4) + b"\7\2" + (20).to_bytes(4)),
        encode.a_set(402, (5).to_bytes(4) + (30).to_bytes(4)),
    ]
    templates = Templates()
    read([v9(everything, by_sampler, by_interface, *told_, encode.template(9, 256, SAMPLED))], templates)
    row = encode.record(SAMPLED, [*ROW, sampler, interface, own])
    told = read([v9(encode.a_set(256, row))], templates)
    (flow,) = told.flows
    assert (flow["sampling_interval"], flow["octets"], flow["octets_scaled"]) == (interval, 300, 300 * interval)
    assert flow["packets_scaled"] == 3 * interval


def test_names_of_interfaces_are_learnt() -> None:
    known = encode.options_template(9, 400, [Spec(INTERFACE, 4)], [Spec(82, 8), Spec(83, 12)])
    body = (5).to_bytes(4) + b"Gi0/1\0\0\0" + b"up\x07\xfflink\0\0\0\0\0"
    told = read([v9(known, encode.a_set(400, body))])
    assert told.interfaces == [InterfaceName(0, 5, "Gi0/1", "up\N{REPLACEMENT CHARACTER}link")]


def test_a_scaled_counter_stays_in_its_64_bits() -> None:
    specs = [Spec(8, 4), Spec(1, 8), Spec(2, 8), Spec(34, 4)]
    row = encode.record(specs, [1, (1 << 63) + 5, 7, 1000])
    (flow,) = read([v9(encode.template(9, 256, specs), encode.a_set(256, row))]).flows
    assert flow["octets_scaled"] == ((1 << 64) - 1) // 1000 * 1000
    assert flow["packets_scaled"] == 7000


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"\1\0\0\3", Reason.BAD_LENGTH),
        (b"\1\0\0\xff", Reason.BAD_LENGTH),
        (b"\0\x09\0\4", Reason.RESERVED_SET),
        (encode.a_set(0, b"\1\0\0\x09" + bytes(8)), Reason.BAD_LENGTH),
        (encode.template(9, 255, SPECS), Reason.BAD_TEMPLATE),
        (encode.template(9, 256, [Spec(8, 0)]), Reason.BAD_TEMPLATE),
        (encode.template(9, 256, []), Reason.BAD_TEMPLATE),
        (encode.template(9, 256, [Spec(8, 4), Spec(210, 5000)]), Reason.BAD_TEMPLATE),
        (encode.template(9, 256, [Spec(8, 4)] * 513), Reason.BAD_TEMPLATE),
    ],
    ids=["no length", "too long", "reserved", "cut off", "low id", "no byte", "no field", "long record", "many fields"],
)
def test_what_is_wrong_is_named(body: bytes, reason: Reason) -> None:
    assert read([v9(body)]).problems == {(0, reason): 1}


def test_one_datagram_cannot_ask_for_more_than_a_bound() -> None:
    specs = [Spec(4, 1)]
    told = read([v9(encode.template(9, 256, [*specs, Spec(2, 1)]), encode.a_set(256, b"\1" * 60_000))])
    assert len(told.flows) == Templates().limits.records
    assert told.problems == {(0, Reason.TOO_MANY_RECORDS): 30_000 - len(told.flows)}


@pytest.mark.parametrize("name", ["softflowd-v5", "softflowd-v9", "softflowd-v9-sampled", "pmacct-v5", "pmacct-v9"])
def test_real_exporters_are_read_as_nfdump_reads_them(name: str, tmp_path: Path) -> None:
    same_as_nfdump(export(name, tmp_path), tmp_path, icmp=name != "pmacct-v9")  # told as a port, which nfdump skips
