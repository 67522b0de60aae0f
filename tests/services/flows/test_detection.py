"""What is found in flows: by scans, fan-outs and volumes that are known, beside traffic that is none of these."""

import numpy as np
import pytest

from nms_workers.records import Event
from nms_workers.services.flows import detection
from nms_workers.services.flows.addresses import halves, text
from nms_workers.services.flows.detection import Thresholds, Window, anomalies
from nms_workers.services.flows.record import FLOW, Flows

SYN, ACK, RST = 0x02, 0x10, 0x04
THRESHOLDS = Thresholds(ports=100, destinations=50, window=60.0)


def flows(source: str, destinations: list[str], ports: range | list[int], **fields: int) -> Flows:
    """A flow to each port of each destination."""
    made = np.zeros(len(destinations) * len(ports), FLOW)
    made["source_address"] = halves(source)
    made["destination_address"] = np.repeat([halves(one) for one in destinations], len(ports), axis=0)
    made["destination_port"] = np.tile(list(ports), len(destinations))
    for name, value in ({"protocol": 6, "source_port": 50_000, "packets": 1} | fields).items():
        made[name] = value
    return made


def found(*some: Flows, now: float = 1000.0) -> list[Event]:
    window = Window(THRESHOLDS)
    for one in some:
        window.add(one, now)
    return window.found(now)


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1", "0.0.0.0", "::"])
def test_addresses_are_read_as_they_are_written(address: str) -> None:
    assert text(np.array(halves(address), "u8")) == address


@pytest.mark.parametrize(("source", "victim"), [("192.0.2.1", "198.51.100.7"), ("2001:db8::1", "2001:db8:1::7")])
def test_a_port_scan_is_told_with_what_it_tried(source: str, victim: str) -> None:
    (event,) = found(flows(source, [victim], range(1, 101), tcp_control_bits=SYN))

    assert (event.kind, event.state, event.severity) == ("port_scan", "firing", "warning")
    assert event.attributes["source"], event.attributes["destination"] == (source, victim)
    assert event.attributes["ports"] == 100
    assert event.attributes["first_ports"] == list(range(1, 21))
    assert event.fingerprint == f"port_scan {source} {victim}"


def test_one_port_less_is_no_scan_however_often_each_is_tried() -> None:
    once = flows("192.0.2.1", ["198.51.100.7"], range(1, 100), tcp_control_bits=SYN)

    assert found(*[once] * 5) == []


def test_the_answers_of_the_scanned_are_no_scan() -> None:
    """A connect scan has a source port for each try, and the closed ports reset to each of these."""
    answers = flows("198.51.100.7", ["192.0.2.1"], range(40_000, 41_000), tcp_control_bits=RST | ACK)
    answers["source_port"] = np.arange(1, 1001)

    assert found(answers) == []


def test_a_server_that_answers_many_is_no_fan_out() -> None:
    clients = [f"192.0.2.{number}" for number in range(1, 200)]

    assert found(flows("198.51.100.7", clients, [50_000], source_port=53, protocol=17)) == []
    assert found(flows("198.51.100.7", clients, [50_000], source_port=443, tcp_control_bits=SYN | ACK)) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"tcp_control_bits": SYN},
        {"tcp_control_bits": 0},
        {"protocol": 17},
        {"protocol": 1, "source_port": 0, "icmp_type_code": 0x0800},
    ],
    ids=["syn", "flags-not-told", "udp", "ping"],
)
def test_a_fan_out_is_told_once_whatever_it_is_made_of(fields: dict[str, int]) -> None:
    victims = [f"198.51.100.{number}" for number in range(1, 51)]

    (event,) = found(flows("192.0.2.1", victims, [445], **fields))

    assert (event.kind, event.fingerprint) == ("fan_out", "fan_out 192.0.2.1")
    assert event.attributes["destinations"] == 50
    assert event.attributes["usual_port"] == (0 if fields.get("protocol") == 1 else 445)


def test_what_is_spread_over_the_window_is_added_up_and_what_is_older_is_not() -> None:
    window = Window(THRESHOLDS)
    for number in range(10):
        ports = range(1 + 10 * number, 11 + 10 * number)
        window.add(flows("192.0.2.1", ["198.51.100.7"], ports), now=1000 + 5.0 * number)

    assert [one.kind for one in window.found(1046.0)] == ["port_scan"]
    assert [one.kind for one in window.found(1050.0)] == ["port_scan"]
    assert window.found(1075.0) == []  # the first of them are over
    assert window.found(5000.0) == []


def test_ordinary_traffic_is_nothing() -> None:
    random = np.random.default_rng(1)
    some = np.zeros(50_000, FLOW)
    some["protocol"] = 6
    some["source_address"][:, 1] = random.integers(0, 1000, len(some))
    some["destination_address"][:, 1] = random.integers(5000, 5020, len(some))
    some["source_port"] = random.integers(32_768, 65_535, len(some))
    some["destination_port"] = random.choice([80, 443, 53, 22], len(some))

    assert found(some) == []


def test_what_is_held_is_bounded_and_what_found_no_room_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "MAX_SEEN", 50)
    window = Window(THRESHOLDS)

    window.add(flows("192.0.2.1", ["198.51.100.7"], range(1, 201)), now=1000.0)

    assert window.left_out == 150
    assert window.found(1000.0) == []


def test_only_the_worst_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "MAX_TOLD", 2)
    scans = [flows(f"192.0.2.{n}", ["198.51.100.7"], range(1, 101 + n)) for n in range(1, 5)]

    assert [one.attributes["ports"] for one in found(*scans)] == [104, 103]


def test_a_volume_far_above_its_past_is_an_anomaly_and_a_usual_one_is_not() -> None:
    past = {"link": [100.0, 110.0, 90.0, 105.0, 95.0, 100.0], "busy": [1000.0, 10.0, 800.0, 5.0, 900.0, 20.0]}

    told = anomalies({"link": 1000.0, "busy": 1500.0}, past, least=50, factor=3, hours=6)

    assert [(one.key, one.usual) for one in told] == [("link", 100.0)]
    assert told[0].score == pytest.approx(0.6745 * 900 / 5)  # deviations 0 10 10 5 5 0: their median is 5


@pytest.mark.parametrize(
    ("rate", "past"),
    [
        (40.0, [1.0] * 6),  # too little to be worth telling
        (1000.0, [1.0] * 5),  # too little is known of it
        (250.0, [100.0] * 6),  # not so many times as much
    ],
    ids=["little", "new", "not-much-more"],
)
def test_what_is_no_anomaly(rate: float, past: list[float]) -> None:
    assert anomalies({"a": rate}, {"a": past}, least=50, factor=3, hours=6) == []


def test_what_was_always_the_same_is_an_anomaly_by_the_factor_alone() -> None:
    (told,) = anomalies({"a": 301.0}, {"a": [100.0] * 6}, least=50, factor=3, hours=6)

    assert told.score == float("inf")
