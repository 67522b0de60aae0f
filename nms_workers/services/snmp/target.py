"""The settings of one SNMP agent."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, model_validator

from nms_workers.service import TargetSettings
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

Version = Literal["1", "2c", "3"]
AuthProtocol = Literal["md5", "sha1", "sha224", "sha256", "sha384", "sha512"]
PrivProtocol = Literal["des", "aes128", "aes192", "aes256"]


class SnmpTarget(TargetSettings):
    """One SNMP agent.

    Args:
        host: its address or name.
        version: `1`, `2c` (RFC 1901) or `3` (RFC 3411 to 3418).
        community: of versions 1 and 2c.
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
    """

    host: Host
    port: int = Field(161, ge=1, le=65_535)
    version: Version = "2c"
    community: Secret | None = None
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

    @model_validator(mode="after")
    def _fits_its_version(self) -> "SnmpTarget":
        if self.version != "3":
            if self.community is None:
                raise ValueError(f"version {self.version} needs a community")
            if self.username or self.auth_protocol or self.priv_protocol or self.context:
                raise ValueError("username, keys and context belong to version 3")
            return self
        if self.community is not None or self.username is None:
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
