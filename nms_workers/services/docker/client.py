"""The Docker client: reads one engine, and lends the vendor's client to what changes it. Usable without the fleet.

client = DockerClient(DockerTarget(url="unix:///run/docker.sock"))
print([line.text for line in client.get_service_logs("web", tail=20)])
client.close()
"""

import threading
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec
import requests
from docker.errors import DockerException

from nms_workers.errors import ParseError, Refused, Unreachable
from nms_workers.records import Event, Sample
from nms_workers.services.docker import labels, logs, model, readings
from nms_workers.services.docker.connection import Engine, Transport
from nms_workers.services.docker.failures import NotThere, no_engine
from nms_workers.services.docker.happenings import Cursor
from nms_workers.services.docker.target import DockerTarget
from nms_workers.services.docker.together import read_each

T = TypeVar("T")

OLDEST, NEWEST = (1, 41), (1, 51)  # versions of the API that this was written for
_DISK_SECONDS = 300.0  # the engine may take to look at every file
_MAX_EVENT = 1 << 20  # bytes of one event
_LAST_OUTPUT = 500  # characters of the last output of a health check


class DockerClient:
    """One engine. Connects when first used; safe to share between threads.

    Every method raises `Unreachable`, `Timeout`, `AuthError`, `ParseError` or `Refused`; `NotThere`, a `Refused`, when
    what was named does not exist. Containers are named by name or id.
    """

    def __init__(self, target: DockerTarget) -> None:
        self.target = target
        self._lock = threading.Lock()
        self._connected: tuple[Transport, Engine, model.Version] | None = None
        self._cursor = Cursor()

    def close(self) -> None:
        """Let go of connections; the next use opens new ones."""
        with self._lock:
            connected, self._connected = self._connected, None
        if connected:
            connected[1].close()
            connected[0].close()

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        """The vendor's client, connected; what it raises inside comes out as our errors."""
        try:
            yield self._connect()[1]
        except Unreachable:
            self.close()  # it may come back as another version
            raise
        except requests.JSONDecodeError:
            raise no_engine(self.target.url, "it does not answer in JSON") from None
        except DockerException as exc:
            raise Refused(f"the engine's client refuses this: {str(exc)[:300]}") from None

    def get_version(self) -> model.Version:
        """The engine's version and that of the API it is spoken to with."""
        return self._connect()[2]

    def get_docker_info(self) -> dict[str, Any]:
        """What the engine tells of itself and its host. https://docs.docker.com/reference/api/engine/#tag/System"""
        with self.engine() as api:
            return _as(api.info(), dict[str, Any], "info")

    def get_disk_usage(self) -> dict[str, Any]:
        """What images, containers, volumes and the build cache take. The engine looks at every file for it."""
        with self.engine() as api:
            return _as(api.ask("GET", "/system/df", timeout=_DISK_SECONDS), dict[str, Any], "system/df")

    def get_containers(self, *, all: bool = True, label: str = "") -> list[model.Summary]:
        """Containers, by name.

        Args:
            all: those too that do not run.
            label: only those that carry it: `nms.service=true`.
        """
        with self.engine() as api:
            found = api.containers(all=all, filters={"label": [label]} if label else None)
        return sorted(_as(found, list[model.Summary], "containers"), key=lambda one: one.name)

    def get_networks(self) -> list[dict[str, Any]]:
        """Networks. https://docs.docker.com/reference/api/engine/#tag/Network/operation/NetworkList"""
        with self.engine() as api:
            return _as(api.networks(), list[dict[str, Any]], "networks")

    def get_volumes(self) -> list[dict[str, Any]]:
        """Volumes. https://docs.docker.com/reference/api/engine/#tag/Volume/operation/VolumeList"""
        with self.engine() as api:
            return _as(api.volumes(), _Volumes, "volumes").volumes or []

    def get_images(self) -> list[dict[str, Any]]:
        """Images. https://docs.docker.com/reference/api/engine/#tag/Image/operation/ImageList"""
        with self.engine() as api:
            return _as(api.images(), list[dict[str, Any]], "images")

    def get_swarm(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Services of the swarm and their tasks; a `Refused` where the engine is no manager of one."""
        with self.engine() as api:
            services = _as(api.services(), list[dict[str, Any]], "services")  # type: ignore[no-untyped-call]
            return services, _as(api.tasks(), list[dict[str, Any]], "tasks")  # type: ignore[no-untyped-call]

    def get_container(self, container: str) -> model.Container:
        """All that we know of one container."""
        with self.engine() as api:
            return _as(api.inspect_container(container), model.Container, f"container {container}")

    def inspect(self, container: str) -> dict[str, Any]:
        """All that the engine knows of one container, as it says it."""
        with self.engine() as api:
            return _as(api.inspect_container(container), dict[str, Any], f"container {container}")

    def get_stats(self, container: str) -> dict[str, Any]:
        """The counters of a running container, read once; empty when it does not run."""
        with self.engine() as api:
            stats = api.stats(container, stream=False, one_shot=True)
        found = _as(stats, dict[str, Any], f"stats of {container}")
        return {} if str(found.get("read", "")).startswith("0001-") else found

    def get_service_metrics(self, name: str) -> list[Sample]:
        """What the polls would tell of one container: state, health, CPU, memory, network, block I/O, processes."""
        container = self.get_container(name)
        stats = self.get_stats(container.id) if container.state.running else {}
        records = [*readings.of_container(container), *readings.of_stats(container.name, stats)]
        return [one for one in records if isinstance(one, Sample)]

    def get_service_logs(self, name: str, tail: int = 100) -> list[model.LogLine]:
        """The last lines of a container's log, at most 10000, oldest first."""
        return list(self.read_logs(name, tail=min(max(0, tail), 10_000)))

    def read_logs(
        self, container: str, *, since: int = 0, until: int = 0, tail: int | None = None, follow: bool = False
    ) -> Generator[model.LogLine, None, None]:
        """The lines of a container's log as they come.

        Args:
            since, until: nanoseconds of the epoch, both included; 0: no bound.
            tail: only so many of the last.
            follow: wait for more until the container ends; a `Timeout` when none came for as long as `timeout`.
        """
        about = self.get_container(container)
        asked: dict[str, str | int | bool] = {"stdout": 1, "stderr": 1, "timestamps": 1, "follow": int(follow)}
        asked |= {"since": logs.moment(since)} if since else {}
        asked |= {"until": logs.moment(until)} if until else {}
        asked |= {} if tail is None else {"tail": tail}
        with self.engine() as api, api.body_of("GET", f"/containers/{about.id}/logs", asked) as body:
            yield from logs.lines(logs.frames(body, tty=about.config.tty))

    def events(self, since: int, until: int | None = None) -> Iterator[model.EngineEvent]:
        """What happened at the engine, oldest first. It remembers the last 256.

        Args:
            since: nanoseconds of the epoch, included; 0: all that it remembers.
            until: the same; None: wait for more, and end with a `Timeout` when none came for as long as `timeout`.
        """
        asked: dict[str, str | int | bool] = {"since": logs.moment(since)}
        asked |= {} if until is None else {"until": logs.moment(until)}
        with self.engine() as api, api.body_of("GET", "/events", asked) as body:
            open_ = b""
            while piece := body.read1(65_536, decode_content=True):
                *whole, open_ = (open_ + piece).split(b"\n")
                if len(open_) > _MAX_EVENT:
                    raise ParseError(f"an event of {self.target.url} has more than {_MAX_EVENT} bytes")
                yield from (_event(one, self.target.url) for one in whole if one.strip())

    def now(self) -> int:
        """The engine's clock, in nanoseconds of the epoch."""
        at = logs.nanoseconds(str(self.get_docker_info().get("SystemTime", "")))
        return at or time.time_ns()

    def new_events(self) -> Iterator[Event]:
        """What happened since the last time this was asked, as events of ours; a gap is one too."""
        return self._cursor.read(self, self.target.max_events)

    def discover_services(self) -> list[model.FoundService]:
        """The running containers that carry the label `nms.service=true`, and what they say they offer."""
        found = self.get_containers(all=False, label=f"{model.LABEL}=true")
        return [labels.service_of(one) for one in self._each(found)]

    def health_check_all(self, *, every: bool = False) -> list[model.ServiceHealth]:
        """How the labelled containers are; with `every` all containers."""
        label = "" if every else f"{model.LABEL}=true"
        return [_health(one) for one in self._each(self.get_containers(label=label))]

    def _each(self, found: list[model.Summary]) -> Iterator[model.Container]:
        settings = self.target
        read = read_each(found, self.get_container, at_once=settings.connections, limit=settings.timeout)
        return (container for _, container in read)

    def _connect(self) -> tuple[Transport, Engine, model.Version]:
        with self._lock:
            if self._connected is None:
                transport = Transport(self.target)
                try:
                    version = _negotiated(self.target, transport)
                    engine = Engine(self.target, transport, version.api)
                except BaseException:
                    transport.close()
                    raise
                self._connected = transport, engine, version
            return self._connected


class _Volumes(msgspec.Struct, rename="pascal"):
    volumes: list[dict[str, Any]] | None = None


class _Versions(msgspec.Struct, rename="pascal"):
    api_version: str
    version: str = ""
    min_api_version: str | None = msgspec.field(name="MinAPIVersion", default=None)
    components: tuple[Mapping[str, Any], ...] | None = ()


def _negotiated(target: DockerTarget, transport: Transport) -> model.Version:
    """The newest version of the API that both know.

    Raises:
        ParseError: something else answers there, or its versions and ours have nothing in common.
    """
    first = Engine(target, transport, _written(OLDEST))
    try:
        found = msgspec.convert(first.version(api_version=False), _Versions)
        newest, oldest = _numbers(found.api_version), _numbers(found.min_api_version or _written(OLDEST))
    except (requests.JSONDecodeError, msgspec.ValidationError, ValueError):
        raise no_engine(target.url, "it does not tell the version of its API") from None
    except NotThere:
        raise no_engine(target.url, "it knows no /version") from None
    if newest < OLDEST:
        hint = "the engine must be 20.10 or newer"
        raise ParseError(f"{target.url} speaks version {found.api_version} of the API only", hint=hint)
    names = [str(one.get("Name", "")) for one in found.components or ()]
    product = "Podman" if any("podman" in name.lower() for name in names) else "Docker"
    return model.Version(found.version, _written(max(min(newest, NEWEST), oldest)), product)


def _numbers(version: str) -> tuple[int, int]:
    major, _, minor = version.partition(".")
    return int(major), int(minor)


def _written(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _as(answer: object, shape: type[T], what: str) -> T:
    try:
        return msgspec.convert(answer, shape)
    except msgspec.ValidationError as exc:
        raise ParseError(f"the engine tells {what} in another shape: {exc}") from None


def _event(line: bytes, url: str) -> model.EngineEvent:
    try:
        return msgspec.json.decode(line, type=model.EngineEvent)
    except (msgspec.DecodeError, msgspec.ValidationError) as exc:
        raise ParseError(f"an event of {url} is in another shape: {exc}") from None


def _health(container: model.Container) -> model.ServiceHealth:
    state, health = container.state, container.health
    log = health.log or ()
    ill = not state.running or state.paused or state.restarting or health.status == "unhealthy"
    known = {"healthy": True, "starting": None, "none": None}.get(health.status)
    return model.ServiceHealth(
        container=container.name,
        state=state.status,
        health=health.status,
        failing_streak=health.failing_streak,
        restarts=container.restart_count,
        healthy=False if ill else known,
        output=str(log[-1].get("Output", ""))[:_LAST_OUTPUT] if log else "",
    )
