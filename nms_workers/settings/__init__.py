"""Settings: `nms.toml` plus environment, checked with the line and the reason, secrets only by reference.

Environment variables override the file: `NMS_` + section + `__` + key, `NMS_WORKERS__POLL_THREADS=50`.
The URLs of PostgreSQL, Redis and the broker are secrets, since they may hold a password.
"""

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from nms_workers.errors import ConfigError
from nms_workers.service import TargetSettings, service, services
from nms_workers.settings.fleet import Broker, Database, Redis, Retention, Spool, Web, Workers
from nms_workers.settings.guards import Guards, Limit, Window, matches
from nms_workers.settings.health import Checks, Discovery, DockerDiscovery, Health, Repair, picks
from nms_workers.settings.listeners import Flows, LogFiles, Logs, Traps, TrapUser
from nms_workers.settings.section import Duration, Interval, Name
from nms_workers.transport.secret import Secret

__all__ = [
    "WRITTEN_BY_UP",
    "Broker",
    "Checks",
    "Database",
    "Discovery",
    "DockerDiscovery",
    "Duration",
    "Flows",
    "Guards",
    "Health",
    "Limit",
    "LogFiles",
    "Logs",
    "Name",
    "Redis",
    "Repair",
    "Retention",
    "Settings",
    "Spool",
    "TargetConfig",
    "TrapUser",
    "Traps",
    "Web",
    "Window",
    "Workers",
    "config_path",
    "data_home",
    "matches",
    "picks",
]


class TargetConfig(BaseModel):
    """One target. The keys below are the fleet's; every other key is a setting of the target's service."""

    model_config = ConfigDict(extra="allow", frozen=True, hide_input_in_errors=True)

    service: str
    name: Name
    every: dict[str, Interval] = {}
    skip: list[str] = []
    paused: bool = False
    max_series: int = Field(default=10_000, ge=1)
    worker: Name | None = None
    health: Checks | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """The service's own settings, as written."""
        return dict(self.__pydantic_extra__ or {})

    def validated(self) -> TargetSettings:
        """The service's own settings, checked."""
        return service(self.service).Target.model_validate(self.settings)


WRITTEN_BY_UP = "up.toml"


def data_home() -> Path:
    """`$XDG_DATA_HOME/nms-workers`."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "nms-workers"


class Settings(BaseSettings):
    """Everything that can be set. `Settings.load` reads it."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix="NMS_", env_nested_delimiter="__", extra="forbid", frozen=True, hide_input_in_errors=True
    )

    data: Path = Field(default_factory=data_home)
    database: Database = Database()
    redis: Redis = Redis()
    broker: Broker = Broker()
    workers: Workers = Workers()
    retention: Retention = Retention()
    spool: Spool = Spool()
    web: Web = Web()
    guards: Guards = Guards()
    traps: Traps = Traps()
    flows: Flows = Flows()
    discovery: Discovery = Discovery()
    health: Health = Health()
    logs: Logs = Logs()
    every: dict[str, Interval] = {}
    targets: list[TargetConfig] = []

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment comes before the file."""
        return env_settings, init_settings

    @property
    def spool_folder(self) -> Path:
        """Where finished polls wait for PostgreSQL."""
        return self.spool.folder or self.data / "spool"

    def database_url(self) -> str:
        """PostgreSQL's URL, password included."""
        return self._url(self.database.url, "NMS_DATABASE_URL", "postgres")

    def redis_url(self) -> str:
        """Redis' URL, password included."""
        return self._url(self.redis.url, "NMS_REDIS_URL", "redis")

    def broker_url(self) -> str:
        """The broker's URL, password included."""
        return self.broker.url.reveal() if self.broker.url else self.redis_url()

    def _url(self, named: Secret | None, variable: str, embedded: str) -> str:
        if named:
            return named.reveal()
        if variable in os.environ:
            return os.environ[variable]
        try:
            return Secret(f"file:{self.data / embedded / 'url'}").reveal()
        except ConfigError:
            raise ConfigError(
                f"where is {embedded}? {variable} is not set and `nms-workers up` never ran with {self.data}",
                hint=f"start `nms-workers up`, or set {variable}",
            ) from None

    @classmethod
    def load(cls, path: Path | None) -> "Settings":
        """Read and check the settings.

        Args:
            path: the TOML file; None: built-in defaults and environment only.

        Raises:
            ConfigError: every fault with its line and the reason, without values that might be secrets.
        """
        text = ""
        if path is not None:
            try:
                text = path.read_text(encoding="utf-8")
                values = tomllib.loads(text)
            except (OSError, UnicodeDecodeError) as exc:
                raise ConfigError(f"{path} cannot be read: {getattr(exc, 'strerror', exc)}") from None
            except tomllib.TOMLDecodeError as exc:
                raise ConfigError(f"{path} is not TOML: {exc}") from None
        else:
            values = {}
        lines = _lines(text)
        private = [((key,), "there is no such setting") for key in values if key.startswith("_")]
        if private:  # to pydantic-settings these are options of its own
            raise ConfigError(_faults(path, lines, private))
        try:
            settings = cls(**values)
        except ValidationError as exc:
            raise ConfigError(_faults(path, lines, _errors(exc))) from None
        except SettingsError as exc:
            hint = "a whole section is JSON; one key is NMS_<SECTION>__<KEY>"
            raise ConfigError(f"environment: {exc}", hint=hint) from None
        checks = (
            _target_faults(settings),
            _guard_faults(settings.guards),
            _found_faults(settings),
            _log_faults(settings),
        )
        if faults := [*chain.from_iterable(checks)]:
            raise ConfigError(_faults(path, lines, faults))
        return settings


