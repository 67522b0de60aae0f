"""What a container says about itself by its labels: which target it is, or why it cannot be one.

`nms.service`: "true" where it is a target. `nms.service.type`: the kind of service, `redis`. `nms.service.name`: of the
target; default: the container's own name. `nms.service.port`: in the container; default: the usual one of the kind.
`nms.service.scheme`, `nms.service.path`: `https` and `/stats`, where it is spoken to over HTTP.

`nms.target.KEY`, or `nms.service.target.KEY`: a setting of its service; secrets by reference. Dots lead into tables,
and a value that begins with [ or { is JSON.

`nms.health.CHECK`: `poll`, `tcp`, `http`, `docker`, as in the settings. `nms.restart`: "true" where it may be restarted
when it is not healthy. `nms.depends_on`: names of targets that must be healthy before it is, by commas.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import ip_address
from typing import Any

import msgspec
from pydantic import BaseModel, TypeAdapter, ValidationError

from nms_workers.errors import ConfigError
from nms_workers.service import service
from nms_workers.settings import Checks, DockerDiscovery, Name
from nms_workers.transport.http_settings import HttpSettings

SELECTOR = "nms.service=true"  # the filter that the engine is given

_SETTING = re.compile(r"nms\.(?:service\.)?target\.([A-Za-z][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+){0,5})\Z", re.ASCII)
_SERVICE = frozenset(f"nms.service.{name}" for name in ("name", "type", "port", "scheme", "path"))
_CHECKS = frozenset(f"nms.health.{name}" for name in ("poll", "tcp", "http", "docker"))  # no commands: they run here
_ADDRESS = frozenset({"host", "port", "url", "urls"})
_PATH = re.compile(r"(/[A-Za-z0-9_.~-]+)*\Z", re.ASCII)
_PORT = re.compile(r"[1-9][0-9]{0,4}\Z", re.ASCII)
_LONGEST, _MOST = 4096, 200  # characters of a label, labels of ours
_EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104 - what a published port is bound to


class _Port(msgspec.Struct, rename="pascal"):
    private_port: int
    public_port: int = 0
    ip: str = msgspec.field(default="", name="IP")


class _Network(msgspec.Struct, rename="pascal"):
    ip_address: str = msgspec.field(default="", name="IPAddress")
    global_ipv6_address: str = msgspec.field(default="", name="GlobalIPv6Address")


class _Networks(msgspec.Struct, rename="pascal"):
    networks: dict[str, _Network] | None = None


class Container(msgspec.Struct, rename="pascal"):
    """One of the engine's list of containers (https://docs.docker.com/reference/api/engine/, ContainerList)."""

    id: str
    names: list[str]
    image: str = ""
    labels: dict[str, str] | None = None
    ports: list[_Port] | None = None
    network_settings: _Networks = msgspec.field(default_factory=_Networks)

    @property
    def name(self) -> str:
        """As people know it. A link gives it a second one, with a slash in it."""
        names = [name.removeprefix("/") for name in self.names]
        return next((name for name in names if "/" not in name), self.id[:12])


@dataclass(frozen=True)
class Found:
    """The target that a container is. `settings` are those of its service, as JSON; secrets are references."""

    kind: str
    name: str
    settings: dict[str, Any]
    container: str
    id: str
    image: str
    address: str
    restart: bool = False
    depends_on: tuple[str, ...] = ()
    checks: dict[str, Any] | None = None

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


def claimed(container: Container) -> tuple[str, str]:
    """The kind and the name that a container's labels claim, whether or not they are good."""
    labels = container.labels or {}
    return labels.get("nms.service.type", "").strip(), labels.get("nms.service.name", container.name).strip()


def found(container: Container, rules: DockerDiscovery, engine_host: str) -> Found:
    """The target that a container's labels describe.

    Args:
        engine_host: where ports are that are published on every address.

    Raises:
        ConfigError: they describe none; the message names the label, and never holds its value where that may be a
            secret.
    """
    labels = _ours(container.labels or {})
    kind = labels.get("nms.service.type", "")
    if not kind:
        raise ConfigError("the label nms.service.type is missing", hint="it names the kind of service: redis, grafana")
    of = service(kind)
    name = _fits(Name, labels.get("nms.service.name", container.name), "nms.service.name")
    over_http = issubclass(of.Target, HttpSettings)
    if not over_http and not {"host", "port"} <= of.Target.model_fields.keys():
        raise ConfigError(
            f"{kind} is not spoken to at a port, so a label alone makes no target of it",
            hint=f"add it to the settings as a target of {kind} that is called {name}",
        )
    host, port = _place(container, rules, engine_host, _port(labels, of.port))
    settings = _settings(labels)
    if taken := sorted(_ADDRESS & settings.keys()):
        raise ConfigError(f"the label nms.target.{taken[0]} is not taken: where it is follows from the container")
    settings |= {"url": _url(labels, host, port)} if over_http else {"host": host, "port": port}
    return Found(
        kind=kind,
        name=name,
        settings=_validated(of.Target, settings, "nms.target"),
        container=container.name,
        id=container.id,
        image=container.image,
        address=host,
        restart=_yes(labels, "nms.restart"),
        depends_on=tuple(_depends_on(labels.get("nms.depends_on", ""))),
        checks=_checks(labels),
    )


