"""Holds what a service emits against its `metrics.csv`, both ways."""

from collections.abc import Iterable

from nms_workers.records import Record, Sample, SampleBlock, Series
from nms_workers.service import Service


def emitted(records: Iterable[Record]) -> set[Series]:
    """Every series these records hold."""
    found: set[Series] = set()
    for record in records:
        if isinstance(record, Sample):
            found.add(record.series)
        elif isinstance(record, SampleBlock):
            found.update(record.layout.members)
    return found


def undeclared(service: type[Service], records: Iterable[Record]) -> list[str]:
    """What was emitted and is not declared, or with other labels than declared; one line each."""
    metrics = service.metrics()
    faults = set()
    for one in emitted(records):
        labels = tuple(sorted(name for name, _ in one.labels))
        if one.metric not in metrics:
            faults.add(f"{one.metric} is emitted and not declared")
        elif labels != tuple(sorted(metrics[one.metric].labels)):
            faults.add(f"{one.metric} has the labels {labels}, declared are {metrics[one.metric].labels}")
    return sorted(faults)


def never_emitted(service: type[Service], records: Iterable[Record]) -> list[str]:
    """What is declared and was not emitted."""
    return sorted(set(service.metrics()) - {one.metric for one in emitted(records)})
