"""Follows engines live: an event, a gap, or a few quiet minutes are all the same reason to look at everything again."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import msgspec
import redis
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from nms_workers.errors import NmsError, Outcome, ParseError, TargetError, Timeout
from nms_workers.fleet.docker_discovery import Reconciled, described, reconcile
from nms_workers.fleet.inventory import Inventory
from nms_workers.fleet.labels import SELECTOR, Container
from nms_workers.records import Event
from nms_workers.services.docker.client import DockerClient
from nms_workers.services.docker.target import DockerTarget
from nms_workers.settings import DockerDiscovery, Settings, TargetConfig
from nms_workers.store.slot import SlotResult
from nms_workers.store.writer import Writer
from nms_workers.transport.deadline import deadline

log = logging.getLogger(__name__)

POLL = "fleet.discovery"  # what the ledger calls it; no poll of a service has a dot in its name
FAULT = "discovery_fault"  # the kind of event that lasts as long as a container cannot be a target

# Events after which a container may be another target than before, or none: type and action.
_EVENTS = frozenset(
    {("container", action) for action in ("start", "die", "rename", "unpause")}
    | {("network", action) for action in ("connect", "disconnect")}
)
_LOOK_SECONDS = 20.0  # one look
_GAP_SECONDS = 0.2  # between two looks: a stack that comes up sends hundreds of events
_AGAIN_SECONDS = 1.0  # after something failed
_SETTLED_SECONDS = 1.0  # without an event, then once more: an engine tells of an end before its list knows of it
_SLACK_NS = 5_000_000_000  # by which the engine's clock may differ: events of this time are heard twice


def engines(settings: Settings) -> dict[str, TargetConfig]:
    """The docker targets that are looked at, by name."""
    rules = settings.discovery.docker
    wanted = () if rules is None else rules.engines
    docker = {target.name: target for target in settings.targets if target.service == "docker"}
    return {name: target for name, target in docker.items() if not wanted or name in wanted}


def containers(client: DockerClient) -> list[Container]:
    """The labelled containers that run, the newest first.

    Raises:
        TargetError: the engine cannot be asked.
    """
    with deadline(_LOOK_SECONDS), client.engine() as api:
        listed = api.containers(filters={"label": [SELECTOR]})
    try:
        return msgspec.convert(listed, list[Container])
    except msgspec.ValidationError as exc:
        raise ParseError(f"the engine lists containers in another shape: {exc}") from None


def host_of(target: DockerTarget) -> str:
    """Where ports are that the engine publishes on every address."""
    return urlsplit(target.url).hostname or "127.0.0.1"


class Discovery:
    """Enters what engines have, and tells of it.

    Args:
        settings: gives those in force.
        writer: of events, which belong to the docker target; None: nothing is told but in the log.
    """

    def __init__(
        self,
        engine: Engine,
        inventory: Inventory,
        settings: Callable[[], Settings],
        writer: Writer | None = None,
        worker: str = "",
    ) -> None:
        self._database, self._inventory, self.settings = engine, inventory, settings
        self._writer, self._worker = writer, worker
        self._untold = True  # whoever was here before may have died before the fleet was told
        self._logged: dict[str, dict[str, str]] = {}
        self._written: dict[str, dict[str, str]] = {}
        self._last_due = datetime.now(UTC)
        self._lock = threading.Lock()

    def rules(self) -> DockerDiscovery:
        """How containers become targets."""
        return self.settings().discovery.docker or DockerDiscovery()

    def take(self, name: str, target: DockerTarget, listed: Sequence[Container]) -> Reconciled:
        """Make the targets agree with the containers of one engine.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, redis.RedisError: a store is away; it is all done at the next look.
        """
        rules = self.rules()
        own = {(one.service, one.name) for one in self.settings().targets}
        wanted, faults = described(listed, rules, host_of(target), own)
        with self._lock:
            with self._database.begin() as connection:
                result = reconcile(connection, name, wanted, rules, datetime.now(UTC))
            result.faults = faults | result.faults
            self._untold = self._untold or result.polled_otherwise
            if self._untold:
                self._inventory.outdate()
                self._untold = False
            self._tell(name, result)
        return result

    def _tell(self, name: str, result: Reconciled) -> None:
        before = self._logged.get(name, {})
        self._logged[name] = result.faults
        for container, why in result.faults.items():
            if before.get(container) != why:
                log.warning("%s: the container %s is no target: %s", name, container, why)
        steps = [
            Event(f"target_{what}", f"{target}: its container {why}", fingerprint=target)
            for what, why in (("active", "is a target"), ("waiting", "waits for approval"), ("gone", "is gone"))
            for target in getattr(result, what)
        ]
        if steps or result.changed:
            log.info("%s: %s", name, result)
        if (steps or self._written.get(name) != result.faults) and self._write(name, steps, result.faults):
            self._written[name] = result.faults

    def _write(self, name: str, steps: list[Event], faults: dict[str, str]) -> bool:
        """Whether it could be written: the docker target may not be known to the fleet yet."""
        docker = next((t for t in self._inventory.all().values() if (t.service, t.name) == ("docker", name)), None)
        if self._writer is None or docker is None:
            return False
        lasting = [
            Event(FAULT, f"{one}: {why}"[:2000], severity="warning", fingerprint=one, state="firing")
            for one, why in faults.items()
        ]
        now = datetime.now(UTC)
        self._last_due = max(now, self._last_due + timedelta(microseconds=1))  # a row of the ledger each
        result = SlotResult(
            target_id=docker.id,
            service=docker.service,
            target=docker.name,
            poll=POLL,
            due=self._last_due,
            started=now,
            finished=now,
            outcome=Outcome.OK,
            worker=self._worker,
            events=(*steps, *lasting),
            enumerated=(FAULT,),
            complete=True,
        )
        self._writer.put(result)
        return True


class Watch:
    """Follows one engine, in two threads: one listens to its events, the other looks.

    Args:
        name, target: of the docker target.
    """

    def __init__(self, name: str, target: DockerTarget, discovery: Discovery) -> None:
        self._name, self._target, self._discovery = name, target, discovery
        self._client = DockerClient(target)
        # the same engine, but patient: between two events may be a long time
        self._listening = DockerClient(target.model_copy(update={"timeout": discovery.rules().resync}))
        self._wake, self._stop = threading.Event(), threading.Event()
        self._failing = ""
        self._threads = [
            threading.Thread(target=run, name=f"discovery-{name}-{run.__name__}", daemon=True)
            for run in (self._listen, self._look)
        ]

    def start(self) -> None:
        """Begin, with a look at everything."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End soon; what listens ends with the process at the latest."""
        self._stop.set()
        self._wake.set()
        self._threads[1].join(_LOOK_SECONDS)
        self._client.close()

    @property
    def alive(self) -> bool:
        """Whether both threads run."""
        return all(thread.is_alive() for thread in self._threads)

    def _listen(self) -> None:
        try:
            self._listen_until_stopped()
        finally:
            self._listening.close()

    def _listen_until_stopped(self) -> None:
        while not self._stop.is_set():
            since = time.time_ns() - _SLACK_NS
            self._wake.set()  # whatever happened while nobody listened
            try:
                for event in self._listening.events(since):
                    if (event.type, event.action) in _EVENTS:
                        self._wake.set()
                    if self._stop.is_set():
                        return
            except Timeout:
                continue  # it was quiet
            except TargetError as exc:
                log.debug("%s: its events ended: %s", self._name, exc)  # the look tells it, and once
            self._stop.wait(_AGAIN_SECONDS)

    def _look(self) -> None:
        woken = False
        while not self._stop.is_set():
            woken = self._wake.wait(_SETTLED_SECONDS if woken else self._discovery.rules().resync)
            self._wake.clear()
            if self._stop.is_set():
                return
            well = self._look_once()
            if not well:
                self._wake.set()
            self._stop.wait(_GAP_SECONDS if well else _AGAIN_SECONDS)

    def _look_once(self) -> bool:
        try:
            self._discovery.take(self._name, self._target, containers(self._client))
        except NmsError as exc:
            return self._failed(str(exc))
        except (SQLAlchemyError, redis.RedisError) as exc:
            away = "Redis" if isinstance(exc, redis.RedisError) else "PostgreSQL"
            return self._failed(f"{away} is away: {type(exc).__name__}")
        if self._failing:
            log.info("%s: it is looked at again", self._name)
        self._failing = ""
        return True

    def _failed(self, why: str) -> bool:
        if why != self._failing:
            log.warning("%s: its containers cannot be looked at, all targets stay: %s", self._name, why)
        self._failing = why
        return False


class Watches:
    """One `Watch` for each engine that the settings name, as they change."""

    def __init__(self, discovery: Discovery) -> None:
        self._discovery = discovery
        self._running: dict[str, tuple[TargetConfig, Watch]] = {}

    def look(self) -> bool:
        """Start and stop what the settings want now. Whether all of it runs."""
        wanted = engines(self._discovery.settings()) if self._discovery.settings().discovery.docker else {}
        for name in [name for name, (made_of, _) in self._running.items() if wanted.get(name) != made_of]:
            self._running.pop(name)[1].stop()
        for name in wanted.keys() - self._running.keys():
            settings = wanted[name].validated()
            assert isinstance(settings, DockerTarget)  # noqa: S101 - the service `docker` has no others
            watch = Watch(name, settings, self._discovery)
            watch.start()
            self._running[name] = wanted[name], watch
        return all(watch.alive for _, watch in self._running.values())

    def stop(self) -> None:
        """End all of them."""
        for _, watch in self._running.values():
            watch.stop()
        self._running.clear()
