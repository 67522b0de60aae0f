import json
from typing import Any

import pytest

from nms_workers.services.flows.decoded import Reason
from nms_workers.services.flows.templates import Limits, Templates
from tests.services.flows import encode
from tests.services.flows.encode import Spec
from tests.services.flows.support import EXPORTER, NOW, read

SPECS = [Spec(8, 4), Spec(1, 4)]
ROW = encode.record(SPECS, [1, 300])
OTHER = [Spec(1, 4), Spec(8, 4)]  # the same length, the other way round
SECOND = 1_000_000


def template(version: int, specs: list[Spec] | None = None, number: int = 256) -> bytes:
    return encode.message(version, encode.template(version, number, SPECS if specs is None else specs))


def data(version: int, number: int = 256, rows: int = 1, domain: int = 7) -> bytes:
    return encode.message(version, encode.a_set(number, ROW * rows), domain=domain)


def octets(told: Any) -> list[int]:
    return list(told.flows["octets"].tolist())


both = pytest.mark.parametrize("version", [9, 10])


@both
def test_data_that_comes_first_waits_for_its_template(version: int) -> None:
    known = Templates()
    told = read([data(version, rows=3), data(version)], known, received=NOW * SECOND)
    assert (octets(told), told.problems, known.held) == ([], {}, 2)
    told = read([template(version), data(version)], known, received=(NOW + 9) * SECOND)
    assert octets(told) == [300] * 5
    assert (known.held, known.held_bytes) == (0, 0)
    assert sorted(told.received.tolist()) == [NOW * SECOND] * 4 + [(NOW + 9) * SECOND], "each when it came"
    assert not told.problems


@both
def test_data_waits_for_a_bounded_time(version: int) -> None:
    known = Templates(Limits(held_for=10))
    read([data(version)] * 3, known, received=NOW * SECOND)
    told = read([data(version)], known, received=(NOW + 11) * SECOND)
    assert (told.problems, known.held) == ({(0, Reason.NO_TEMPLATE): 3}, 1)
    assert octets(read([template(version)], known, received=(NOW + 12) * SECOND)) == [300]


@pytest.mark.parametrize(
    ("limits", "kept"),
    [(Limits(held=8), 2), (Limits(held_bytes=120), 3), (Limits(held=0), 0)],
    ids=["sets", "bytes", "nothing"],
)
def test_data_waits_in_a_bounded_volume(limits: Limits, kept: int) -> None:
    """One stream may have a quarter of it."""
    known = Templates(limits)
    told = read([data(9)] * 5, known)
    assert (known.held, told.problems) == (kept, {(0, Reason.NO_TEMPLATE): 5 - kept})
    others = [read([data(9, domain=domain)] * 5, known) for domain in range(10)]
    assert known.held <= limits.held
    assert known.held_bytes <= limits.held_bytes
    assert sum(told.problems[0, Reason.NO_TEMPLATE] for told in others) == 50 - known.held + kept


def test_the_others_go_on_waiting() -> None:
    known = Templates()
    read([data(9), data(9, number=300), data(9, domain=8)], known)
    assert octets(read([template(9)], known)) == [300]
    assert known.held == 2


@both
def test_a_template_may_change_in_mid_stream(version: int) -> None:
    told = read([template(version), data(version), template(version, OTHER), data(version), template(version)])
    assert sorted(octets(told)) == [1, 300]


@both
def test_templates_belong_to_a_port_and_a_domain_of_an_exporter(version: int) -> None:
    known = Templates()
    read([template(version)], known)
    assert octets(read([data(version)], known)) == [300]
    assert octets(read([data(version, domain=8)], known)) == []
    assert octets(read([data(version)], known, port=2056)) == []
    assert octets(read([data(version)], known, address=bytes(4))) == []
    assert known.counts() == {EXPORTER: 1, bytes(4): 0}


def test_the_same_domain_in_another_format_is_another_stream() -> None:
    known = Templates()
    read([template(9)], known)
    assert octets(read([data(10)], known)) == []


