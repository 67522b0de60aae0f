"""Records from what an engine tells: samples in base units, entities, states that fire."""

import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nms_workers.mapping import MappingTable
from nms_workers.records import Entity, Event, Link, Record, Sample
from nms_workers.services.docker import model
from nms_workers.services.docker.labels import shown
from nms_workers.services.docker.logs import nanoseconds

STATS = MappingTable(Path(__file__).with_name("stats.csv"))
INFO = MappingTable(Path(__file__).with_name("info.csv"))

_HEALTH = ("healthy", "starting", "unhealthy")
_CACHE = ("total_inactive_file", "inactive_file")  # control groups version 1 and 2
_NAMED = 100  # unknown fields that are named
_SIZE = re.compile(r"([0-9.]{1,20}) ?([kKMGTP]?)i?B")
_FACTORS = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}


def of_engine(version: model.Version, info: Mapping[str, Any]) -> Iterator[Record]:
    """The engine, its host, and how many containers and images it has."""
    answer = {**info, "pool": _pool(info.get("DriverStatus") or ())}
    yield from INFO.samples(answer)
    unknown = INFO.unknown(answer)
    yield Sample("docker_unknown_fields", len(unknown), {"answer": "info"})
    about = {
        "version": version.version,
        "api": version.api,
        "product": version.product,
        "storage_driver": str(info.get("Driver", "")),
        "cgroup": str(info.get("CgroupVersion", "1")),
    }
    yield Sample("docker_engine_info", 1, about)
    host = {name: info.get(key) for name, key in _HOST.items()}
    key = str(info.get("ID") or info.get("Name") or "engine")
    yield Entity("engine", key, about | host | {"unknown_fields": unknown[:_NAMED]})


_HOST = {"name": "Name", "os": "OperatingSystem", "kernel": "KernelVersion", "architecture": "Architecture",
         "root": "DockerRootDir", "logging_driver": "LoggingDriver", "warnings": "Warnings"}  # fmt: skip


def of_container(container: model.Container) -> Iterator[Record]:
    """State, health and limits of a container; what is wrong with it fires."""
    state, labels = container.state, {"container": container.name}
    yield Entity("container", container.id, about(container))
    yield Sample("docker_container_info", 1, labels | {"id": container.id[:12], "image": container.config.image})
    for what in ("running", "paused", "restarting", "dead", "oom_killed", "exit_code"):
        yield Sample(f"docker_container_{what}", getattr(state, what), labels)
    yield Sample("docker_container_init_pid", state.pid, labels)
    yield Sample("docker_container_restarts_total", container.restart_count, labels)
    yield from _times(container, labels)
    yield from _health(container, labels)
    limits = container.limits
    yield Sample("docker_container_spec_memory_limit_bytes", limits.memory, labels)
    yield Sample("docker_container_spec_cpus", limits.cpus, labels)
    yield Sample("docker_container_spec_processes_limit", max(0, limits.pids_limit or 0), labels)
    yield from _wrong(container)


def about(container: model.Container) -> dict[str, Any]:
    """What is told of a container. Its environment is not: it holds passwords."""
    state = container.state
    return {
        "name": container.name,
        "image": container.config.image,
        "image_id": container.image,
        "state": state.status,
        "health": container.health.status,
        "exit_code": state.exit_code,
        "restarts": container.restart_count,
        "labels": shown(container.labels),
        "networks": {name: one.ip_address or "" for name, one in container.networks.items()},
        "ports": sorted(container.network_settings.ports or ()),
        "mounts": [f"{one.type}:{one.name or one.source}:{one.destination}" for one in container.mounts or ()],
    }


def _times(container: model.Container, labels: Mapping[str, str]) -> Iterator[Record]:
    state = container.state
    started, finished = nanoseconds(state.started_at) / 1e9, nanoseconds(state.finished_at) / 1e9
    yield Sample("docker_container_created_time_seconds", container.created.timestamp(), labels)
    if started:
        yield Sample("docker_container_started_time_seconds", started, labels)
    if finished:
        yield Sample("docker_container_finished_time_seconds", finished, labels)
    yield Sample("docker_container_uptime_seconds", max(0.0, time.time() - started) if state.running else 0, labels)
    if finished > started > 0:
        yield Sample("docker_container_last_run_seconds", finished - started, labels)


