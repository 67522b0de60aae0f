"""The settings of one SNMP agent."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, model_validator

from nms_workers.arguments import Address
from nms_workers.errors import ConfigError
from nms_workers.service import TargetSettings
from nms_workers.services.snmp.drivers import drivers
from nms_workers.services.snmp.oid import Oid
from nms_workers.transport.secret import Secret

_HOST = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,62}))*\.?\Z", re.ASCII
)


def _host(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        if not _HOST.match(text):
            raise ValueError("write an address or a host name, without a port") from None
        return text


Host = Annotated[str, AfterValidator(_host)]
UserName = Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,32}$")]  # RFC 3414: an SnmpAdminString of 1 to 32
ContextName = Annotated[str, Field(pattern=r"^[\x20-\x7e]{0,255}$")]


def _driver(name: str) -> str:
    if name not in drivers():
        raise ValueError(f"there is no driver {name[:40]!r}; there are {', '.join(drivers())}")
    return name


Driver = Annotated[str, AfterValidator(_driver)]
_COMMUNITY = re.compile(r"[\x20-\x7e]{1,255}\Z")

Version = Literal["1", "2c", "3"]
AuthProtocol = Literal["md5", "sha1", "sha224", "sha256", "sha384", "sha512"]
PrivProtocol = Literal["des", "aes128", "aes192", "aes256"]


class ConfigurationAccess(TargetSettings):
    """How the configuration of a device is read and put back: by SSH, with a driver of NAPALM or netmiko.

    Args:
        driver: a name of `drivers.toml`: those of NAPALM can put it back, those of netmiko read it.
        username, password, key_file: of the user; a key file is one of OpenSSH's.
        enable: of the privileged mode, where the device asks for it.
        port: of SSH.
        archive: a folder on the worker's host, where each version is kept whole, secrets included, for the fleet's own
            user only. Workers on several hosts share it, or the target names its `worker`.
        keep: how many versions are kept.
        known_hosts: the file with the device's host key; default: the user's own. `any_host_key`: it is not looked at.
        timeout: seconds to wait for the answer to one command.
        max_bytes: of a configuration.
    """

    driver: Driver
    username: Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,64}$")]
    password: Secret | None = None
    key_file: Path | None = None
    enable: Secret | None = None
    port: int = Field(22, ge=1, le=65_535)
    archive: Path
    keep: int = Field(100, ge=2, le=10_000)
    known_hosts: Path | None = None
    any_host_key: bool = False
    timeout: PositiveFloat = Field(60.0, le=600)
    max_bytes: PositiveInt = 4_000_000

    @model_validator(mode="after")
    def _can_log_in(self) -> "ConfigurationAccess":
        if self.password is None and self.key_file is None:
            raise ValueError("write password or key_file")
        return self


class Discovery(TargetSettings):
    """Which networks may be swept for agents by the action `discover` of a target.

    Args:
        networks: those, and no others; public ones are not swept unless they stand here.
        credentials: a TOML file of credentials that are tried after the target's own.
        rate: requests a second.
        max_addresses: of one sweep.
        approve: beginnings of sysObjectID: such devices become targets without a person.
    """

    networks: Annotated[tuple[Address, ...], Field(min_length=1, max_length=1000)]
    credentials: Path | None = None
    rate: PositiveFloat = Field(100.0, le=10_000)
    max_addresses: int = Field(4096, ge=1, le=65_536)
    approve: Annotated[tuple[Oid, ...], Field(max_length=1000)] = ()


class SnmpTarget(TargetSettings):
    """One SNMP agent.

    Args:
        host: its address or name.
        version: `1`, `2c` (RFC 1901) or `3` (RFC 3411 to 3418).
        community: of versions 1 and 2c.
        write_community: of versions 1 and 2c, for changes; default: `community`.
        username: of version 3; with no more it is noAuthNoPriv.
        auth_protocol, auth_key: authentication of version 3 (RFC 3414, RFC 7860); the key is a pass phrase of 8
            characters or more.
        priv_protocol, priv_key: encryption of version 3 (RFC 3414, RFC 3826); it needs authentication.
        key_expansion: how a key too short for AES-192 or AES-256 is made longer: `cisco` (Reeder), or `blumenthal`.
        context: a context name of version 3. Such an agent is asked by a slower library.
        timeout: seconds to wait for one answer; `retries`: how often one request is sent again.
        max_repetitions: rows asked for at once at most. It is lowered for agents that cannot, and raised again.
        max_varbinds: what one poll may read of one agent.
        profiles: profiles of your own, files in the format of ours.
        mibs: folders of MIB files, each named as its module. They give names to objects, in profiles of your own too.
        max_learned: MAC addresses that one agent may tell that its ports have learned, and its ARP table as many.
        static_every: seconds after which names and descriptions are read again even when the agent says nothing of a
            change.
        configuration: how its running configuration is read by SSH; none: it is not. A table with `driver`, `username`,
            `password` or `key_file`, `archive` (where versions are kept whole), and if need be `enable`, `port`,
            `keep`, `known_hosts`, `any_host_key`, `timeout`, `max_bytes`.
        discovery: what the action `discover` may sweep from it. A table with `networks`, and if need be `credentials`
            (a TOML file), `rate`, `max_addresses`, and `approve`: sysObjectIDs of devices that need no person.
        writable: objects that `set_value` may set, each with all below it. None by default.
    """

    host: Host
    port: int = Field(161, ge=1, le=65_535)
    version: Version = "2c"
    community: Secret | None = None
    write_community: Secret | None = None
    username: UserName | None = None
    auth_protocol: AuthProtocol | None = None
    auth_key: Secret | None = None
    priv_protocol: PrivProtocol | None = None
    priv_key: Secret | None = None
    key_expansion: Literal["cisco", "blumenthal"] = "cisco"
    context: ContextName = ""
    timeout: PositiveFloat = Field(2.0, le=60)
    retries: int = Field(2, ge=0, le=10)
    max_repetitions: int = Field(50, ge=1, le=500)
    max_varbinds: PositiveInt = 200_000
    profiles: tuple[Path, ...] = ()
    mibs: tuple[Path, ...] = ()
    max_learned: PositiveInt = Field(4000, le=4000)
    static_every: PositiveFloat = 3600.0
    configuration: ConfigurationAccess | None = None
    discovery: Discovery | None = None
    writable: Annotated[tuple[Oid, ...], Field(max_length=1000)] = ()

    @model_validator(mode="after")
    def _fits_its_version(self) -> "SnmpTarget":
        if self.version != "3":
            if self.community is None:
                raise ValueError(f"version {self.version} needs a community")
            if self.username or self.auth_protocol or self.priv_protocol or self.context:
                raise ValueError("username, keys and context belong to version 3")
            return self
        if self.community is not None or self.write_community is not None or self.username is None:
            raise ValueError("version 3 needs a username, and takes no community")
        if (self.auth_protocol is None) != (self.auth_key is None):
            raise ValueError("auth_protocol and auth_key belong together")
        if (self.priv_protocol is None) != (self.priv_key is None):
            raise ValueError("priv_protocol and priv_key belong together")
        if self.priv_protocol and not self.auth_protocol:
            raise ValueError("encryption needs authentication: set auth_protocol and auth_key")
        return self

    @property
    def address(self) -> str:
        """For messages."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def community_text(self, *, write: bool = False) -> str:
        """The community of versions 1 and 2c; empty in version 3.

        Raises:
            ConfigError: it cannot be read, or is no text that a community can be.
        """
        secret = (self.write_community if write else None) or self.community
        if secret is None:
            return ""
        text = secret.reveal()
        if not _COMMUNITY.match(text):
            hint = "a community is 1 to 255 printable ASCII characters"
            raise ConfigError(f"what {secret} holds cannot be a community", hint=hint)
        return text