WITHDRAWALS = {
    "one": (encode.a_set(2, b"\1\0\0\0"), {257, 300}),
    "all of flows": (encode.a_set(2, b"\0\2\0\0"), {300}),
    "all of options": (encode.a_set(3, b"\0\3\0\0"), {256, 257}),
    "one of options": (encode.a_set(3, b"\1\x2c\0\0"), {256, 257}),
    "one that is not there": (encode.a_set(2, b"\7\0\0\0"), {256, 257, 300}),
}


@pytest.mark.parametrize("which", WITHDRAWALS)
def test_ipfix_withdraws_templates(which: str) -> None:
    known = Templates()
    body, left = WITHDRAWALS[which]
    options = encode.options_template(10, 300, [Spec(149, 4)], [Spec(34, 4)])
    read([template(10), template(10, number=257), encode.message(10, options)], known)
    read([encode.message(10, body)], known)
    (stream,) = known.dump()["streams"]
    assert {one["id"] for one in stream["templates"]} == left


def test_a_withdrawn_template_can_come_back_as_another() -> None:
    known = Templates()
    gone = encode.message(10, encode.a_set(2, b"\1\0\0\0"))
    told = read([template(10), data(10), gone, template(10, OTHER), data(10)], known)
    assert sorted(octets(told)) == [1, 300]


@pytest.mark.parametrize("refreshed", ["by data", "by itself", "not"])
def test_a_template_lives_while_it_is_used(refreshed: str) -> None:
    known = Templates(Limits(lifetime=600))
    keep = {"by data": data(9), "by itself": template(9), "not": data(9, number=999)}[refreshed]
    read([template(9)], known, received=NOW * SECOND)
    for minute in range(0, 30, 5):
        read([keep], known, received=(NOW + minute * 60) * SECOND)
    told = read([data(9)], known, received=(NOW + 30 * 60) * SECOND)
    assert octets(told) == ([] if refreshed == "not" else [300])


def test_a_silent_stream_is_forgotten() -> None:
    known = Templates(Limits(lifetime=600))
    read([template(9)], known, received=NOW * SECOND)
    read([template(9)], known, received=(NOW + 700) * SECOND, port=2)
    assert [stream["port"] for stream in known.dump()["streams"]] == [2]


def test_templates_of_a_stream_are_bounded() -> None:
    known = Templates(Limits(templates=3, lifetime=600))
    told = read([template(9, number=300 + index) for index in range(5)], known)
    assert told.problems == {(0, Reason.TOO_MANY_TEMPLATES): 2}
    assert known.counts() == {EXPORTER: 3}
    told = read([template(9, number=300), template(9, OTHER, number=301)], known)
    assert not told.problems, "those that are known may come again, and change"


def test_streams_of_an_exporter_are_bounded() -> None:
    known = Templates(Limits(streams=3))
    told = read([data(9, domain=domain) for domain in range(5)], known)
    assert told.problems == {(0, Reason.TOO_MANY_EXPORTERS): 2}
    assert not read([data(9)], known, address=bytes(4)).problems, "another one is not its victim"


@pytest.mark.parametrize("version", [5, 9, 10, 105])
def test_exporters_are_bounded(version: int) -> None:
    some = {5: encode.v5([{"octets": 1}]), 9: template(9), 10: template(10), 105: encode.sflow()}[version]
    known = Templates(Limits(exporters=2, lifetime=600))
    for index in range(4):
        told = read([some], known, address=bytes([10, 0, 0, index]))
        assert told.problems.get((0, Reason.TOO_MANY_EXPORTERS), 0) == (index >= 2)
    told = read([some], known, address=bytes(4), received=(NOW + 700) * SECOND)
    assert not told.problems.get((0, Reason.TOO_MANY_EXPORTERS)), "the silent ones make room"


def test_samplers_are_bounded() -> None:
    known = Templates(Limits(samplers=10))
    options = encode.options_template(9, 300, [Spec(2, 4)], [Spec(34, 4)])
    body = b"".join(index.to_bytes(4) + (100).to_bytes(4) for index in range(50))
    read([encode.message(9, options, encode.a_set(300, body))], known)
    (stream,) = known.dump()["streams"]
    assert len(stream["by_interface"]) == 10