def _health(container: model.Container, labels: Mapping[str, str]) -> Iterator[Record]:
    health = container.health
    if health.status in _HEALTH:
        for one in _HEALTH:
            yield Sample("docker_container_health", health.status == one, {**labels, "state": one})
        yield Sample("docker_container_health_failing_streak", health.failing_streak, labels)


def _wrong(container: model.Container) -> Iterator[Event]:
    name, state, health = container.name, container.state, container.health
    if health.status == "unhealthy" and state.running:
        log = health.log or ()
        output = str(log[-1].get("Output", ""))[:500] if log else ""
        attributes = {"container": name, "failing_streak": health.failing_streak, "output": output}
        yield _fires("container_unhealthy", name, f"{name} is unhealthy", "error", attributes)
    if state.restarting:
        message = f"{name} ends and is started again, over and over; it ended with {state.exit_code}"
        yield _fires("container_restarting", name, message, "error", {"container": name, "exit": state.exit_code})
    if state.oom_killed:
        message = f"its memory limit ended {name}"
        yield _fires("container_oom_killed", name, message, "error", {"container": name})
    if state.dead:
        message = f"{name} is dead: the engine could not remove it"
        yield _fires("container_dead", name, message, "warning", {"container": name, "error": state.error[:500]})


def _fires(kind: str, name: str, message: str, severity: Any, attributes: dict[str, Any]) -> Event:
    return Event(kind, message, severity, f"{kind}:{name}", "firing", attributes)


def of_stats(container: str, stats: Mapping[str, Any]) -> Iterator[Sample]:
    """CPU, memory, network, block I/O and processes of a running container; control groups of version 1 and 2."""
    yield from STATS.samples(_named(stats), {"container": container})
    memory = stats.get("memory_stats") or {}
    usage, limit = memory.get("usage"), memory.get("limit")
    if isinstance(usage, int):
        parts = memory.get("stats") or {}
        working = max(0, usage - next((parts[name] for name in _CACHE if name in parts), 0))
        yield Sample("docker_container_memory_working_set_bytes", working, {"container": container})
        if limit:
            yield Sample("docker_container_memory_usage_ratio", working / limit, {"container": container})


def unknown_stats(stats: Mapping[str, Any]) -> list[str]:
    """The numbers of an answer that we do not know."""
    return STATS.unknown(_named(stats))


def of_unknown(engine: str, unknown: Sequence[str]) -> Iterator[Record]:
    """How many numbers of the measurements we do not know, and which."""
    yield Sample("docker_unknown_fields", len(unknown), {"answer": "stats"})
    yield Entity("measurements", engine, {"unknown_fields": sorted(unknown)[:_NAMED]})


def of_networks(networks: Sequence[Mapping[str, Any]], containers: Sequence[model.Summary]) -> Iterator[Record]:
    """Networks, and which containers are in them."""
    for driver, count in sorted(Counter(str(one.get("Driver", "")) for one in networks).items()):
        yield Sample("docker_networks", count, {"driver": driver})
    for one in networks:
        name = str(one.get("Name", ""))
        ranges = [str(part.get("Subnet", "")) for part in (one.get("IPAM") or {}).get("Config") or ()]
        told = {"name": name, "driver": one.get("Driver"), "internal": bool(one.get("Internal")), "subnets": ranges}
        yield Entity("network", str(one["Id"]), told | {"labels": shown(one.get("Labels"))})
    inside = Counter(name for one in containers if one.state == "running" for name in one.networks)
    for name in sorted({str(one.get("Name", "")) for one in networks}):  # the engine lets two have the same
        yield Sample("docker_network_containers", inside[name], {"network": name})
    keys = {str(one.get("Name", "")): str(one["Id"]) for one in networks}
    for container in containers:
        for name, place in container.networks.items():
            if name in keys:
                told = {"address": place.ip_address or ""}
                yield Link("in_network", ("container", container.id), ("network", keys[name]), told)


def of_volumes(volumes: Sequence[Mapping[str, Any]]) -> Iterator[Record]:
    """Volumes."""
    for driver, count in sorted(Counter(str(one.get("Driver", "")) for one in volumes).items()):
        yield Sample("docker_volumes", count, {"driver": driver})
    for one in volumes:
        told = {"driver": one.get("Driver"), "labels": shown(one.get("Labels")), "created": one.get("CreatedAt")}
        yield Entity("volume", str(one["Name"]), told)


