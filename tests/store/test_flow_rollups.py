"""The sums of a minute, against sums made one by one."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nms_workers.services.flows.record import FLOW
from nms_workers.store.flow_arrays import columns_of, is_constant, slice_of
from nms_workers.store.flow_columns import FLOW_COLUMNS, KINDS, MEASURES
from nms_workers.store.flow_rollups import _MIX, Rollup, roll_up
from tests.store.flow_batches import MAPPED, ONE, anything, some

MOST = (1 << 63) - 1


def rolled(flows: NDArray[np.void], keep: int = 10_000) -> dict[str, Rollup]:
    return {one.kind: one for one in roll_up(columns_of([flows]), ONE, 0, keep)}


def expected(flows: NDArray[np.void], kind: str) -> dict[tuple[Any, ...], list[int]]:
    """Sums by key, flow by flow, in Python's numbers."""
    sums: dict[tuple[Any, ...], list[int]] = {}
    for flow in flows:
        ports = sorted((int(flow["source_port"]), int(flow["destination_port"])))
        key = {
            "ingress": (int(flow["ingress_interface"]),),
            "egress": (int(flow["egress_interface"]),),
            "conversation": (*map(int, flow["source_address"]), *map(int, flow["destination_address"])),
            "port": (int(flow["protocol"]), ports[0] or ports[1]),
            "as": (int(flow["source_as"]), int(flow["destination_as"])),
        }[kind]
        held = sums.setdefault(key, [0] * len(MEASURES))
        for place, name in enumerate(MEASURES):
            held[place] += 1 if name == "flows" else min(int(flow[name]), MOST)
    return {key: [min(one, MOST) for one in held] for key, held in sums.items()}


def found(rollup: Rollup) -> dict[tuple[Any, ...], list[int]]:
    keys = [tuple(np.ravel(key).tolist()) for key in zip(*rollup.keys.values(), strict=True)]
    flat = [
        tuple(int(part) for value in key for part in np.ravel(value)) for key in zip(*rollup.keys.values(), strict=True)
    ]
    assert len(set(flat)) == len(keys), "a key is there twice"
    return dict(zip(flat, rollup.measures.T.tolist(), strict=True))


counts = st.one_of(st.integers(0, 3), st.integers(0, 2**64 - 1))
addresses = st.tuples(st.sampled_from([0, 1 << 63]), st.sampled_from([MAPPED, MAPPED | 1, 1, (1 << 64) - 1]))
flow = st.fixed_dictionaries(
    {
        **dict.fromkeys(("octets", "packets", "octets_scaled", "packets_scaled"), counts),
        **dict.fromkeys(("source_address", "destination_address"), addresses),
        **{name: st.sampled_from([0, 1, 2**32 - 1]) for name in ("ingress_interface", "egress_interface")},
        **{name: st.sampled_from([0, 1, 2**32 - 1]) for name in ("source_as", "destination_as")},
        **{name: st.sampled_from([0, 53, 65_535]) for name in ("source_port", "destination_port")},
        "protocol": st.sampled_from([6, 17, 255]),
    }
)


def made(told: list[dict[str, Any]]) -> NDArray[np.void]:
    flows = np.zeros(len(told), FLOW)
    for place, one in enumerate(told):
        for name, value in one.items():
            flows[name][place] = value
    return flows


@settings(deadline=None)  # the processor is shared
@given(st.lists(flow, min_size=1, max_size=40))
def test_every_kind_is_summed_as_one_by_one(told: list[dict[str, Any]]) -> None:
    flows = made(told)
    for kind, rollup in rolled(flows).items():
        assert found(rollup) == expected(flows, kind)
        assert rollup.others is None


@settings(deadline=None)  # the processor is shared
@given(st.lists(flow, min_size=1, max_size=40), st.integers(1, 5))
def test_what_is_not_kept_is_in_others_and_the_largest_are_kept(told: list[dict[str, Any]], keep: int) -> None:
    flows = made(told)
    for kind, rollup in rolled(flows, keep).items():
        kept, every = found(rollup), expected(flows, kind)
        assert len(kept) == min(keep, len(every))
        assert kept.items() <= every.items()
        left = [sums for key, sums in every.items() if key not in kept]
        assert (rollup.others is None) == (not left)
        if rollup.others is not None:
            assert rollup.others.tolist() == [min(sum(column), MOST) for column in zip(*left, strict=True)]
            assert min(sums[3] for sums in kept.values()) >= max(sums[3] for sums in left)


def test_all_kinds_are_there_and_each_sums_up_to_the_flows() -> None:
    flows = some(5000, hosts=200)
    rollups = rolled(flows, keep=50)
    assert list(rollups) == list(KINDS)
    for rollup in rollups.values():
        total = rollup.measures.sum(axis=1) + (0 if rollup.others is None else rollup.others)
        assert total.tolist() == [len(flows) if name == "flows" else int(flows[name].sum()) for name in MEASURES]


def test_addresses_made_to_share_a_hash_stay_apart() -> None:
    """Whoever knows how keys are mixed can choose addresses that are mixed alike."""

    def step(state: int, part: int, odd: int) -> int:
        state = (state ^ part) * odd % 2**64
        return state ^ state >> 29

    high, low = 0x20010DB8 << 32, 1
    other = high + 7
    twin = low ^ step(0, high, _MIX[0]) ^ step(0, other, _MIX[0])
    assert step(step(0, high, _MIX[0]), low, _MIX[1]) == step(step(0, other, _MIX[0]), twin, _MIX[1])
    flows = np.zeros(6, FLOW)
    flows["source_address"] = [(high, low), (other, twin)] * 3
    flows["octets"] = [1, 10, 100, 1000, 10_000, 100_000]
    sums = found(rolled(flows)["conversation"])
    assert {key: held[0] for key, held in sums.items()} == {(high, low, 0, 0): 10_101, (other, twin, 0, 0): 101_010}


def test_columns_are_the_records() -> None:
    flows = anything(5000)
    flows["octets"] = 3
    columns = columns_of([flows[:10], flows[10:11], flows[11:]])
    assert list(columns) == list(FLOW.names or ())
    assert is_constant(columns["octets"])
    assert not is_constant(columns["packets"])
    for name, column in columns.items():
        assert np.array_equal(column, flows[name]), name
    order = np.arange(len(flows))[::-1]
    for part in (slice(4990, 6000), order):
        for name, column in slice_of(columns, part).items():
            assert np.array_equal(column, flows[name][part]), name


def test_one_record_is_enough() -> None:
    (one,) = some(1)
    rollup = rolled(some(1))["port"]
    assert rollup.measures.T.tolist() == [
        [int(one["octets"]), int(one["packets"]), 1, int(one["octets"]), int(one["packets"])]
    ]


def test_the_table_names_what_the_decoders_give() -> None:
    assert tuple(column.name for column in FLOW_COLUMNS) == FLOW.names


@pytest.mark.parametrize("kind", KINDS)
def test_keys_are_those_of_the_kind(kind: str) -> None:
    assert tuple(rolled(some(10))[kind].keys) == KINDS[kind]
