"""Samples from answers that an engine here does not give: control groups version 2, old block I/O and storage."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from nms_workers.services.docker import readings
from nms_workers.services.docker.model import Version
from nms_workers.services.docker.service import Docker
from tests.contract.vendor import description
from tests.metric_contract import undeclared
from tests.services.docker.answers import CGROUP1_BLOCK, CGROUP2_STATS, POOL
from tests.services.records import value, values

WEB = {"container": "web"}


def test_control_groups_version_2() -> None:
    told = list(readings.of_stats("web", CGROUP2_STATS))
    assert undeclared(Docker, told) == []
    assert readings.unknown_stats(CGROUP2_STATS) == []
    assert value(told, "docker_container_cpu_usage_seconds_total", **WEB) == 3.5
    assert value(told, "docker_container_cpu_cfs_throttled_seconds_total", **WEB) == 1.25
    assert value(told, "docker_container_memory_part_bytes", **WEB, part="anon", scope="all") == 30 << 20
    assert value(told, "docker_container_memory_working_set_bytes", **WEB) == 40 << 20
    assert value(told, "docker_container_memory_usage_ratio", **WEB) == 0.2
    assert value(told, "docker_container_memory_events_total", **WEB, event="pgscan_direct") == 4
    assert value(told, "docker_container_network_transmit_bytes_total", **WEB, interface="eth1") == 2001
    assert value(told, "docker_container_blkio_bytes_total", **WEB, device="8:0", operation="write") == 8192
    assert values(told, "docker_container_processes_limit") == {}


def test_block_io_of_control_groups_version_1() -> None:
    told = list(readings.of_stats("web", {"blkio_stats": CGROUP1_BLOCK}))
    assert undeclared(Docker, told) == []
    of = {"container": "web", "device": "8:0"}
    assert value(told, "docker_container_blkio_service_seconds_total", **of, operation="read") == 2.0
    assert value(told, "docker_container_blkio_busy_seconds_total", **of) == 1.5
    assert value(told, "docker_container_blkio_sectors_total", **of) == 64
    assert len({one.metric for one in told}) == len(CGROUP1_BLOCK)


def test_numbers_nobody_knows_are_counted_and_named() -> None:
    newer: dict[str, Any] = {**CGROUP2_STATS, "gpu_stats": {"busy": 3}}
    assert readings.unknown_stats(newer) == ["gpu_stats.busy"]


def test_the_pool_of_an_old_storage_driver() -> None:
    told = list(readings.of_engine(Version("20.10.24", "1.41"), {"DriverStatus": POOL, "ID": "x"}))
    assert undeclared(Docker, told) == []
    assert value(told, "docker_storage_pool_bytes", part="data", state="total") == pytest.approx(107.4e9)
    assert value(told, "docker_storage_pool_bytes", part="metadata", state="used") == pytest.approx(20.97e6)
    assert value(told, "docker_storage_pool_block_size_bytes") == 65_540


@pytest.mark.parametrize("file", ["docker/v1.44.yaml", "docker/v1.51.yaml"])
def test_every_number_of_the_vendors_description_is_known(file: str) -> None:
    told = description(file)["definitions"]
    numbers = {name: one for name, one in told["SystemInfo"]["properties"].items() if one.get("type") in NUMBERS}
    assert numbers
    assert sorted(set(numbers) - readings.INFO.rows.keys()) == []
    examples = [one for one in _all(told, "stats") if "anon" in one] + [
        one for one in _all(description(file)["paths"]["/containers/{id}/stats"], "stats") if "total_rss" in one
    ]
    assert examples
    for example in examples:
        assert [name for name in example if f"memory_stats.stats.{name}" not in readings.STATS.rows] == []


NUMBERS = {"integer", "number", "boolean"}


def _all(node: Any, name: str) -> Iterator[Mapping[str, Any]]:
    """What stands under this name anywhere, or its example."""
    for key, below in node.items() if isinstance(node, Mapping) else enumerate(node if isinstance(node, list) else ()):
        if key == name and isinstance(below, Mapping):
            yield below.get("example") or below
        yield from _all(below, name)