def config_path() -> Path | None:
    """The settings file in force; None: there is none.

    `$NMS_CONFIG`, else `nms.toml` here, else in `$XDG_CONFIG_HOME/nms-workers`, else what `nms-workers up` wrote.
    """
    if named := os.environ.get("NMS_CONFIG"):
        return Path(named)
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "nms-workers" / "nms.toml"
    data = Path(os.environ.get("NMS_DATA") or data_home())
    return next((path for path in (Path("nms.toml"), home, data / WRITTEN_BY_UP) if path.is_file()), None)


Fault = tuple[tuple[str | int, ...], str]


def _errors(exc: ValidationError) -> list[Fault]:
    return [(error["loc"], error["msg"].removeprefix("Value error, ")) for error in exc.errors(include_input=False)]


def _target_faults(settings: Settings) -> Iterable[Fault]:
    """What is wrong with targets and intervals that only their services can tell."""
    known = {f"{kind}.{name}" for kind, one in services().items() for name in one.polls()}
    for poll in settings.every.keys() - known:
        yield ("every", poll), f"there is no poll {poll!r}; known: {', '.join(sorted(known))}"
    seen = set()
    for index, target in enumerate(settings.targets):
        here: tuple[str | int, ...] = ("targets", index)
        if (target.service, target.name) in seen:
            yield (*here, "name"), f"two {target.service} targets are named {target.name!r}"
        seen.add((target.service, target.name))
        if r"\u0000" in target.model_dump_json():  # PostgreSQL has no place for it
            yield here, "a setting holds the character NUL"
        try:
            polls = service(target.service).polls()
        except ConfigError as exc:
            yield (*here, "service"), str(exc)
            continue
        for key, names in (("every", target.every), ("skip", target.skip)):
            for poll in set(names) - polls.keys():
                yield (*here, key), f"{target.service} has no poll {poll!r}; it has {', '.join(polls)}"
        try:
            target.validated()
        except ValidationError as exc:
            yield from (((*here, *where), why) for where, why in _errors(exc))


def _found_faults(settings: Settings) -> Iterable[Fault]:
    """Names of kinds and engines that there are not."""
    for kind in settings.health.checks.keys() - services().keys():
        yield ("health", "checks", kind), f"there is no service {kind!r}; known: {', '.join(services())}"
    engines = {target.name for target in settings.targets if target.service == "docker"}
    if settings.discovery.docker is not None:
        for name in set(settings.discovery.docker.engines) - engines:
            yield ("discovery", "docker", "engines"), f"no docker target is named {name!r}"


def _guard_faults(guards: Guards) -> Iterable[Fault]:
    """Patterns that name no action: a slip of the pen in `deny` would protect nothing."""
    known = [f"{kind}.{name}" for kind, one in services().items() for name in one.actions()]
    places: list[tuple[tuple[str | int, ...], tuple[str, ...]]] = [
        (("allow",), guards.allow),
        (("deny",), guards.deny),
        *((("limits", number, "actions"), one.actions) for number, one in enumerate(guards.limits)),
        *((("windows", number, "actions"), one.actions) for number, one in enumerate(guards.windows)),
    ]
    for where, patterns in places:
        for pattern in patterns:
            action = pattern.partition("@")[0]
            if action != "*" and not any(matches((action,), one) for one in known):
                yield ("guards", *where), f"no action is named {pattern!r}; `nms-workers services` lists them"


def _log_faults(settings: Settings) -> Iterable[Fault]:
    """Targets that the section `logs` names and that are not there."""
    known = {(target.service, target.name) for target in settings.targets}
    named = [("docker", name) for name in settings.logs.docker]
    named += [("elasticsearch", settings.logs.elasticsearch)] if settings.logs.elasticsearch else []
    for kind, name in named:
        if (kind, name) not in known:
            yield ("logs", kind), f"there is no target of the service {kind} with the name {name!r}"


def _faults(path: Path | None, lines: Mapping[tuple[str | int, ...], int], faults: Iterable[Fault]) -> str:
    told = []
    environment = {name.upper() for name in os.environ}
    for where, why in faults:
        paths = [where[:end] for end in range(len(where), 0, -1)]
        line = next((lines[one] for one in paths if one in lines), None)
        variables = ("NMS_" + "__".join(map(str, one)).upper() for one in paths)
        source = next((name for name in variables if name in environment), None)  # it comes before the file
        source = source or (f"{path}:{line}" if line else str(path) if path else "environment")
        told.append((line or 0, f"{source}: {'.'.join(str(part) for part in where)}: {why}"))
    return "\n".join(text for _, text in sorted(told))


_HEADER = re.compile(r"\s*(\[\[?)\s*([^\]]+?)\s*\]")


_KEY = re.compile(r"\s*([A-Za-z0-9_\"'.-]+)\s*=")


def _lines(text: str) -> dict[tuple[str | int, ...], int]:
    """The line of every table and key, by its path as pydantic names it. tomllib does not keep positions."""
    found: dict[tuple[str | int, ...], int] = {}
    counts: dict[str, int] = {}
    table: tuple[str | int, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            name = header[2].replace('"', "").replace("'", "")
            table = tuple(name.split("."))
            if header[1] == "[[":
                counts[name] = counts.get(name, -1) + 1
                table = (*table, counts[name])
            elif table[0] in counts:  # a sub-table of the last element of an array
                table = (table[0], counts[str(table[0])], *table[1:])
            found.setdefault(table, number)
        elif key := _KEY.match(line):
            parts = key[1].replace('"', "").replace("'", "").split(".")
            found.setdefault((*table, *parts), number)
            found.setdefault((*table, key[1].strip("\"'")), number)
    return found
