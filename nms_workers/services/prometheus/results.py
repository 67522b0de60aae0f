"""Results of PromQL, decoded: https://prometheus.io/docs/prometheus/latest/querying/api/#expression-query-result-formats.

Numbers come as text, NaN and infinities among them.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from nms_workers.errors import ParseError
from nms_workers.services.prometheus.api import Told, decoded
from nms_workers.services.prometheus.model import Histogram, Labels, Result, Row


class _Histogram(msgspec.Struct):
    count: str
    sum: str
    buckets: list[tuple[int, str, str, str]] = []


class _Vector(msgspec.Struct):
    metric: Labels
    value: tuple[float, str] | None = None
    histogram: tuple[float, _Histogram] | None = None


class _Matrix(msgspec.Struct):
    metric: Labels
    values: list[tuple[float, str]] = []
    histograms: list[tuple[float, _Histogram]] = []


class _Data(msgspec.Struct, rename="camel"):
    result_type: Literal["scalar", "string", "vector", "matrix"]
    result: msgspec.Raw


def result(told: Told) -> Result:
    """The result in an answer.

    Raises:
        ParseError: it is none.
    """
    data = told.decoded(_Data)
    text, rows = "", []
    try:
        if data.result_type == "vector":
            rows = [_of_vector(one) for one in decoded(data.result, list[_Vector], told.url)]
        elif data.result_type == "matrix":
            matrix = decoded(data.result, list[_Matrix], told.url)
            rows = [Row(one.metric, _points(one.values), _histograms(one.histograms)) for one in matrix]
        else:
            at, text = decoded(data.result, tuple[float, str], told.url)
            rows = [Row({}, _points([(at, text)]), [])] if data.result_type == "scalar" else []
    except ValueError as exc:
        raise ParseError(f"{told.url} answered with a value that is no number: {exc}") from None
    return Result(data.result_type, rows, text, told.warnings, told.infos)


def _of_vector(one: _Vector) -> Row:
    points = [] if one.value is None else _points([one.value])
    return Row(one.metric, points, [] if one.histogram is None else _histograms([one.histogram]))


def _points(values: Sequence[tuple[float, str]]) -> list[tuple[float, float]]:
    return [(at, float(text)) for at, text in values]


def _histograms(values: Sequence[tuple[float, _Histogram]]) -> list[tuple[float, Histogram]]:
    return [
        (
            at,
            Histogram(
                float(one.count),
                float(one.sum),
                [(bounds, float(low), float(high), float(count)) for bounds, low, high, count in one.buckets],
            ),
        )
        for at, one in values
    ]
