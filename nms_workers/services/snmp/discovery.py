"""Which addresses of a network are SNMP agents that our credentials open, and which of them are one device."""

import re
import time
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Any

import msgspec
from pydantic import ValidationError

from nms_workers.change import Proposal
from nms_workers.errors import ConfigError, Refused, TargetError, Timeout, Unreachable
from nms_workers.services.snmp.fast import FastSession, Learned
from nms_workers.services.snmp.lines import written
from nms_workers.services.snmp.oid import Value
from nms_workers.services.snmp.target import SnmpTarget
from nms_workers.transport.deadline import remaining, time_left
from nms_workers.transport.sweep import OutOfTime, Pace, answers

MAX_ADDRESSES = 65_536
_MAX_CREDENTIALS = 20
_PATIENCE = {"timeout": 1.0, "retries": 1}  # of an address that may be nobody's, unless a credential says otherwise
_OWN = ("host", "writable", "configuration", "discovery", "profiles")  # settings of one device, not of how it is asked
_SAME_BOOT = 5.0  # seconds by which two answers about when a device came up may differ

_DESCRIPTION, _OBJECT_ID, _UPTIME, _NAME = (f"1.3.6.1.2.1.1.{n}.0" for n in (1, 2, 3, 5))
_ENGINE_ID = "1.3.6.1.6.3.10.2.1.1.0"  # snmpEngineID (RFC 3411)

Network = IPv4Network | IPv6Network


@dataclass(frozen=True)
class Credential:
    """Settings that any agent may be asked with: version, community or user, port, patience. Secrets by reference."""

    name: str
    settings: Mapping[str, Any]

    def target(self, address: str) -> SnmpTarget:
        """The settings of an agent at this address.

        Raises:
            ConfigError: they are none.
        """
        try:
            return SnmpTarget.model_validate({**self.settings, "host": address})
        except ValidationError as exc:
            faults = "; ".join(f"{'.'.join(map(str, e['loc']))} {e['msg']}" for e in exc.errors(include_input=False))
            raise ConfigError(f"the credential {self.name} cannot be used: {faults.strip()}") from None

    @classmethod
    def of(cls, name: str, target: SnmpTarget) -> "Credential":
        """How this target is asked."""
        settings = target.model_dump(mode="json", exclude_unset=True)
        return cls(name, {key: value for key, value in settings.items() if key not in _OWN})


@dataclass(frozen=True)
class Device:
    """An agent that answered. `boot`: when it came up, seconds of the monotonic clock."""

    addresses: tuple[str, ...]
    credential: Credential
    name: str
    object_id: str
    description: str
    engine_id: str
    boot: float

    def is_one_with(self, other: "Device") -> bool:
        """Whether both are one device: by engine id, or where there is none by the moment it came up."""
        if (self.name, self.object_id, self.engine_id) != (other.name, other.object_id, other.engine_id):
            return False
        return bool(self.engine_id) or abs(self.boot - other.boot) <= _SAME_BOOT

    def proposal(self, *, approved: bool) -> Proposal:
        """The target that it would be."""
        settings = self.credential.target(self.addresses[0]).model_dump(mode="json", exclude_unset=True)
        about = {"name": self.name, "object_id": self.object_id, "description": self.description[:200]}
        return Proposal(
            name=re.sub(r"[^A-Za-z0-9_.-]+", "-", self.name)[:80].lstrip("_.-") or f"snmp-{self.addresses[0]}",
            settings=settings,
            addresses=self.addresses,
            identity=self.engine_id,
            approved=approved,
            about=about | {"credential": self.credential.name},
        )


@dataclass(frozen=True)
class Sweep:
    """What a sweep found. `asked` of `addresses` were asked: fewer when the time was used up."""

    devices: tuple[Device, ...]
    asked: int
    addresses: int

    def __str__(self) -> str:
        short = "" if self.asked == self.addresses else ", then the time was used up"
        return f"{len(self.devices)} devices at {self.asked} of {self.addresses} addresses{short}"


def credentials(path: Path) -> tuple[Credential, ...]:
    """Credentials from a TOML file, in the order they are tried.

    Each is a table `[[credentials]]` with `name` and settings of an SNMP target, secrets as references.

    Raises:
        ConfigError: it cannot be read, or holds something else.
    """

    class File(msgspec.Struct, forbid_unknown_fields=True):
        credentials: list[dict[str, Any]]

    try:
        rows = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), File).credentials
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise ConfigError(f"the credentials {path} cannot be read: {getattr(exc, 'strerror', '') or exc}") from None
    except msgspec.ValidationError as exc:
        raise ConfigError(f"{path} holds no credentials: {exc}", hint="write tables [[credentials]]") from None
    made = [Credential(str(row.pop("name", number)), row) for number, row in enumerate(rows, start=1)]
    for one in made:
        if taken := set(one.settings) & set(_OWN):
            raise ConfigError(f"the credential {one.name} in {path} has {taken.pop()!r}, which belongs to one device")
        one.target("192.0.2.1")
    return tuple(made)


