"""What a minute of one exporter comes to: octets, packets and flows by interface, conversation, port and AS.

Every flow is in every kind exactly once, so the members of each kind sum up to the flows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nms_workers.store.flow_arrays import Columns
from nms_workers.store.flow_columns import KINDS, MEASURES

Sums = NDArray[np.uint64]
_MOST = (1 << 63) - 1  # PostgreSQL's bigint; no real sum is greater
_MIX = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93)  # odd: nothing is lost


@dataclass(frozen=True, slots=True)
class Rollup:
    """One kind of one exporter and minute.

    Args:
        minute: its beginning, microseconds since 1970.
        exporter: packed, 4 or 16 bytes.
        kind: of `flow_columns.KINDS`.
        keys: by name, each of shape (n,), addresses (n, 2).
        measures: shape (5, n), in the order of `flow_columns.MEASURES`.
        others: shape (5,), what was not kept; None when everything was.
    """

    minute: int
    exporter: bytes
    kind: str
    keys: dict[str, NDArray[Any]]
    measures: Sums
    others: Sums | None


def roll_up(flows: Columns, exporter: bytes, minute: int, keep: int) -> Iterator[Rollup]:
    """Sum up flows that one exporter sent in one minute.

    Args:
        flows: with the fields of `FLOW_COLUMNS`.
        exporter, minute: as in `Rollup`.
        keep: how many keys of each kind are kept, those with the most (scaled) octets.
    """
    measured = {name: _Measured.of(flows[name]) for name in MEASURES if name in flows}
    for name in ("octets", "packets"):
        if np.array_equal(flows[name], flows[f"{name}_scaled"]):  # nothing is sampled: summed once
            del measured[f"{name}_scaled"]
    for kind, names in KINDS.items():
        keys = _keys(kind, flows)
        order, starts = _groups(keys)
        summed = {name: one.sums(order, starts) for name, one in measured.items()}
        summed["flows"] = np.diff(starts, append=len(order)).astype("u8")
        sums = np.array([summed.get(name, summed[name.removesuffix("_scaled")]) for name in MEASURES])
        first, others = order[starts], None
        if len(starts) > keep:
            by_size = np.argpartition(sums[3], -keep)
            others = np.array([_total(values) for values in sums[:, by_size[:-keep]]], "u8")
            sums, first = sums[:, by_size[-keep:]], first[by_size[-keep:]]
        yield Rollup(minute, exporter, kind, dict(zip(names, (key[first] for key in keys), strict=True)), sums, others)


def service_port(source: NDArray[Any], destination: NDArray[Any]) -> NDArray[Any]:
    """The port that tells what a flow is about: the lower one, as clients' ports are high; 0 stands for none."""
    low: NDArray[Any] = np.minimum(source, destination)
    return np.where(low > 0, low, np.maximum(source, destination))


def _keys(kind: str, flows: Columns) -> list[NDArray[Any]]:
    if kind in ("ingress", "egress"):
        return [flows[f"{kind}_interface"]]
    if kind == "port":
        return [flows["protocol"], service_port(flows["source_port"], flows["destination_port"])]
    return [flows[name] for name in KINDS[kind]]


def _groups(keys: Sequence[NDArray[Any]]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """An order in which equal keys are neighbours, and where in it each key begins."""
    parts = [key[:, half] for key in keys for half in (0, 1)] if keys[0].ndim == 2 else list(keys)
    parts = [part.astype("u8") for part in parts]
    packed, exact = _packed(parts)
    order = np.argsort(packed)
    begins = _changes(packed[order])
    if not exact and not np.array_equal(begins, _changes(*(part[order] for part in parts))):
        order = np.lexsort(parts)  # two keys have one hash
        begins = _changes(*(part[order] for part in parts))
    return order, np.flatnonzero(begins)


def _packed(parts: Sequence[NDArray[np.uint64]]) -> tuple[NDArray[np.uint64], bool]:
    """A number for each key, and whether no two keys can share one."""
    if len(parts) == 4 and not parts[0].any() and not parts[2].any():  # IPv4, in its mapped form
        prefix = np.uint64(0xFFFF)
        if (parts[1] >> np.uint64(32) == prefix).all() and (parts[3] >> np.uint64(32) == prefix).all():
            parts = (parts[1] & np.uint64(0xFFFFFFFF), parts[3] & np.uint64(0xFFFFFFFF))
    if len(parts) == 1:
        return parts[0], True
    if len(parts) == 2:
        return parts[0] << np.uint64(32) | parts[1], True
    mixed = np.zeros(len(parts[0]), "u8")
    for part, odd in zip(parts, _MIX, strict=True):
        mixed = (mixed ^ part) * np.uint64(odd)
        mixed ^= mixed >> np.uint64(29)
    return mixed, False


def _changes(*columns: NDArray[np.uint64]) -> NDArray[np.bool_]:
    changes = np.zeros(len(columns[0]), bool)
    changes[:1] = True
    for column in columns:
        changes[1:] |= column[1:] != column[:-1]
    return changes


class _Measured(NamedTuple):
    values: Sums
    fits: bool  # all of them together are no more than a bigint holds

    @classmethod
    def of(cls, values: Sums) -> "_Measured":
        values = np.minimum(values, np.uint64(_MOST))
        return cls(values, bool(values.sum(dtype="f8") < _MOST))

    def sums(self, order: NDArray[np.intp], starts: NDArray[np.intp]) -> Sums:
        """Sums of the groups, none above what a bigint holds."""
        if self.fits:
            return np.add.reduceat(self.values[order], starts, dtype="u8")
        return np.minimum(np.add.reduceat(self.values[order].astype(object), starts), _MOST).astype("u8")


def _total(values: Sums) -> int:
    total: int = sum(values.tolist())
    return min(total, _MOST)
