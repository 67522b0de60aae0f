"""Shaping and policing, measured; done twice, undone, in sequence."""

import pytest

from tests.services.traffic_control.conftest import Act
from tests.services.traffic_control.lab import Lab, await_true


def assert_rate(lab: Lab, megabits: float, *, reverse: bool = False) -> None:
    """TCP gets this rate within 10 %: never more; on a starved machine, as much in one of three tries."""
    for _ in range(3):
        measured = lab.rate(reverse=reverse)
        assert measured <= megabits * 1.1
        if measured >= megabits * 0.9:
            return
    pytest.fail(f"TCP got {measured:.2f} Mbit/s of {megabits}")


def test_a_shape_of_10_mbit_gives_10_mbit_and_undo_gives_it_back(lab: Lab, act: Act) -> None:
    rules, free = lab.rules(), lab.rate()
    done = act("shape", rate="10mbit", destination=lab.far_address)
    assert done.changed
    assert_rate(lab, 10)
    undone = act("restore", before=done.before)
    assert undone.changed
    assert lab.rules() == rules
    assert free > 100, "the line itself is too slow to tell"
    assert lab.rate() > free / 3  # other tests may be running, but no shape is


def test_a_changed_shape_has_the_new_rate_and_undo_the_old_one(lab: Lab, act: Act) -> None:
    act("shape", rate="4mbit", destination=lab.far_address)
    rules = lab.rules()
    done = act("shape", rate="16mbit", burst=40_000, destination=lab.far_address)
    assert done.before["shapes"][0]["limits"]["rate"] == 4_000_000
    assert done.after["shapes"][0]["limits"]["rate"] == 16_000_000
    assert_rate(lab, 16)
    act("restore", before=done.before)
    assert lab.rules() == rules


def test_policing_limits_what_is_received(lab: Lab, act: Act) -> None:
    rules = lab.rules()
    done = act("police", rate="8mbit")
    assert_rate(lab, 8, reverse=True)
    once = lab.rules()
    assert not act("police", rate="8mbit").changed
    assert lab.rules() == once
    assert act("police", rate="6mbit").before["ingress"]["rate"] == 8_000_000
    assert act("restore", before=done.before).changed
    assert lab.rules() == rules


def test_a_class_borrows_up_to_its_ceiling(lab: Lab, act: Act) -> None:
    act("shape", rate="2mbit", ceil="10mbit", destination=lab.far_address)
    assert_rate(lab, 10)


@pytest.mark.parametrize(
    ("action", "arguments"),
    [
        ("shape", {"rate": "10mbit", "source": "10.99.0.0/24", "protocol": "tcp", "port": 443, "dscp": 46}),
        ("shape", {"rate": "123457bit", "ceil": "7.7mbit", "burst": 12_345, "destination": "fd99::/64", "priority": 0}),
        ("shape", {"rate": "31gbit", "port": 53}),
        ("set_default_class", {"rate": "5mbit"}),
        ("police", {"rate": "1.5gbit", "burst": 100_000, "queue": 1_000_000}),
    ],
)
def test_the_second_time_touches_nothing(lab: Lab, act: Act, action: str, arguments: dict[str, object]) -> None:
    rules = lab.rules()
    first = act(action, **arguments)
    once = lab.rules()
    second = act(action, **arguments)
    assert (first.changed, second.changed) == (True, False)
    assert second.before == second.after == first.after
    assert lab.rules() == once
    act("restore", before=first.before)
    assert lab.rules() == rules
    assert not act("restore", before=first.before).changed


@pytest.mark.parametrize("rate", [8_000, 9_999, 100_000, 1_234_567, 33_333_333, 999_999_999, 32_000_000_000])
@pytest.mark.parametrize("burst", [None, 1_600, 60_001])
def test_the_kernel_gives_back_what_it_was_given(lab: Lab, act: Act, rate: int, burst: int | None) -> None:
    assert act("shape", rate=rate, burst=burst, dscp=1).changed
    assert not act("shape", rate=rate, burst=burst, dscp=1).changed
    assert act("police", rate=rate, burst=burst).changed
    assert not act("police", rate=rate, burst=burst).changed


def test_two_changes_and_the_first_undone(lab: Lab, act: Act) -> None:
    rules = lab.rules()
    first = act("shape", rate="4mbit", port=5001)
    second = act("shape", rate="20mbit", destination=lab.far_address)
    act("restore", before=first.before)
    assert {c.handle for c in lab.client().get_classes("left")} == {"4e4d:1", "4e4d:14"}
    assert_rate(lab, 20)
    act("restore", before=second.before)
    assert lab.rules() == rules


def test_clear_and_its_undo(lab: Lab, act: Act) -> None:
    rules = lab.rules()
    act("shape", rate="4mbit", port=5001)
    act("shape", rate="8mbit", source="fd99::/64", ceil="9mbit")
    act("set_default_class", rate="20mbit")
    act("police", rate="6mbit")
    full = lab.client().get_classes("left"), lab.client().get_filters("left"), lab.client().get_qdiscs()
    cleared = act("clear")
    assert lab.rules() == rules
    assert not act("clear").changed
    assert act("restore", before=cleared.before).changed
    limits = [sorted((c.handle, str(c.options)) for c in one) for one in (full[0], lab.client().get_classes("left"))]
    assert limits[0] == limits[1]
    matches = [sorted((f.flowid, f.match) for f in one) for one in (full[1], lab.client().get_filters("left"))]
    assert matches[0] == matches[1]
    assert {q.interface: q.kind for q in full[2]} == {q.interface: q.kind for q in lab.client().get_qdiscs()}


def test_each_packet_goes_to_the_class_of_its_closest_match(lab: Lab, act: Act) -> None:
    act("set_default_class", rate="100mbit")
    wide = _new_class(lab, act, destination="10.99.0.0/24")
    host = _new_class(lab, act, destination=lab.far_address)
    port = _new_class(lab, act, destination=lab.far_address, protocol="udp", port=7001)
    class_of_service = _new_class(lab, act, dscp=46)
    six = _new_class(lab, act, destination=lab.far_address_6, source_port=None, port=7001)
    lab.send("10.99.0.77", 7001, packets=1)  # nobody has this address: an ARP request goes out, and belongs to no match
    for address, number, packets, dscp in (
        (lab.far_address, 7002, 5, 0),
        (lab.far_address, 7001, 7, 0),
        (lab.far_address_6, 7002, 11, 46),
        (lab.far_address_6, 7001, 13, 46),
    ):
        lab.send(address, number, packets=packets, dscp=dscp)
    classes = (wide, host, port, class_of_service, six)
    await_true(lambda: sum(lab.sent(one) for one in classes) == 36)  # they wait until the neighbour is found
    assert [lab.sent(one) for one in classes] == [0, 5, 7, 11, 13]
    assert lab.sent("4e4d:fff0") > 0


def _new_class(lab: Lab, act: Act, **match: object) -> str:
    before = {c.handle for c in lab.client().get_classes("left")}
    act("shape", rate="100mbit", **match)
    (new,) = {c.handle for c in lab.client().get_classes("left")} - before
    return new
