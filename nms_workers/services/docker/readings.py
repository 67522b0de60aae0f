"""Records from what an engine tells: samples in base units, entities, states that fire."""

from collections.abc import Iterator, Mapping
from typing import Any

from nms_workers.records import Entity, Record, Sample
from nms_workers.services.docker import model


def of_container(container: model.Container) -> Iterator[Record]:
    """State and health of a container."""
    yield Sample("docker_container_running", container.state.running, {"container": container.name})
    yield Entity("container", container.id, {"name": container.name, "state": container.state.status})


def of_stats(name: str, stats: Mapping[str, Any]) -> Iterator[Record]:
    """The counters of a running container."""
    yield from ()
