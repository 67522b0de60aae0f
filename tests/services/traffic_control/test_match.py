"""A match, and the bytes the kernel looks at: one can always be had from the other."""

from ipaddress import IPv4Network, IPv6Network, ip_network

from hypothesis import given
from hypothesis import strategies as st

from nms_workers.services.traffic_control.look import FIRST_PREFERENCE, LAST_PREFERENCE, preference
from nms_workers.services.traffic_control.match import Match, match_of
from nms_workers.services.traffic_control.tree import Limits, settled_burst
from nms_workers.services.traffic_control.values import FASTEST, SLOWEST

_PORTS = st.none() | st.integers(1, 65535)


def _networks(bits: int) -> st.SearchStrategy[IPv4Network | IPv6Network]:
    made = st.tuples(st.integers(0, 2**bits - 1), st.integers(1, bits))
    return made.map(lambda one: ip_network((one[0].to_bytes(bits // 8, "big"), one[1]), strict=False))


_PAIRS = st.sampled_from([32, 128]).flatmap(lambda n: st.tuples(st.none() | _networks(n), st.none() | _networks(n)))


@st.composite
def _matches(draw: st.DrawFn) -> Match:
    source, destination = draw(_PAIRS)
    return Match(
        source=source,
        destination=destination,
        protocol=draw(st.sampled_from([None, "tcp", "udp"])),
        source_port=draw(_PORTS),
        port=draw(_PORTS),
        dscp=draw(st.integers(0, 63)),
    )


@given(_matches())
def test_a_match_is_read_back_from_its_selectors(match: Match) -> None:
    selectors = match.selectors()
    assert 1 <= len(selectors) <= 4
    assert match_of(reversed(selectors)) == match
    assert all(FIRST_PREFERENCE <= preference(one) <= LAST_PREFERENCE for one in selectors)
    if len(selectors) > 1:
        half = match_of(selectors[:-1])
        assert half != match


def test_the_bytes_of_a_packet() -> None:
    match = Match(source="10.1.0.0/16", protocol="udp", port=53, dscp=46)
    assert match.selectors() == (
        (
            0x0800,
            frozenset(
                {
                    (0, 5, 0x0F),  # a header without options
                    (1, 0xB8, 0xFC),  # expedited forwarding
                    (6, 0, 0x1F),  # not a later fragment
                    (7, 0, 0xFF),
                    (9, 17, 0xFF),  # UDP
                    (12, 10, 0xFF),
                    (13, 1, 0xFF),
                    (22, 0, 0xFF),
                    (23, 53, 0xFF),
                }
            ),
        ),
    )
    assert str(match) == "source 10.1.0.0/16 protocol udp port 53 dscp 46"


def test_the_closer_match_is_asked_first() -> None:
    wide, host, port = (
        Match(**said).selectors()[0]
        for said in (
            {"destination": "10.0.0.0/8"},
            {"destination": "10.0.0.1"},
            {"destination": "10.0.0.1", "protocol": "tcp", "port": 80},
        )
    )
    assert preference(port) < preference(host) < preference(wide)


@given(st.integers(SLOWEST, FASTEST), st.integers(1_600, 1_000_000))
def test_a_settled_burst_stays(rate: int, burst: int) -> None:
    limits = Limits(rate=rate, burst=min(burst, rate // 8 * 100))
    assert settled_burst(limits.rate, limits.burst) == limits.burst
    assert Limits.model_validate(limits.model_dump(mode="json")) == limits
