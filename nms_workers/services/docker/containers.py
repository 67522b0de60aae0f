"""Containers started, stopped, paused and limited. Each looks first, and looks again when it is done."""

import math
from typing import Any

from nms_workers.change import Change, about_to_change
from nms_workers.errors import Refused
from nms_workers.services.docker.acting import await_up, find, freeze, wait
from nms_workers.services.docker.client import DockerClient
from nms_workers.services.docker.model import Container

_SECONDS = 10.0  # that the engine may take to show what it did
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_CPU_PERIOD = 100_000  # microseconds, the kernel's own


def about(container: Container) -> dict[str, Any]:
    """The state of a container, as changes tell it."""
    return {
        "container": container.name,
        "id": container.id,
        "state": container.state.status,
        "started_at": container.state.started_at,
    }


def restart(client: DockerClient, name: str, *, own: bool, grace: int, healthy: float | None) -> Change:
    """Stop it, kill it after `grace` seconds, and start it."""
    before = find(client, name, own=own)
    about_to_change(about(before))
    with client.engine() as api:
        api.restart(before.id, timeout=grace)
    after = await_up(client, before.id, healthy=healthy)
    if after.state.started_at == before.state.started_at:
        raise Refused(f"{before.name} was not started anew", hint="look at the engine's own log")
    return Change(True, f"{before.name} restarted", about(before), about(after))


def start(client: DockerClient, name: str, *, own: bool, healthy: float | None) -> Change:
    """Start it."""
    before = find(client, name, own=own)
    if before.state.running:
        return _already(before, "runs already")
    about_to_change(about(before))
    with client.engine() as api:
        api.start(before.id)
    return Change(True, f"{before.name} started", about(before), about(await_up(client, before.id, healthy=healthy)))


def stop(client: DockerClient, name: str, *, own: bool, grace: int) -> Change:
    """Ask it to end, and kill it after `grace` seconds."""
    before = find(client, name, own=own)
    if not before.state.running:
        return _already(before, "does not run")
    about_to_change(about(before))
    with client.engine() as api:
        api.stop(before.id, timeout=grace)
    after = wait(lambda: _in_state(client, before, running=False), _SECONDS, f"{before.name} still runs")
    return Change(True, f"{before.name} stopped", about(before), about(after))


def pause(client: DockerClient, name: str, *, own: bool) -> Change:
    """Freeze its processes."""
    before = find(client, name, own=own)
    if before.state.paused:
        return _already(before, "is paused already")
    if not before.state.running:
        raise Refused(f"{before.name} does not run, so it cannot be paused", hint="start it first")
    about_to_change(about(before))
    with client.engine() as api:
        freeze(api, before.id)
    after = wait(lambda: _in_state(client, before, paused=True), _SECONDS, f"{before.name} is not paused")
    return Change(True, f"{before.name} paused", about(before), about(after))


def unpause(client: DockerClient, name: str, *, own: bool) -> Change:
    """Let its processes go on."""
    before = find(client, name, own=own)
    if not before.state.paused:
        return _already(before, "is not paused")
    about_to_change(about(before))
    with client.engine() as api:
        api.unpause(before.id)
    after = wait(lambda: _in_state(client, before, paused=False), _SECONDS, f"{before.name} is still paused")
    return Change(True, f"{before.name} goes on", about(before), about(after))


def limits(container: Container) -> dict[str, Any]:
    """The limits of a container: bytes, CPUs, processes; 0: none."""
    told = container.limits
    return {"memory": told.memory, "cpus": told.cpus, "pids": max(0, told.pids_limit or 0)}


def set_limits(  # noqa: PLR0913 - the arguments of the job
    client: DockerClient, name: str, *, own: bool, memory: int | None, cpus: float | None, pids: int | None
) -> Change:
    """Change limits while it runs. The engine cannot lift those of memory and CPU: 0 gives the whole host.

    Args:
        memory: bytes; None: as it is.
        cpus: CPUs, with fractions.
        pids: processes and threads.
    """
    if memory is None and cpus is None and pids is None:
        raise Refused("no limit is given", hint="give memory, cpus or pids")
    before = find(client, name, own=own)
    host = client.get_docker_info()
    had = limits(before)
    wanted = had | {
        key: value for key, value in (("memory", memory), ("cpus", cpus), ("pids", pids)) if value is not None
    }
    if _same(wanted, had):
        return Change(False, f"{before.name} has these limits already", had, had)
    wanted["memory"] = wanted["memory"] or (int(host.get("MemTotal", 0)) if had["memory"] else 0)
    wanted["cpus"] = wanted["cpus"] or (float(host.get("NCPU", 0)) if had["cpus"] else 0)
    about_to_change(had)
    with client.engine() as api:
        api.ask("POST", f"/containers/{before.id}/update", _update(before, wanted, had))
    after = limits(client.get_container(before.id))
    if not _same(after, wanted):
        raise Refused(f"{before.name} has other limits than were set: {after}", hint="look at the engine's own log")
    return Change(True, f"{before.name} has new limits", had, after)


def size(text: str) -> int:
    """Bytes of `512m`, `2g`, `1048576`."""
    digits = text.rstrip("kmg")
    return int(digits) * _UNITS[text[len(digits) :]]


def _update(container: Container, wanted: dict[str, Any], had: dict[str, Any]) -> dict[str, Any]:
    """What changes, as the engine takes it."""
    body: dict[str, Any] = {}
    told = container.limits
    if wanted["memory"] != had["memory"]:
        swap = told.memory_swap - told.memory if told.memory_swap > 0 else wanted["memory"]
        body |= {"Memory": wanted["memory"], "MemorySwap": -1 if told.memory_swap < 0 else wanted["memory"] + swap}
    if wanted["cpus"] != had["cpus"]:
        if told.cpu_quota > 0 and not told.nano_cpus:  # the engine takes either, as the container was made
            period = told.cpu_period or _CPU_PERIOD
            body |= {"CpuPeriod": period, "CpuQuota": round(wanted["cpus"] * period)}
        else:
            body |= {"NanoCpus": round(wanted["cpus"] * 1e9)}
    if wanted["pids"] != had["pids"]:
        body |= {"PidsLimit": wanted["pids"] or -1}
    return body


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(math.isclose(one[name], other[name], rel_tol=1e-3) for name in one)


def _already(container: Container, how: str) -> Change:
    return Change(False, f"{container.name} {how}", about(container), about(container))


def _in_state(client: DockerClient, before: Container, **wanted: bool) -> Container | None:
    now = client.get_container(before.id)
    return now if all(getattr(now.state, name) == value for name, value in wanted.items()) else None
