"""The contract every service fulfils, and the registry that finds the services.

A service is one folder under `nms_workers/services/` with `service.py` (a `Service` subclass), `client.py` (the
protocol) and `metrics.csv` (what it emits). Nothing else is touched to add one.
"""

import csv
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, create_model
from pydantic import ValidationError as PydanticError

from nms_workers.change import Change
from nms_workers.errors import ConfigError, Refused
from nms_workers.records import Witnesses

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\Z")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

SHORTEST, LONGEST = 1.0, 7 * 86_400.0  # seconds an interval may have; dispatch looks once a second at most

F = TypeVar("F", bound=Callable[..., Any])


def seconds(text: str) -> float:
    """Seconds of a duration such as `500ms`, `30s`, `5m`, `1h`, `2d`.

    Raises:
        ConfigError: it is not a positive duration.
    """
    match = _DURATION.match(text.strip())
    if not match or float(match[1]) <= 0:
        raise ConfigError(f"{text!r} is not a duration", hint="write a number and a unit: 500ms, 30s, 5m, 1h, 2d")
    return float(match[1]) * _SECONDS[match[2]]


class TargetSettings(BaseModel):
    """Base of the validated settings of one target. Unknown keys are refused; `Args:` of a docstring explains them."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Client(Protocol):
    """What the fleet asks of every client; the rest is the client's own.

    Args:
        target: the validated settings of the service's `Target`.
    """

    def __init__(self, target: Any) -> None: ...

    def close(self) -> None:
        """Let go of connections. The client may be used again afterwards: it connects lazily."""


@dataclass(frozen=True)
class Poll:
    """A read of a target, as declared by `@poll`. Durations are seconds."""

    name: str
    every: float
    deadline: float
    shard: int
    volatile: bool
    enumerates: frozenset[str]
    summary: str
    run: Callable[..., Iterator[Any]]


@dataclass(frozen=True)
class Action:
    """A change to a target, as declared by `@action`. Arguments are validated against the method's own signature."""

    name: str
    undo: str | None
    runs_at: Literal["worker", "edge"]
    confirm: bool
    deadline: float
    serialize_by: str | None
    idempotent: bool
    looks_first: bool
    previews: bool  # whether the method takes `dry_run`
    summary: str
    arguments: type[BaseModel]
    run: Callable[..., Change]

    def validate(self, arguments: Mapping[str, object]) -> dict[str, Any]:
        """The arguments as typed values.

        Raises:
            Refused: an argument is missing, unknown or of the wrong shape; the message names each.
        """
        try:
            model = self.arguments.model_validate(dict(arguments))
        except PydanticError as exc:
            faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in exc.errors(include_input=False))
            raise Refused(f"{self.name} cannot take these arguments: {faults}") from None
        return {name: getattr(model, name) for name in type(model).model_fields}


@dataclass(frozen=True)
class Metric:
    """One row of `metrics.csv`."""

    name: str
    type: Literal["counter", "gauge", "info"]
    unit: str
    labels: tuple[str, ...]
    description: str


@dataclass(frozen=True)
class BreakerPolicy:
    """The breaker of a target opens after `failures` in a row and lets one try through after `reset` seconds."""

    failures: int = 3
    reset: float = 30.0


def poll(
    *,
    every: str,
    deadline: str | None = None,
    shard: int = 1,
    volatile: bool = False,
    enumerates: tuple[str, ...] = (),
) -> Callable[[F], F]:
    """Declare a method of a service as a poll.

    The method takes the client and yields records; what it yielded before an error is kept. With `shard` above 1 it
    takes a mapping of target name to client instead, and yields `(name, record)` or `(name, TargetError)`.

    Args:
        every: the interval unless the settings say otherwise.
        deadline: how long one run may take; default: 80 % of the interval, and never more than that.
        shard: how many targets one task may read at once.
        volatile: the set of series changes at every read (top queries, busiest hosts): each label set is stored as a
            layout of its own.
        enumerates: the kinds that one complete run names in full. An entity or link not named any more is gone; an
            event that this poll had firing is resolved.

    Raises:
        ConfigError: a duration is none, or the interval is not from 1 second to 7 days.
    """
    interval = seconds(every)
    if not SHORTEST <= interval <= LONGEST:
        raise ConfigError(f"a poll cannot run every {every}", hint="an interval is from 1s to 7d")

    def declare(method: F) -> F:
        limit = min(seconds(deadline), interval * 0.8) if deadline else interval * 0.8
        declaration = {"every": interval, "deadline": limit, "shard": shard, "volatile": volatile}
        method.__poll__ = declaration | {"enumerates": frozenset(enumerates)}  # type: ignore[attr-defined]
        return method

    return declare


def action(  # noqa: PLR0913 - they are named, and a declaration is one line
    *,
    undo: str | None = None,
    runs_at: Literal["worker", "edge"] = "worker",
    confirm: bool = False,
    deadline: str = "60s",
    serialize_by: str | None = None,
    idempotent: bool = True,
    looks_first: bool = False,
) -> Callable[[F], F]:
    """Declare a method of a service as an action: `(client, **arguments) -> Change`. It looks before it changes.

    A method that takes `dry_run: bool = False` changes nothing when it is true, and tells what it would change.

    Args:
        undo: the action that takes this one back. It is called with those of the arguments it takes, and with what the
            `Change` had as `before` and `after` when it has arguments of these names.
        runs_at: `edge` runs it on the worker beside the target.
        confirm: destructive: refused unless the argument `confirm` equals the target's name.
        deadline: the hard limit of one run.
        serialize_by: an argument. Changes of one target run one at a time and in order; with this, only those that have
            the same value in this argument, or that name none. An id (a UUID) names none: the same thing may be called
            by its name elsewhere.
        idempotent: whether running it twice is as running it once, as it should be. False: it is not run again when its
            worker died or its target did not answer, since nobody knows whether it was done.
        looks_first: it calls `about_to_change` before it changes anything, so that a dry run can stop it there and tell
            what is there now.
    """

    def declare(method: F) -> F:
        method.__action__ = {  # type: ignore[attr-defined]
            "undo": undo,
            "runs_at": runs_at,
            "confirm": confirm,
            "deadline": seconds(deadline),
            "serialize_by": serialize_by,
            "idempotent": idempotent,
            "looks_first": looks_first,
        }
        return method

    return declare


