"""The settings of one Redis target, checked before anything is asked."""

from functools import cached_property
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from nms_workers.service import TargetSettings
from nms_workers.transport.secret import Secret

Port = Annotated[int, Field(ge=1, le=65535)]
CommandName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]

DEFAULT_SENTINEL_PORT = 26379


class RedisTarget(TargetSettings):
    """One Redis or Valkey: a single server, the master that sentinels know, or a whole cluster.

    Args:
        host, port: the server; with `cluster` any node of it, the others are found by asking it.
        unix_socket: used in place of host and port.
        db: the database that `flushdb` empties unless told otherwise, and whose keys are scanned.
        username, password: a user of the server's access control list; without a user name the default user.
        tls: encrypt, also towards sentinels and cluster nodes.
        tls_ca: certificates to trust, in PEM; default: those of the system.
        tls_cert, tls_key: our own certificate, for servers that ask for one.
        tls_verify: check the certificate and the name in it.
        connect_timeout, timeout: seconds to connect, and seconds for one whole answer.
        sentinels: `host` or `host:port` of each sentinel (default port 26379); needs `master_name`.
        master_name: the name sentinels know the master by.
        sentinel_username, sentinel_password: for the sentinels themselves.
        cluster: read every node of the cluster; each series then has a label `node`.
        max_nodes: how many nodes of a cluster are read at most.
        key_patterns: glob patterns whose keys are counted by a scan.
        scan_limit: how many keys one scan looks at in a database.
        slowlog_limit: how many of the newest entries of the slow log are read.
        client_limit: `CLIENT LIST` is left out when more clients than this are connected.
        label_limit: how many users, client names or commands get series of their own where the set is open.
        command_names: new names of commands the server renamed, `{"CONFIG": "a1b2"}`.
    """

    host: str = Field(default="127.0.0.1", min_length=1)
    port: Port = 6379
    unix_socket: Path | None = None
    db: NonNegativeInt = 0
    username: str = ""
    password: Secret | None = None
    tls: bool = False
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_verify: bool = True
    connect_timeout: PositiveFloat = 3.0
    timeout: PositiveFloat = 5.0
    sentinels: tuple[str, ...] = ()
    master_name: str = ""
    sentinel_username: str = ""
    sentinel_password: Secret | None = None
    cluster: bool = False
    max_nodes: PositiveInt = 100
    key_patterns: tuple[str, ...] = Field(default=(), max_length=50)
    scan_limit: PositiveInt = 100_000
    slowlog_limit: Annotated[int, Field(ge=1, le=1024)] = 128
    client_limit: PositiveInt = 10_000
    label_limit: Annotated[int, Field(ge=1, le=1000)] = 20
    command_names: dict[CommandName, CommandName] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        ways = [name for name in ("unix_socket", "sentinels", "cluster") if getattr(self, name)]
        if len(ways) > 1:
            raise ValueError(f"{' and '.join(ways)} exclude each other")
        if bool(self.sentinels) != bool(self.master_name):
            raise ValueError("sentinels and master_name belong together")
        if self.tls and self.unix_socket:
            raise ValueError("a unix socket has no TLS")
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("tls_cert and tls_key belong together")
        if self.username and self.password is None:
            raise ValueError("a username needs a password")
        if self.cluster and self.db:
            raise ValueError("the keys of a cluster are in database 0")
        _ = self.sentinel_addresses
        return self

    @cached_property
    def sentinel_addresses(self) -> tuple[tuple[str, int], ...]:
        """`sentinels` as (host, port).

        Raises:
            ValueError: one of them is no address.
        """
        return tuple(_address(text) for text in self.sentinels)


def joined(host: str, port: int) -> str:
    """`host:port`, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(DEFAULT_SENTINEL_PORT)
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ValueError(f"the sentinel {text!r} is not host:port")
    return host, int(port)
