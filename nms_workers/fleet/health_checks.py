"""The checks that tell whether a target is healthy. Each says yes, no, or that it cannot tell."""

import logging
import os
import socket
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from nms_workers.errors import NmsError
from nms_workers.fleet.labels import SELECTOR
from nms_workers.service import service
from nms_workers.services.docker.client import DockerClient
from nms_workers.settings import Checks
from nms_workers.transport.deadline import deadline, remaining
from nms_workers.transport.http import HttpClient
from nms_workers.transport.http_settings import HttpSettings
from nms_workers.transport.sweep import answers

log = logging.getLogger(__name__)

_PORTS = {"http": 80, "https": 443}
_OVER_UDP = frozenset({"snmp"})  # kinds whose port says nothing over TCP


@dataclass(frozen=True)
class Seen:
    """What a check found. `well`: None when it cannot tell."""

    well: bool | None
    detail: str = ""


@dataclass(frozen=True)
class Subject:
    """A target to be checked.

    Args:
        settings: of its service, as they are stored.
        polled: how its polls ended since the last look; None: none did.
        elsewhere: it is reached from another host only, so nothing can be asked from here.
        engine, container: where it is one that discovery found.
    """

    id: int
    service: str
    name: str
    settings: Mapping[str, Any]
    checks: Checks
    polled: Seen | None = None
    elsewhere: bool = False
    engine: str = ""
    container: str = ""


@dataclass(frozen=True)
class EngineHealth:
    """Containers of one engine, by name: those that run, those that its health checks call ill, and those they do not.

    One that is in neither of the last two is starting, or became another while the engine was asked.
    """

    running: frozenset[str]
    unhealthy: frozenset[str]
    well: frozenset[str]

    def seen(self, container: str) -> Seen:
        """How a container is."""
        if container not in self.running:
            return Seen(False, "its container does not run")
        if container in self.unhealthy:
            return Seen(False, "its container's own health check fails")
        return Seen(True) if container in self.well else Seen(None, "its container is starting")

    @classmethod
    def of(cls, client: DockerClient) -> "EngineHealth":
        """Ask the engine; its filters do the work.

        Raises:
            TargetError: it cannot be asked.
        """

        def names(*health: str) -> frozenset[str]:
            wanted = {"label": [SELECTOR], **({"health": list(health)} if health else {})}
            with client.engine() as api:
                listed = api.containers(filters=wanted)
            return frozenset(name.removeprefix("/") for one in listed for name in one["Names"])

        return cls(names(), names("unhealthy"), names("healthy", "none"))


def check_all(
    subjects: Iterable[Subject],
    engines: Mapping[str, EngineHealth],
    *,
    timeout: float,
    limit: float,
    commands: bool,
) -> Iterator[tuple[int, Seen]]:
    """How each of these is, by id, as the checks end. What was not reached in time is left out.

    Args:
        timeout: seconds of one check.
        limit: seconds of all of them.
        commands: whether programs may be run.
    """

    def check(one: Subject) -> tuple[int, Seen]:
        try:
            return one.id, _check(one, engines, timeout, commands=commands)
        except Exception as exc:  # a fault of one check costs only itself
            log.exception("%s/%s: a fault in its health check", one.service, one.name)
            return one.id, Seen(None, f"a fault in the check: {type(exc).__name__}")

    with deadline(limit):
        yield from answers(subjects, check)


def _check(one: Subject, engines: Mapping[str, EngineHealth], timeout: float, *, commands: bool) -> Seen:
    """All of its checks must be well; while its container starts nothing is held against it."""
    found: list[Seen] = []
    if one.checks.docker and one.container and one.engine in engines:
        found.append(engines[one.engine].seen(one.container))
        if found[0].well is None:
            return found[0]
    asks: tuple[tuple[object, Callable[[], Seen]], ...] = (
        (one.checks.poll, lambda: one.polled or _light(one, timeout)),
        (one.checks.tcp, lambda: _tcp(one, timeout)),
        (one.checks.http, lambda: _http(one, timeout)),
        (one.checks.command, lambda: _command(one, timeout, allowed=commands)),
    )
    found += [ask() for wanted, ask in asks if wanted]
    ill = "; ".join(seen.detail for seen in found if seen.well is False)
    if ill:
        return Seen(False, ill)
    return (
        Seen(True) if any(seen.well for seen in found) else Seen(None, "; ".join(s.detail for s in found if s.detail))
    )


def _light(one: Subject, timeout: float) -> Seen:
    """No poll ended since the last look: whether its port opens will do."""
    if one.service in _OVER_UDP:
        return Seen(None, "no poll ended since the last look")
    return _tcp(one, timeout)


def _place(one: Subject) -> tuple[str, int] | None:
    """Where it listens; None: at no port, or at one that can only be reached from another host."""
    if one.elsewhere:
        return None
    try:
        target = service(one.service).Target.model_validate(dict(one.settings))
    except (NmsError, ValidationError):
        return None
    if url := getattr(target, "url", None):
        parts = urlsplit(str(url))
        port = parts.port or _PORTS.get(parts.scheme)
        return (parts.hostname, port) if parts.hostname and port else None
    host, port = getattr(target, "host", None), getattr(target, "port", None)
    return (host, port) if isinstance(host, str) and isinstance(port, int) and not host.startswith("/") else None


def _tcp(one: Subject, timeout: float) -> Seen:
    place = _place(one)
    if place is None:
        return Seen(None, "it listens at no port that could be tried from here")
    port = one.checks.tcp if one.checks.tcp and not isinstance(one.checks.tcp, bool) else place[1]
    try:
        with socket.create_connection((place[0], port), remaining(timeout)):
            return Seen(True)
    except OSError as exc:
        return Seen(False, f"port {port} does not open: {exc.strerror or type(exc).__name__}")


def _http(one: Subject, timeout: float) -> Seen:
    path = one.checks.http or ""
    if one.elsewhere:
        return Seen(None, "it can only be asked from another host")
    try:
        if path.startswith("/"):
            settings = service(one.service).Target.model_validate(dict(one.settings))
            if not isinstance(settings, HttpSettings):
                return Seen(None, f"{one.service} has no URL: write a whole one into its http check")
        else:
            settings, path = HttpSettings(url=path), ""
        with deadline(timeout), HttpClient(settings, service="health", target=f"{one.service}/{one.name}") as client:
            client.get(path)
    except NmsError as exc:
        return Seen(False, str(exc)[:1000])
    except ValidationError:
        return Seen(None, "its settings do not fit the service any more")
    return Seen(True)


def _command(one: Subject, timeout: float, *, allowed: bool) -> Seen:
    """A program of whoever wrote the settings; it learns of the target by its environment, and has no shell."""
    if not allowed:
        return Seen(None, "commands are off: health.commands")
    env = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "NMS_SERVICE": one.service, "NMS_TARGET": one.name}
    if place := _place(one):
        env |= {"NMS_HOST": place[0], "NMS_PORT": str(place[1])}
    try:
        ended = subprocess.run(
            one.checks.command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=remaining(timeout),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Seen(False, f"{one.checks.command[0]} did not end in {timeout:g} s")
    except OSError as exc:
        return Seen(None, f"{one.checks.command[0]} cannot be run: {exc.strerror}")
    ill = ended.returncode != 0
    return Seen(not ill, f"{one.checks.command[0]} ended with {ended.returncode}" if ill else "")