class Service:
    """A kind of system we speak to. The subclass's docstring is its summary."""

    kind: ClassVar[str]
    Target: ClassVar[type[TargetSettings]]
    client: ClassVar[type[Client]]
    breaker: ClassVar[BreakerPolicy] = BreakerPolicy()
    port: ClassVar[int | None] = None
    witnesses: ClassVar[Witnesses | None] = None  # what tells a counter's wrap from a reset

    @classmethod
    def summary(cls) -> str:
        """First line of the docstring."""
        return inspect.getdoc(cls).splitlines()[0]  # type: ignore[union-attr]

    @classmethod
    def folder(cls) -> Path:
        """Where the service lives."""
        return Path(inspect.getfile(cls)).parent

    @classmethod
    @cache
    def polls(cls) -> dict[str, Poll]:
        """Its polls by name, in the order they are written."""
        found = {}
        for name, method in vars(cls).items():
            if declared := getattr(method, "__poll__", None):
                found[name] = Poll(name=name, summary=_first_line(method), run=getattr(cls(), name), **declared)
        return found

    @classmethod
    @cache
    def actions(cls) -> dict[str, Action]:
        """Its actions by name, in the order they are written."""
        found = {}
        for name, method in vars(cls).items():
            if declared := getattr(method, "__action__", None):
                arguments = _arguments_model(f"{cls.__name__}_{name}", method)
                lane = declared["serialize_by"]
                if lane is not None and lane not in arguments.model_fields:
                    raise ConfigError(f"{cls.kind} {name} is serialized by {lane!r}, which is no argument of it")
                found[name] = Action(
                    name=name,
                    previews="dry_run" in inspect.signature(method).parameters,
                    summary=_first_line(method),
                    arguments=arguments,
                    run=getattr(cls(), name),
                    **declared,
                )
        return found

    @classmethod
    @cache
    def metrics(cls) -> dict[str, Metric]:
        """The rows of its `metrics.csv` by name: the contract of what it emits."""
        with (cls.folder() / "metrics.csv").open(encoding="utf-8", newline="") as lines:
            rows = [Metric(**(row | {"labels": tuple(row["labels"].split())})) for row in csv.DictReader(lines)]
        return {row.name: row for row in rows}


def _first_line(method: Callable[..., Any]) -> str:
    return (inspect.getdoc(method) or method.__name__).splitlines()[0]


def _arguments_model(name: str, method: Callable[..., Any]) -> type[BaseModel]:
    parameters = list(inspect.signature(method, eval_str=True).parameters.values())[2:]  # without self and client
    if taken := {"target", "confirm"} & {p.name for p in parameters}:
        raise ConfigError(f"{name} must not have a parameter {taken.pop()!r}: the fleet has one of this name")
    fields: dict[str, Any] = {
        p.name: (p.annotation, ... if p.default is inspect.Parameter.empty else p.default)
        for p in parameters
        if p.name != "dry_run"  # the fleet's own
    }
    return create_model(name, __config__=ConfigDict(extra="forbid", hide_input_in_errors=True), **fields)


@cache
def services() -> dict[str, type[Service]]:
    """Every service by kind, sorted: the folders under `services/`, and those that other packages bring along.

    Another package names its classes as entry points of the group `nms_workers.services`.

    Raises:
        ConfigError: a folder under `services/` holds no `Service`, or two share a kind.
    """
    found: dict[str, type[Service]] = {}
    for where, one in (*_own_services(), *_foreign_services()):
        if one.kind in found:
            raise ConfigError(f"{where} brings a second service of the kind {one.kind!r}")
        found[one.kind] = one
    return dict(sorted(found.items()))


def _own_services() -> Iterator[tuple[str, type[Service]]]:
    package = importlib.import_module("nms_workers.services")
    for folder in pkgutil.iter_modules(package.__path__):
        name = f"{package.__name__}.{folder.name}.service"
        if find_spec(name) is None:
            continue  # parts of one that is not made yet
        module = importlib.import_module(name)
        classes = [c for c in vars(module).values() if inspect.isclass(c) and issubclass(c, Service)]
        own = [c for c in classes if c.__module__ == module.__name__]
        if len(own) != 1:
            raise ConfigError(f"{module.__name__} must hold exactly one service")
        yield module.__name__, own[0]


def _foreign_services() -> Iterator[tuple[str, type[Service]]]:
    for point in entry_points(group="nms_workers.services"):
        loaded = point.load()
        if not (inspect.isclass(loaded) and issubclass(loaded, Service)):
            raise ConfigError(f"the entry point {point.name} = {point.value} is no service")
        yield point.value, loaded


def service(kind: str) -> type[Service]:
    """The service of this kind.

    Raises:
        ConfigError: there is none; the message lists those there are.
    """
    try:
        return services()[kind]
    except KeyError:
        raise ConfigError(f"there is no service {kind!r}", hint="known: " + ", ".join(services())) from None