def _ours(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels that are for us.

    Raises:
        ConfigError: they are too many, too long, hold what no setting may hold, or one is misspelt.
    """
    ours = {key: value.strip() for key, value in labels.items() if key.startswith("nms.")}
    if len(ours) > _MOST:
        raise ConfigError(f"it has {len(ours)} labels that begin with nms., more than {_MOST}")
    for key, value in ours.items():
        if len(value) > _LONGEST or any(ord(character) < 32 for character in value):
            raise ConfigError(f"the label {key[:200]} is longer than {_LONGEST}, or holds a control character")
        known = key in _SERVICE or key in _CHECKS or _SETTING.match(key)
        if key.startswith(("nms.service.", "nms.target.", "nms.health.")) and not known:
            raise ConfigError(
                f"there is no label {key[:200]}", hint=", ".join(sorted(_SERVICE | _CHECKS)) + ", nms.target.KEY"
            )
    return ours


def _settings(labels: Mapping[str, str]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for label, value in sorted(labels.items()):
        if not (match := _SETTING.match(label)):
            continue
        *tables, key = match[1].split(".")
        place = tree
        for table in tables:
            place = place.setdefault(table, {})
            if not isinstance(place, dict):
                raise ConfigError(f"the label {label} leads into {table}, which another label sets")
        if key in place:
            raise ConfigError(f"the label {label} sets what another label sets")
        place[key] = _value(label, value)
    return tree


def _value(label: str, text: str) -> object:
    if text[:1] not in ("[", "{"):
        return text
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as exc:
        raise ConfigError(f"the label {label} begins as JSON, and is none: {exc}") from None


def _validated(model: type[BaseModel], values: Mapping[str, Any], label: str) -> dict[str, Any]:
    """Checked, and as they are stored."""
    try:
        return model.model_validate(values).model_dump(mode="json", exclude_unset=True)
    except ValidationError as exc:
        told = []
        for error in exc.errors(include_input=False):
            where = ".".join((label, *map(str, error["loc"])))
            told.append(f"{where}: {error['msg'].removeprefix('Value error, ')}")
        raise ConfigError("; ".join(told[:10])) from None


def _fits(kind: Any, value: str, label: str) -> Any:
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as exc:
        raise ConfigError(f"the label {label}: {exc.errors(include_input=False)[0]['msg']}") from None


def _yes(labels: Mapping[str, str], label: str) -> bool:
    return bool(_fits(bool, labels.get(label, "false"), label))


def _depends_on(text: str) -> Iterator[str]:
    for name in text.split(",")[:100]:
        if name.strip():
            yield _fits(Name, name.strip(), "nms.depends_on")


def _checks(labels: Mapping[str, str]) -> dict[str, Any] | None:
    told: dict[str, Any] = {key.removeprefix("nms.health."): labels[key] for key in _CHECKS & labels.keys()}
    if _PORT.match(str(told.get("tcp", ""))):
        told["tcp"] = int(told["tcp"])
    return _validated(Checks, told, "nms.health") if told else None


def _port(labels: Mapping[str, str], usual: int | None) -> int:
    text = labels.get("nms.service.port", str(usual or ""))
    if not text:
        raise ConfigError("the label nms.service.port is missing")
    if not _PORT.match(text) or int(text) > 65_535:
        raise ConfigError("the label nms.service.port is not a port, 1 to 65535")
    return int(text)


def _url(labels: Mapping[str, str], host: str, port: int) -> str:
    scheme, path = labels.get("nms.service.scheme", "http"), labels.get("nms.service.path", "").rstrip("/")
    if scheme not in ("http", "https"):
        raise ConfigError("the label nms.service.scheme is neither http nor https")
    if not _PATH.match(path):
        raise ConfigError("the label nms.service.path is no path: write /stats")
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{path}"


def _place(container: Container, rules: DockerDiscovery, engine_host: str, port: int) -> tuple[str, int]:
    """Where it is reached."""
    if rules.address == "published":
        for one in container.ports or ():
            if one.private_port == port and one.public_port:
                return (rules.published_at or engine_host if one.ip in _EVERYWHERE else one.ip), one.public_port
        raise ConfigError(f"its port {port} is not published", hint="publish it, or set discovery.docker.address")
    networks = container.network_settings.networks or {}
    if "host" in networks:
        return rules.published_at or engine_host, port
    for pattern in rules.networks or ("*",):
        for name, network in sorted(networks.items()):
            address = network.ip_address or network.global_ipv6_address
            if address and fnmatchcase(name, pattern):
                return str(ip_address(address)), port
    wanted, there = " or ".join(rules.networks) or "any network", ", ".join(sorted(networks)[:20])
    raise ConfigError(f"it has no address in {wanted}", hint=f"it is in: {there or 'none'}")
