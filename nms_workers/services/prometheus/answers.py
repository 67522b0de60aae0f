"""The configured queries and pages of metrics as samples, with what each took and what had to be left out."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TypeVar

from nms_workers.errors import ParseError, Refused, TargetError
from nms_workers.records import Event, Record, Sample
from nms_workers.services.prometheus import model
from nms_workers.services.prometheus.api import TookTooLong, words
from nms_workers.services.prometheus.client import PrometheusClient
from nms_workers.services.prometheus.exposition import Reading
from nms_workers.services.prometheus.foreign import Passage
from nms_workers.services.prometheus.target import Query, Scrape
from nms_workers.transport.deadline import remaining
from nms_workers.transport.retry import Throttled

T = TypeVar("T")

_REMARKS = 20  # of one answer that are told


def each(items: Iterable[T], read: Callable[[T], Iterator[Record]], name: Callable[[T], str]) -> Iterator[Record]:
    """The records of all; what is wrong with one costs only that one, and is told at the end.

    Raises:
        Refused, ParseError: of each that failed. What concerns the whole target ends the read at once.
    """
    faults: list[TargetError] = []
    for item in items:
        try:
            yield from read(item)
        except Throttled:
            raise
        except (Refused, ParseError, TookTooLong) as exc:
            kind = ParseError if isinstance(exc, ParseError) else Refused
            faults.append(kind(f"{name(item)}: {exc.message}", hint=exc.hint))
    if faults:
        hints = dict.fromkeys(fault.hint for fault in faults if fault.hint)
        raise type(faults[0])("; ".join(fault.message for fault in faults), hint="; ".join(hints))


def of_query(client: PrometheusClient, query: Query, declared: Collection[str]) -> Iterator[Record]:
    """The result of a query now, or at the whole steps of its range: two reads name the same points alike."""
    began = time.monotonic()
    found = _ask(client, query)
    labels = {"query": query.name}
    yield Sample("prometheus_query_seconds", time.monotonic() - began, labels)
    passage = Passage(declared, query.labels)
    for row in found.rows[: query.limit]:
        yield from _of_row(row, query, passage)
    beyond = found.rows[query.limit :]
    left_out = passage.left_out + sum(len(row.points) + len(row.histograms) for row in beyond)
    yield Sample("prometheus_query_samples", passage.passed, labels)
    yield Sample("prometheus_query_samples_left_out", left_out, labels)
    yield Sample("prometheus_query_native_histograms", sum(len(row.histograms) for row in found.rows), labels)
    yield Sample("prometheus_query_warnings", len(found.warnings) + len(found.infos), labels)
    if found.warnings:
        about = {"query": query.query, "warnings": [words(one) for one in found.warnings[:_REMARKS]]}
        message = f"Prometheus answers the query {query.name} with a warning: {words(found.warnings[0])}"
        yield Event("query_warning", message, "warning", f"query_warning:{query.name}", "firing", about)
    if found.kind == "string":
        raise Refused("the result is a text, which is no sample", hint="ask for a number")
    if beyond:
        raise Refused(f"the result has more than limit ({query.limit}) series", hint="raise its limit, or aggregate")
    _complain(passage, "set metric in the query's settings")


def of_page(client: PrometheusClient, page: Scrape, declared: Collection[str]) -> Iterator[Record]:
    """The samples of a page of metrics."""
    began = time.monotonic()
    params = {name: [text] if isinstance(text, str) else list(text) for name, text in page.params.items()}
    response = client.get_metrics(page.where, params | ({"match[]": list(page.match)} if page.match else {}))
    labels = {"scrape": page.title}
    yield Sample("prometheus_scrape_seconds", time.monotonic() - began, labels)
    yield Sample("prometheus_scrape_body_bytes", len(response.body), labels)
    passage = Passage(declared, page.labels, page.limit)
    reading, fault = Reading(response, page, passage), None
    try:
        yield from reading
    except ParseError as exc:
        fault = exc
    yield Sample("prometheus_scrape_samples", passage.passed, labels)
    yield Sample("prometheus_scrape_samples_left_out", passage.left_out, labels)
    yield Sample("prometheus_scrape_native_histograms", reading.native_histograms, labels)
    if fault:
        raise fault
    if passage.full and passage.left_out:
        message = f"the page has {passage.left_out} samples beyond limit ({page.limit})"
        raise Refused(message, hint="raise its limit, or name what is wanted in only and without")
    _complain(passage, "correct the exporter")


def _ask(client: PrometheusClient, query: Query) -> model.Result:
    timeout = remaining(query.timeout or client.target.timeout.total)
    limit = (
        query.limit + 1
    )  # one more, to see whether there are more: newer servers give no more than they are asked for
    if query.range is None:
        return client.query(query.query, timeout=timeout, limit=limit)
    end = time.time() // query.step * query.step
    times = {"start": end - query.range, "end": end, "step": query.step}
    return client.query_range(query.query, **times, timeout=timeout, limit=limit)


def _of_row(row: model.Row, query: Query, passage: Passage) -> Iterator[Sample]:
    name = query.metric or row.labels.get("__name__", "")
    for at, value in row.points:
        if (made := passage.sample(name, value, row.labels, at)) is not None:
            yield made
    for at, histogram in row.histograms:
        for suffix, value, more in _parts(histogram):
            if (made := passage.sample(name + suffix, value, row.labels | more, at)) is not None:
                yield made


def _parts(one: model.Histogram) -> Iterator[tuple[str, float, model.Labels]]:
    """A native histogram as a classic one: buckets that count everything up to their bound, count and sum."""
    below = 0.0
    for _, _, high, count in one.buckets:
        below += count
        yield "_bucket", below, {"le": str(high)}
    yield "_bucket", one.count, {"le": "+Inf"}
    yield "_count", one.count, {}
    yield "_sum", one.sum, {}


def _complain(passage: Passage, hint: str) -> None:
    if passage.left_out:
        raise ParseError(f"{passage.left_out} samples were left out, the first since {passage.fault}", hint=hint)
