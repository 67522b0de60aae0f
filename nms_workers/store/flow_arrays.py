"""Flows as one array a field instead of one record a flow: what sums, sorts and the database want."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Columns = Mapping[str, NDArray[Any]]
"""The fields by name, all of one length. One that is the same in all flows is stored once, with a stride of 0."""

_ROWS = 2048  # of 235 bytes: they stay in the cache of the processor while field after field is read


def columns_of(parts: Sequence[NDArray[np.void]]) -> Columns:
    """The fields of some arrays of flows, one behind the other."""
    layout, number = parts[0].dtype, sum(map(len, parts))
    made: dict[str, NDArray[Any]] = {}
    first, differs = parts[0][:1], _differing(parts)
    for name, (kind, start, *_) in (layout.fields or {}).items():
        if differs[start : start + kind.itemsize].any():
            made[name] = np.empty((number, *kind.shape), kind.base.newbyteorder("="))
        else:
            made[name] = np.broadcast_to(first[name].astype(kind.base.newbyteorder("=")), (number, *kind.shape))
    varied = {name: column for name, column in made.items() if not is_constant(column)}
    end = 0
    for part in parts:
        for at in range(0, len(part), _ROWS):
            rows = part[at : at + _ROWS]
            start, end = end, end + len(rows)
            for name, column in varied.items():
                column[start:end] = rows[name]
    return made


def is_constant(column: NDArray[Any]) -> bool:
    """Whether one value stands for all."""
    return column.strides[0] == 0


def slice_of(flows: Columns, part: slice | NDArray[np.intp]) -> Columns:
    """Some of the flows: a slice, or indices."""
    number = len(range(*part.indices(len(next(iter(flows.values())))))) if isinstance(part, slice) else len(part)
    return {
        name: np.broadcast_to(column[:1], (number, *column.shape[1:])) if is_constant(column) else column[part]
        for name, column in flows.items()
    }


def _differing(parts: Sequence[NDArray[np.void]]) -> NDArray[np.uint8]:
    """Which bytes of a record are not the same in all."""
    rows = [part.view("u1").reshape(len(part), part.dtype.itemsize) for part in parts]
    ever = np.bitwise_or.reduce([np.bitwise_or.reduce(one) for one in rows])
    always = np.bitwise_and.reduce([np.bitwise_and.reduce(one) for one in rows])
    found: NDArray[np.uint8] = ever ^ always
    return found
