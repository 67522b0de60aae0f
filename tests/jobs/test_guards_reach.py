"""Whatever the disguise and the width: what has an address in common with a protected network never passes."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sqlalchemy import Engine

from nms_workers.jobs.guards import refusal
from nms_workers.jobs.protected import Protected, hit
from nms_workers.jobs.reach import Network, meet, nat64, reach
from nms_workers.jobs.wish import Wish
from nms_workers.settings import Guards, Settings
from tests.jobs.services.fence.service import Fence

# How each carrier writes an IPv4 address, from the RFCs and by the standard library's parser: not as `reach` does it.
DISGUISES = {
    "mapped": "::ffff:{0}.{1}.{2}.{3}",
    "compatible": "::{0}.{1}.{2}.{3}",
    "translated": "::ffff:0:{0}.{1}.{2}.{3}",
    "NAT64": "64:ff9b::{0}.{1}.{2}.{3}",
    "6to4": "2002:{0:02x}{1:02x}:{2:02x}{3:02x}::",
}
CARRIED_TO = {"6to4": 48}  # the prefix length that still holds one IPv4 address; others: 128

ipv4 = st.ip_addresses(v=4)
ipv6 = st.ip_addresses(v=6)
disguise = st.sampled_from(sorted(DISGUISES))


def _disguised(address: IPv4Address, how: str) -> IPv6Address:
    return IPv6Address(DISGUISES[how].format(*address.packed))


def _around(address: IPv4Address | IPv6Address, prefix: int) -> Network:
    """The network of this width that the address lies in."""
    if isinstance(address, IPv4Address):
        return IPv4Network((int(address), min(prefix, 32)), strict=False)
    return IPv6Network((int(address), prefix), strict=False)


@pytest.fixture(scope="module")
def fence_guards() -> Guards:
    """Only what the settings protect is looked at, at any width."""
    return Guards(widest_ipv4=0, widest_ipv6=0, find=(), limits=())


@given(address=ipv4, how=disguise, ours=st.integers(0, 32), theirs=st.integers(0, 128), swap=st.booleans())
@example(address=IPv4Address("10.0.0.1"), how="mapped", ours=8, theirs=0, swap=False)
@example(address=IPv4Address("10.0.0.1"), how="6to4", ours=32, theirs=16, swap=False)
@example(address=IPv4Address("10.0.0.1"), how="NAT64", ours=32, theirs=97, swap=True)
@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_an_ipv4_address_in_common_is_refused_in_every_disguise(
    engine: Engine, fence_guards: Guards, *, address: IPv4Address, how: str, ours: int, theirs: int, swap: bool
) -> None:
    """`address` lies in both: in the one as it is, in the other disguised."""
    plain, disguised = _around(address, ours), _around(_disguised(address, how), theirs)
    protected, cut = (disguised, plain) if swap else (plain, disguised)
    assert _refused(engine, fence_guards, protected, cut)


@given(address=ipv4 | ipv6, ours=st.integers(0, 128), theirs=st.integers(0, 128))
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_an_address_in_common_is_refused(
    engine: Engine, fence_guards: Guards, address: IPv4Address | IPv6Address, ours: int, theirs: int
) -> None:
    assert _refused(engine, fence_guards, _around(address, ours), _around(address, theirs))


def _refused(engine: Engine, guards: Guards, protected: Network, cut: Network) -> bool:
    wish = Wish("fence", "ban", "gate", {"address": str(cut)}, requested_by="ada")
    told = _ask(engine, guards.model_copy(update={"protected": (protected,)}), wish)
    return told is not None and "would cut off" in told


def _ask(engine: Engine, guards: Guards, wish: Wish) -> str | None:
    with engine.connect() as connection:
        return refusal(connection, Settings(guards=guards), wish, Fence.actions()["ban"], wish.arguments)


@given(guarded=ipv4, width=st.integers(0, 32), address=ipv4, how=disguise)
@settings(max_examples=300, deadline=None)
def test_a_disguised_address_is_hit_only_where_it_would_be_without(
    guarded: IPv4Address, width: int, address: IPv4Address, how: str
) -> None:
    ours, cut = _around(guarded, width), IPv6Network((int(_disguised(address, how)), CARRIED_TO.get(how, 128)))
    assert bool(list(hit(cut, [Protected(ours, "ours")]))) == (address in ours)


@given(
    base=st.sampled_from([IPv6Address("2001:db8::"), IPv6Address("fd00::"), IPv4Address("198.18.0.0")]),
    ends=st.tuples(st.integers(0, 2**16), st.integers(0, 2**16)),
    widths=st.tuples(st.integers(12, 32), st.integers(12, 32)),
)
@settings(max_examples=300, deadline=None)
def test_what_carries_nothing_is_hit_only_where_it_overlaps(
    base: IPv4Address | IPv6Address, ends: tuple[int, int], widths: tuple[int, int]
) -> None:
    a, b = (_around(base + end, width + base.max_prefixlen - 32) for end, width in zip(ends, widths, strict=True))
    assert bool(list(hit(a, [Protected(b, "ours")]))) == (a[0] <= b[-1] and b[0] <= a[-1])


@pytest.mark.parametrize(
    ("network", "carried"),
    [
        ("::ffff:10.1.2.3/128", ["10.1.2.3/32"]),
        ("::ffff:10.0.0.0/104", ["10.0.0.0/8"]),
        ("2002:a01:203:77::/64", ["10.1.2.3/32"]),
        ("2002:a00::/24", ["10.0.0.0/8"]),
        ("64:ff9b::/96", ["0.0.0.0/0"]),
        ("2001:db8::/32", []),
        ("10.0.0.0/8", []),
        ("::/0", ["0.0.0.0/0"] * 5),
        ("2000::/3", ["0.0.0.0/0"]),
        ("::/64", ["0.0.0.0/0"] * 3),
    ],
)
def test_what_a_network_carries(network: str, carried: list[str]) -> None:
    one = ip_network(network)
    assert list(reach(one)) == [one, *map(ip_network, carried)]


def test_networks_of_two_versions_have_nothing_in_common() -> None:
    assert not meet(ip_network("0.0.0.0/0"), ip_network("::/0"))
    assert meet(ip_network("10.0.0.0/8"), ip_network("10.255.0.0/16"))


PREFIXES = {  # RFC 6052, 2.4: how each carries 192.0.2.33
    "2001:db8::/32": "2001:db8:c000:221::",
    "2001:db8:100::/40": "2001:db8:1c0:2:21::",
    "2001:db8:122::/48": "2001:db8:122:c000:2:2100::",
    "2001:db8:122:300::/56": "2001:db8:122:3c0:0:221::",
    "2001:db8:122:344::/64": "2001:db8:122:344:c0:2:2100::",
    "2001:db8:122:344::/96": "2001:db8:122:344::192.0.2.33",
}


@pytest.mark.parametrize(("prefix", "address"), PREFIXES.items())
def test_a_provider_s_nat64_prefix_carries_as_the_rfc_says(engine: Engine, prefix: str, address: str) -> None:
    carriers = [nat64(IPv6Network(prefix))]
    one = IPv6Network(address)
    assert list(reach(one, carriers)) == [one, IPv4Network("192.0.2.33/32")]
    assert list(reach(one)) == [one], "nobody knows it without the settings"
    guards = Guards(nat64=(IPv6Network(prefix),), find=(), limits=(), protected=(IPv4Network("192.0.2.33"),))
    told = _ask(engine, guards, Wish("fence", "ban", "gate", {"address": address}, requested_by="ada"))
    assert told is not None
    assert "192.0.2.33, protected by the settings" in told


@given(
    address=ipv4,
    prefix=st.sampled_from(sorted(PREFIXES)),
    host=st.integers(0, 2**24),
    width=st.integers(0, 128),
    ours=st.integers(0, 32),
)
@settings(max_examples=400, deadline=None)
def test_an_address_in_common_by_nat64_is_hit_at_every_width(
    address: IPv4Address, prefix: str, host: int, width: int, ours: int
) -> None:
    """Written bit by bit, as the picture in RFC 6052, 2.2, has it."""
    network = IPv6Network(prefix)
    bits = [int(bit) for bit in f"{int(network.network_address):0128b}"]
    places = [n for n in range(network.prefixlen, 128) if not 64 <= n < 72 or network.prefixlen == 96][:32]
    for place, bit in zip(places, f"{int(address):032b}", strict=True):
        bits[place] = int(bit)
    if network.prefixlen < 96:
        for place, bit in zip(range(104, 128), f"{host % 2**24:024b}", strict=True):
            bits[place] = int(bit)  # whatever stands behind it
    cut = IPv6Network((int("".join(map(str, bits)), 2), max(width, network.prefixlen)), strict=False)
    assert list(hit(cut, [Protected(_around(address, ours), "ours")], [nat64(network)]))


@pytest.mark.parametrize("prefix", ["2001:db8::/33", "2001:db8::/0", "2001:db8::/128", "10.0.0.0/8", "2001:db8::1/96"])
def test_what_is_no_nat64_prefix_is_refused(prefix: str) -> None:
    with pytest.raises(ValidationError, match="nat64"):
        Guards.model_validate({"nat64": [prefix]})
