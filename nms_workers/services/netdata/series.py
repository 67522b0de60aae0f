"""Last values of charts as blocks, quickly: an agent has thousands, and the same ones again each time.

What the series of a node are is worked out when its set of charts changes, and remembered; else only the values are
gathered.

Every dimension of every chart is a series of one metric, `netdata_chart_value`, with its unit as a label:

* `metrics.csv` is a closed contract, and nobody can list all contexts beforehand: plugins, and people's own statsd and
  custom charts, bring new ones at any time;
* a unit belongs to a chart, not to a context: two charts of one context may differ, and a unit may be any text;
* the values stay as Netdata has them, since the thresholds of its alarms and its dashboards are in that unit.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nms_workers.records import MAX_LABEL_VALUE, Layout, SampleBlock, Series, series
from nms_workers.services.netdata.model import Chart, Node

METRIC = "netdata_chart_value"

_Shape = list[tuple[str, ...]]  # of each chart: id, context, family, units, ids and names of its dimensions


@dataclass(frozen=True)
class _Known:
    node: Node
    shape: _Shape
    layout: Layout


@dataclass
class Reading:
    """The charts of one node, ready to be told.

    Args:
        block: their values; None when no series is left.
        charts: how many charts were chosen.
        stale: how many of them are collected no more.
        left_out: how many series were beyond the budget.
    """

    block: SampleBlock | None = None
    charts: int = 0
    stale: int = 0
    left_out: int = 0


@dataclass
class ChartSeries:
    """Remembers the layout of each node. Thread-safe.

    Args:
        chosen: whether the charts of a context are wanted.
        stale_after: seconds behind the newest chart of the same answer after which a value counts as none.
    """

    chosen: Callable[[str], bool]
    stale_after: int
    _known: dict[str, _Known] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, node: Node, charts: Mapping[str, Chart], budget: int) -> Reading:
        """The values of a node's charts.

        Args:
            charts: by id.
            budget: how many series may be told; charts are kept whole, the first ones.
        """
        kept, count, reading = [], 0, Reading()
        for chart_id, chart in charts.items():
            if not self.chosen(chart.context):
                continue
            if count + len(chart.dimensions) > budget:
                reading.left_out += len(chart.dimensions)
                continue
            count += len(chart.dimensions)
            kept.append((chart_id, chart))
        reading.charts = len(kept)
        if count:
            newest = max(chart.last_updated for _, chart in kept)
            old = newest - self.stale_after
            reading.stale = sum(chart.last_updated < old for _, chart in kept)
            shape: _Shape = []
            values: list[float | None] = []
            for chart_id, chart in kept:
                lines = chart.dimensions.values()
                names = [one.name for one in lines]
                shape.append((chart_id, chart.context, chart.family, chart.units, *chart.dimensions, *names))
                values += [one.value for one in lines] if chart.last_updated >= old else [None] * len(names)
            reading.block = SampleBlock(self._layout(node, shape, dict(kept)), _array(values))
        return reading

    def forget(self, except_of: set[str]) -> None:
        """Forget the nodes that are gone, by their GUIDs."""
        with self._lock:
            self._known = {guid: known for guid, known in self._known.items() if guid in except_of}

    def _layout(self, node: Node, shape: _Shape, charts: Mapping[str, Chart]) -> Layout:
        known = self._known.get(node.guid)
        if known is None or known.node.name != node.name or known.shape != shape:
            members = [one for id_, chart in charts.items() for one in _members(node, id_, chart)]
            known = _Known(node, shape, Layout(members))
            with self._lock:
                self._known[node.guid] = known
        return known.layout


def _array(values: list[float | None]) -> NDArray[np.float64]:
    return np.array(values, dtype=np.float64)  # None becomes NaN: no value


def _members(node: Node, chart_id: str, chart: Chart) -> list[Series]:
    """The series of a chart. Dimensions go by their names, as on dashboards; by their ids where two share a name."""
    names = [one.name for one in chart.dimensions.values()]
    unique = len(set(names)) == len(names)
    labels = {
        "node": node.name,
        "chart": chart_id,
        "context": chart.context,
        "family": chart.family,
        "units": chart.units,
    }
    return [
        series(METRIC, tuple((name, text[:MAX_LABEL_VALUE]) for name, text in (labels | {"dimension": shown}).items()))
        for shown in (names if unique else chart.dimensions)
    ]