def of_images(images: Sequence[Mapping[str, Any]]) -> Iterator[Record]:
    """Images."""
    for one in images:
        told = {"tags": one.get("RepoTags") or [], "size": one.get("Size"), "created": one.get("Created")}
        yield Entity("image", str(one["Id"]), told)


def of_disk(usage: Mapping[str, Any], bound: int) -> Iterator[Record]:
    """What images, containers, volumes and the build cache take on disk; `bound` of each are told one by one."""
    images = usage.get("Images") or []
    cache = usage.get("BuildCache") or []
    yield Sample("docker_layers_bytes", usage.get("LayersSize") or 0)
    yield Sample("docker_build_cache_bytes", sum(one.get("Size") or 0 for one in cache))
    unused = sum(one.get("Size") or 0 for one in cache if not one.get("InUse"))
    yield Sample("docker_build_cache_reclaimable_bytes", unused)
    yield Sample("docker_images_unused", sum(not one.get("Containers") for one in images))
    for one in images[:bound]:
        tags = one.get("RepoTags") or ()
        labels = {"image": str(tags[0]) if tags and "<none>" not in tags[0] else str(one["Id"])[:19]}
        yield Sample("docker_image_size_bytes", one.get("Size") or 0, labels)
        yield Sample("docker_image_containers", max(0, one.get("Containers") or 0), labels)
    for one in (usage.get("Volumes") or ())[:bound]:
        labels, known = {"volume": str(one["Name"])}, one.get("UsageData") or {}
        if known.get("Size", -1) >= 0:  # -1: its driver does not tell
            yield Sample("docker_volume_size_bytes", known["Size"], labels)
        if known.get("RefCount", -1) >= 0:
            yield Sample("docker_volume_references", known["RefCount"], labels)
    for one in (usage.get("Containers") or ())[:bound]:
        labels = {"container": str((one.get("Names") or [one["Id"][:12]])[0]).lstrip("/")}
        yield Sample("docker_container_size_rw_bytes", one.get("SizeRw") or 0, labels)
        yield Sample("docker_container_size_root_fs_bytes", one.get("SizeRootFs") or 0, labels)


def of_swarm(services: Sequence[Mapping[str, Any]], tasks: Sequence[Mapping[str, Any]]) -> Iterator[Record]:
    """Services of a swarm: tasks that should run, and those that do."""
    running = Counter(one.get("ServiceID") for one in tasks if (one.get("Status") or {}).get("State") == "running")
    wanted = Counter(one.get("ServiceID") for one in tasks if one.get("DesiredState") == "running")
    for one in services:
        spec = one.get("Spec") or {}
        replicas = (spec.get("Mode") or {}).get("Replicated") or {}
        labels = {"service": str(spec.get("Name", "")), "mode": "replicated" if replicas else "global"}
        desired = replicas.get("Replicas", wanted[one["ID"]])
        yield Sample("docker_swarm_service_tasks_desired", desired, labels)
        yield Sample("docker_swarm_service_tasks_running", running[one["ID"]], labels)


def _named(stats: Mapping[str, Any]) -> dict[str, Any]:
    """The measurements with names where the engine has lists: CPUs by number, devices as `8:0` and what they did."""
    cpu = dict(stats.get("cpu_stats") or {})
    usage = dict(cpu.get("cpu_usage") or {})
    usage["percpu_usage"] = {str(i): value for i, value in enumerate(usage.get("percpu_usage") or ())}
    block = {name: _devices(rows or ()) for name, rows in (stats.get("blkio_stats") or {}).items()}
    return {**stats, "cpu_stats": cpu | {"cpu_usage": usage}, "blkio_stats": block}


def _devices(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        device = f"{row.get('major', 0)}:{row.get('minor', 0)}"
        found.setdefault(device, {})[str(row.get("op") or "all").lower()] = row.get("value", 0)
    return found


def _pool(status: Sequence[Sequence[str]]) -> dict[str, float]:
    """Sizes among what a storage driver says, in bytes: `11.8 GB`, in powers of ten."""
    sizes = {row[0]: _SIZE.fullmatch(str(row[1])) for row in status if len(row) == 2}
    return {name: float(size[1]) * _FACTORS[size[2]] for name, size in sizes.items() if size}
