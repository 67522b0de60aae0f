"""The settings of one Docker engine, and what its objects may be called."""

import re
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, Field, PositiveFloat, PositiveInt, field_validator, model_validator

from nms_workers.service import TargetSettings
from nms_workers.transport.secret import Secret
from nms_workers.transport.tls import TlsSettings

# A name or an id: what the engine allows, and nothing that would lead to another path of its API.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,254}$")]
Image = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/@-]{0,511}$")]

_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,254}", re.ASCII)
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}", re.ASCII)


class Registry(BaseModel):
    """Who we are at a registry of images."""

    model_config = TargetSettings.model_config

    username: str
    password: Secret


class Backups(BaseModel):
    """Where backups of volumes go, and how they are kept.

    Args:
        folder: on the worker's host; each volume gets a folder of its own in it.
        image: what the container is made of that the engine reads the volume through. It is never started, so any image
            will do; it must be there.
        keep: backups of one volume that are kept.
        recipient, identity: an X25519 key pair of age (https://age-encryption.org/v1): with `recipient` (`age1...`)
            backups are encrypted, and `identity` (`AGE-SECRET-KEY-1...`) opens them again.
        max_bytes: of one volume, packed as tar; a bigger one is refused.
    """

    model_config = TargetSettings.model_config

    folder: Path
    image: Image
    keep: PositiveInt = 7
    recipient: Annotated[str, Field(pattern=r"^age1[a-z0-9]{50,100}$")] | None = None
    identity: Secret | None = None
    max_bytes: PositiveInt = 1 << 40


class DockerTarget(TargetSettings):
    """One Docker engine, or another one that speaks its API (Podman's socket).

    Args:
        url: `unix:///run/docker.sock`, `tcp://host:2376`, or `ssh://[user@]host[:port]`, which runs the system's `ssh`
            and there `docker system dial-stdio`. Podman: `unix:///run/podman/podman.sock`.
        tls: of `tcp://`; without it nothing is encrypted, and the engine has to be behind something that is.
        ssh_config: a configuration file of ssh (`man ssh_config`) with key, known hosts and the like, instead of the
            user's own.
        timeout: seconds to connect, and between two bytes of an answer.
        stats_timeout: seconds that the measurements of one container may take.
        connections: containers that are read at once.
        max_containers: what one poll reads; those over it are counted and told.
        max_events: events of one poll; what is over it comes with the next.
        max_body: bytes of one answer.
        act_on_unlabelled: act on containers without the label `nms.service=true` too.
        allow_exec: whether commands may be run in containers.
        own: containers of the fleet itself, by name: they are never acted on unless that is confirmed.
        registries: who we are at registries of images, by their host: `registry.example.net:5000`.
        backups: None: volumes cannot be backed up.
    """

    url: str = "unix:///run/docker.sock"
    tls: TlsSettings | None = None
    ssh_config: Path | None = None
    timeout: PositiveFloat = 30.0
    stats_timeout: PositiveFloat = 5.0
    connections: Annotated[int, Field(ge=1, le=64)] = 8
    max_containers: PositiveInt = 500
    max_events: PositiveInt = 5000
    max_body: PositiveInt = 64 * 1024 * 1024
    act_on_unlabelled: bool = False
    allow_exec: bool = False
    own: tuple[Name, ...] = ()
    registries: dict[str, Registry] = Field(default={})
    backups: Backups | None = None

    @field_validator("url")
    @classmethod
    def _an_engine(cls, url: str) -> str:
        parts = urlsplit(url)
        check = _CHECKS.get(parts.scheme)
        if check is None or parts.query or parts.fragment or parts.password:
            raise ValueError("write unix:///path, tcp://host:port or ssh://user@host:port, without a password")
        if fault := check(parts):
            raise ValueError(fault)
        return url.rstrip("/")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.tls and self.scheme != "tcp":
            raise ValueError("tls is for tcp:// only")
        if self.ssh_config and self.scheme != "ssh":
            raise ValueError("ssh_config is for ssh:// only")
        return self

    @property
    def scheme(self) -> str:
        """How the engine is reached: `unix`, `tcp` or `ssh`."""
        return urlsplit(self.url).scheme


def _unix(parts: SplitResult) -> str:
    return (
        "" if not parts.netloc and parts.path.startswith("/") else "write unix:///run/docker.sock, with three slashes"
    )


def _tcp(parts: SplitResult) -> str:
    named = parts.hostname and _HOST.fullmatch(parts.hostname) and parts.port and not parts.username
    return "" if named and parts.path in {"", "/"} else "write tcp://host:port"


def _ssh(parts: SplitResult) -> str:
    named = parts.hostname and _HOST.fullmatch(parts.hostname) and (parts.port is None or parts.port)
    user = parts.username is None or _USER.fullmatch(parts.username)
    return (
        ""
        if named and user and parts.path in {"", "/"}
        else "write ssh://host, ssh://user@host or ssh://user@host:port"
    )


_CHECKS = {"unix": _unix, "tcp": _tcp, "ssh": _ssh}
