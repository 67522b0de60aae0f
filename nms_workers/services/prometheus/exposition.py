"""Pages of metrics: the Prometheus text format and OpenMetrics text, read by Prometheus' own Python library.

Sources: https://prometheus.io/docs/instrumenting/exposition_formats/ and
https://prometheus.io/docs/specs/om/open_metrics_spec/. As OpenMetrics has it, a counter whose name does not end in
`_total` gets it.
"""

import io
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import Any

import prometheus_client.samples
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_fd_to_metric_families as openmetrics
from prometheus_client.parser import text_fd_to_metric_families as prometheus_text

from nms_workers.errors import ParseError
from nms_workers.records import Sample
from nms_workers.services.prometheus.api import words
from nms_workers.services.prometheus.foreign import Passage
from nms_workers.services.prometheus.target import Scrape
from nms_workers.transport.deadline import remaining
from nms_workers.transport.http import Response

_Parser = Callable[[Any], Iterable[Metric]]  # of lines; it says TextIO and only iterates

_FORMATS: dict[str, _Parser] = {
    "text/plain": prometheus_text,
    "application/openmetrics-text": openmetrics,
    "": prometheus_text,  # some exporters do not say
    "text": prometheus_text,
    "openmetrics": openmetrics,
}
_NAME = re.compile(r'\s*(?:\{\s*"([^"]*)"|([^\s{#]+))')
_LONGEST_LINE = 100_000  # characters; no series of ours is longer, and the parsers take the square of it in time
_HINT = "check the path: is it a page of metrics in Prometheus' text format or OpenMetrics?"


class Reading:
    """Reads one page. Iterate over it once; then `native_histograms` counts those met, which text cannot hold in full.

    Args:
        response: the page.
        scrape: which samples are wanted.
        passage: counts, and names them.

    Raises:
        ParseError: on iterating, at the line that is no metric; what came before it was given.
        AuthError: it is a login page.
    """

    def __init__(self, response: Response, scrape: Scrape, passage: Passage) -> None:
        self._response, self._scrape, self._passage = response, scrape, passage
        self._line = ""
        self.native_histograms = 0

    def __iter__(self) -> Iterator[Sample]:
        parser, text = _opened(self._response, self._scrape.format)
        families = parser(self._lines(text))
        try:
            for family in families:
                for one in family.samples:
                    if self._wanted(one.name) and (sample := self._sample(one)) is not None:
                        yield sample
                if self._passage.full:
                    break
        except (ValueError, LookupError, TypeError, ArithmeticError) as exc:  # the parsers raise whatever comes up
            at = f"near the line {words(self._line)!r}: {words(str(exc))}"
            raise ParseError(f"{self._response.url} answered with what is no metric, {at}", hint=_HINT) from None
        if self._passage.full:  # what was not parsed any more is counted only
            wanted = sum(self._wanted(name) for name in _names(text))
            self._passage.left_out = max(0, wanted - self._passage.passed - self.native_histograms)

    def _lines(self, text: str) -> Iterator[str]:
        for line in io.StringIO(text):
            remaining(1.0)  # a page can take longer to read than the run has time
            self._line = line
            if len(line) > _LONGEST_LINE:
                raise ValueError(f"it has {len(line)} characters")
            yield line

    def _wanted(self, name: str) -> bool:
        only, without = self._scrape.only, self._scrape.without
        return (not only or any(fnmatchcase(name, one) for one in only)) and not any(
            fnmatchcase(name, one) for one in without
        )

    def _sample(self, one: prometheus_client.samples.Sample) -> Sample | None:
        if one.native_histogram is not None:
            self.native_histograms += 1
            return None
        at = float(one.timestamp) if self._scrape.timestamps and one.timestamp is not None else None
        return self._passage.sample(one.name, one.value, one.labels, at)


def _names(text: str) -> Iterator[str]:
    """The names of all samples, a line each."""
    for line in io.StringIO(text):
        if not line.startswith("#") and (found := _NAME.match(line)):
            yield found[1] or found[2]


def _opened(response: Response, told: str | None) -> tuple[_Parser, str]:
    """The parser of a page, by what the settings tell or else by its header, and its text."""
    if response.body.lstrip()[:1] == b"<":
        with suppress(ParseError):
            response.json()  # tells a login page from others
        raise ParseError(f"{response.url} answered with a web page instead of metrics", hint=_HINT)
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    parser = _FORMATS.get(told or kind)
    if parser is None:
        raise ParseError(f"{response.url} answered with {words(kind)} instead of metrics", hint=_HINT)
    try:
        return parser, response.body.decode("utf-8")
    except UnicodeDecodeError:
        raise ParseError(f"{response.url} answered with what is no UTF-8", hint=_HINT) from None