def taught() -> Templates:
    """With two streams, options, and a sampler."""
    known = Templates()
    options = encode.options_template(10, 300, [Spec(302, 4)], [Spec(34, 4)])
    told = encode.a_set(300, (5).to_bytes(4) + (100).to_bytes(4))
    with_sampler = encode.template(10, 257, [*SPECS, Spec(302, 4)])
    up = encode.options_template(10, 301, [Spec(149, 4)], [Spec(160, 8)])
    told_up = encode.a_set(301, (7).to_bytes(4) + ((NOW - 60) * 1000).to_bytes(8))
    read([encode.message(10, options, told, with_sampler, up, told_up)], known)
    read([template(9)], known, address=bytes(15) + b"\1")
    return known


def test_templates_survive_a_restart() -> None:
    known = Templates()
    dumped = json.loads(json.dumps(taught().dump()))
    assert known.load(dumped) == 4
    assert known.dump() == dumped
    row = ROW + (5).to_bytes(4)
    told = read([encode.message(10, encode.a_set(257, row))], known)
    assert (octets(told), told.flows["octets_scaled"].tolist()) == ([300], [30_000])
    assert octets(read([data(9)], known, address=bytes(15) + b"\1")) == [300]


def test_what_is_too_old_is_gone_after_a_restart() -> None:
    known = Templates()
    known.load(taught().dump())
    told = read([data(9)], known, address=bytes(15) + b"\1", received=(NOW + 6000) * SECOND)
    assert octets(told) == []


def test_a_change_is_told_so_that_it_can_be_written() -> None:
    known = Templates()
    assert read([template(9)], known).templates_changed
    assert not read([template(9), data(9)], known).templates_changed, "it came again as it was"
    assert read([template(9, OTHER)], known).templates_changed
    options = encode.options_template(9, 300, [Spec(1, 4)], [Spec(34, 4)])
    assert read([encode.message(9, options)], known).templates_changed
    told = encode.message(9, encode.a_set(300, bytes(4) + (100).to_bytes(4)))
    assert read([told], known).templates_changed, "the sampling interval is kept too"
    assert not read([told], known).templates_changed


def test_templates_that_are_used_do_not_grow_old_in_the_file() -> None:
    known = Templates(Limits(lifetime=800))
    read([template(9)], known)
    told = [read([data(9)], known, received=(NOW + after) * SECOND).templates_changed for after in (50, 101, 150, 203)]
    assert told == [False, True, False, True]
    (stream,) = known.dump()["streams"]
    assert stream["templates"][0]["seen"] == (NOW + 203) * SECOND


@pytest.mark.parametrize(
    "dumped",
    [
        None,
        [],
        {"version": 1},
        {"version": 1, "streams": [None, 5, {"address": "nowhere"}]},
        {"version": 1, "streams": [{"address": "x", "port": 1, "version": 9, "domain": 1, "seen": 1}]},
        {"version": 1, "streams": [{"address": "::1", "port": 99_999, "version": 9, "domain": 1, "seen": 1}]},
        {"version": 1, "streams": [{"address": "::1", "port": 9, "version": 5, "domain": 1, "seen": 1}]},
    ],
    ids=["null", "list", "empty", "no streams", "no address", "no port", "no templates in that version"],
)
def test_a_file_that_does_not_read_is_no_error(dumped: object) -> None:
    known = Templates()
    assert known.load(dumped) == 0
    assert known.dump()["streams"] == []


@pytest.mark.parametrize(
    "change", [{"id": 5}, {"fields": []}, {"fields": [[0, 1, 60_000]]}, {"fields": [[0, 1, 1]] * 1000}, {"scope": 9}],
    ids=["id", "no field", "long", "many", "scope"],
)  # fmt: skip
def test_a_file_cannot_break_the_limits(change: dict[str, Any]) -> None:
    dumped = taught().dump()
    dumped["streams"][0]["templates"][0].update(change)
    known = Templates()
    assert known.load(dumped) == 3
    assert Templates(Limits(exporters=1)).load(dumped) == 2