def addresses_of(networks: Sequence[Network], most: int) -> list[str]:
    """Each address of these networks once.

    Raises:
        Refused: there are more than `most`.
    """
    if sum(one.num_addresses for one in networks) > most:
        raise Refused(f"these networks have more than {most} addresses", hint="name smaller ones, or raise the limit")
    return list(dict.fromkeys(str(address) for one in networks for address in one.hosts()))


def sweep(
    addresses: Sequence[str],
    tried: Sequence[Credential],
    rate: float,
    progress: Callable[[int, int], None] = lambda asked, found: None,
) -> Sweep:
    """Ask each address with each credential, until one opens it.

    Args:
        rate: requests a second, over all addresses.
        progress: is told how many addresses were asked, and how many answered.

    Raises:
        ConfigError: there is no credential, or one that cannot be used.
    """
    if not 0 < len(tried) <= _MAX_CREDENTIALS:
        raise ConfigError(f"{len(tried)} credentials: a sweep tries 1 to {_MAX_CREDENTIALS}", hint="name them")
    for one in tried:
        _reveal(one.target("192.0.2.1"))
    pace = Pace(rate)
    found: list[Device] = []
    asked = 0
    for device in answers(addresses, lambda address: _ask(address, tried, pace)):
        asked += 1
        found += [device] if device else []
        progress(asked, len(found))
    order = {address: place for place, address in enumerate(addresses)}
    found.sort(key=lambda device: order[device.addresses[0]])
    return Sweep(tuple(_merged(found)), asked, len(addresses))


def _ask(address: str, tried: Sequence[Credential], pace: Pace) -> Device | None:
    for credential in tried:
        target = credential.target(address)
        target = target.model_copy(update={k: v for k, v in _PATIENCE.items() if k not in credential.settings})
        for _ in range(target.retries + 1):
            pace()
            try:
                return _device(address, credential, target.model_copy(update={"retries": 0}))
            except Unreachable:
                return None  # nothing listens there
            except Timeout:
                if time_left() <= 0:
                    raise OutOfTime from None
            except TargetError:
                break  # it does not take this credential, or is no agent
    return None


def _device(address: str, credential: Credential, target: SnmpTarget) -> Device:
    learned = Learned(1)
    session = FastSession(target, learned)
    told = session.get_many([_DESCRIPTION, _OBJECT_ID, _UPTIME, _NAME])
    uptime = told.get(_UPTIME)
    return Device(
        addresses=(address,),
        credential=credential,
        name=_text(told.get(_NAME)),
        object_id=_text(told.get(_OBJECT_ID)),
        description=_text(told.get(_DESCRIPTION)),
        engine_id=learned.engine_id.hex() if learned.engine_id else _engine_id(session),
        boot=time.monotonic() - (uptime / 100 if isinstance(uptime, int) else 0),
    )


def _engine_id(session: FastSession) -> str:
    """It is not everywhere, and not everybody may see it."""
    try:
        found = session.get_many([_ENGINE_ID]).get(_ENGINE_ID)
    except TargetError:
        return ""
    return found.hex() if isinstance(found, bytes) else ""


def _text(value: Value) -> str:
    return str(written(value, "text"))


def _merged(devices: Iterable[Device]) -> list[Device]:
    """Each device once, with all its addresses, the lowest first."""
    merged: list[Device] = []
    for one in devices:
        for place, known in enumerate(merged):
            if known.is_one_with(one):
                both = sorted({*known.addresses, *one.addresses}, key=lambda text: (":" in text, int(ip_address(text))))
                fields = vars(known) | {"addresses": tuple(both)}
                merged[place] = Device(**fields)
                break
        else:
            merged.append(one)
    return merged


def _reveal(target: SnmpTarget) -> None:
    """Whether its secrets can be read: told once, before an address is asked.

    Raises:
        ConfigError: one cannot.
    """
    target.community_text()
    for key in (target.auth_key, target.priv_key):
        if key is not None:
            key.reveal()


def discover(target: SnmpTarget, networks: Sequence[Network]) -> tuple[Sweep, list[Proposal]]:
    """Sweep networks as the settings of a target allow it, and propose what answers.

    Args:
        networks: inside those of the settings; none: all of them.

    Raises:
        Refused: a network is not named in the settings.
        ConfigError: they say nothing of discovery.
    """
    if (rules := target.discovery) is None:
        hint = "write `networks` under `discovery` of the target"
        raise ConfigError(f"nothing says which networks may be swept from {target.host}", hint=hint)
    for network in networks:
        if not any(within(network, allowed) for allowed in rules.networks):
            hint = "add it to discovery.networks of the target"
            raise Refused(f"{network} is not among the networks that may be swept", hint=hint)
    tried = [Credential.of("the target's own", target), *(credentials(rules.credentials) if rules.credentials else ())]
    addresses = addresses_of(networks or rules.networks, rules.max_addresses)
    remaining(1.0)
    swept = sweep(addresses, tried, rules.rate)
    approved = tuple(f"{one}." for one in rules.approve)
    return swept, [one.proposal(approved=f"{one.object_id}.".startswith(approved)) for one in swept.devices]


def within(network: Network, allowed: Network) -> bool:
    """Whether all of a network is in another."""
    if isinstance(network, IPv4Network):
        return isinstance(allowed, IPv4Network) and network.subnet_of(allowed)
    return isinstance(allowed, IPv6Network) and network.subnet_of(allowed)
