"""Samples that others named: results of queries and scraped pages, on their way through.

Their names stay as they are, so that what is known from dashboards is found here too, with three exceptions:

* a name that `metrics.csv` declares is ours; a foreign sample of this name becomes `exported_<name>`;
* characters that Prometheus 3 allows and we do not become `_`, as its own escaping `underscores` does it;
* a label that the settings add comes before a sample's own, which becomes `exported_<label>`.

A label without text is as no label, as everywhere in Prometheus.
"""

import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime

from nms_workers.errors import ParseError
from nms_workers.records import Sample

_NO_NAME = re.compile(r"[^a-zA-Z0-9_:]")
_NO_LABEL = re.compile(r"[^a-zA-Z0-9_]")
_EARLIEST, _LATEST = -62_135_596_800.0, 253_402_300_799.0  # Unix seconds of the years 1 to 9999


class Passage:
    """Lets samples through, and counts.

    Args:
        declared: metric names of ours.
        labels: added to each.
        limit: how many may pass; None: all.

    `passed` counts those let through, `left_out` those that were not: over the limit, or unfit, with the first reason
    in `fault`.
    """

    def __init__(self, declared: Collection[str], labels: Mapping[str, str], limit: int | None = None) -> None:
        self._declared, self._labels, self._limit = declared, labels, limit
        self.passed = self.left_out = 0
        self.fault = ""

    @property
    def full(self) -> bool:
        """Whether no more pass."""
        return self._limit is not None and self.passed >= self._limit

    def sample(self, name: str, value: float, labels: Mapping[str, str], at: float | None) -> Sample | None:
        """The sample as it is stored; None: it is left out.

        Args:
            at: Unix seconds; None: the moment of reading.
        """
        if self.full:
            self.left_out += 1
            return None
        try:
            made = Sample(self._name(name), value, self._all(labels), _moment(at))
        except ParseError as exc:
            self.left_out += 1
            self.fault = self.fault or str(exc)
            return None
        self.passed += 1
        return made

    def _name(self, name: str) -> str:
        fit = _fit(_NO_NAME, name)
        return f"exported_{fit}" if fit in self._declared else fit

    def _all(self, labels: Mapping[str, str]) -> dict[str, str]:
        own = {_fit(_NO_LABEL, name): text for name, text in labels.items() if text and name != "__name__"}
        return {f"exported_{name}" if name in self._labels else name: text for name, text in own.items()} | dict(
            self._labels
        )


def _fit(unfit: re.Pattern[str], name: str) -> str:
    fit = unfit.sub("_", name)
    return f"_{fit}" if fit[:1].isdigit() else fit


def _moment(at: float | None) -> datetime | None:
    if at is None:
        return None
    if not _EARLIEST <= at <= _LATEST:  # NaN neither
        raise ParseError(f"a sample has the time {at!r}, which is none")
    return datetime.fromtimestamp(at, UTC)
