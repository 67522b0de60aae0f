"""One Redis server: pooled connections whose every wait is limited, and errors that say what to do."""

import errno
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import redis
from redis import exceptions as wire
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.retry import Retry

from nms_workers.errors import AuthError, ConfigError, ParseError, Refused, TargetError, Timeout, Unreachable
from nms_workers.services.redis.target import RedisTarget, joined
from nms_workers.transport.deadline import deadline, remaining
from nms_workers.transport.secret import Secret

Argument = str | int | float | bytes

_CONNECTIONS = 8  # the polls of one target may run side by side
_MAX_ANSWER = 64 << 20  # bytes; ten thousand clients fill four million


class NotOffered(Refused):
    """The server does not know this command: it is older, or the command was renamed or removed."""

    def __init__(self, message: str, *, hint: str = "", subcommand: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.subcommand = subcommand


class NotPermitted(Refused):
    """The access control list does not let our user run this command."""


class Server:
    """One server of a target. Connects when first used; safe to share between threads.

    Args:
        target: the settings.
        host, port: where it is; not used when the target has a unix socket.
        db: the database of its connections.
        sentinel: it is a sentinel, and takes the credentials of sentinels.
    """

    def __init__(self, target: RedisTarget, host: str, port: int, *, db: int = 0, sentinel: bool = False) -> None:
        self.host, self.port, self.db = host, port, db
        self.address = str(target.unix_socket) if target.unix_socket else joined(host, port)
        self._target = target
        self._user = target.sentinel_username if sentinel else target.username
        secret = target.sentinel_password if sentinel else target.password
        pool = self._pool(_Credentials(self._user, secret) if secret else None)
        self._redis: Any = redis.Redis(connection_pool=pool)  # redis-py leaves execute_command untyped
        self._redis.response_callbacks.pop("SLOWLOG GET", None)  # it joins the arguments, and we mask them one by one
        self._name_anew(target.command_names)

    def __repr__(self) -> str:
        return f"Server({self.address!r})"

    def close(self) -> None:
        """Close the connections. The next call opens new ones."""
        self._redis.connection_pool.disconnect()

    def call(self, *command: Argument) -> Any:
        """The answer to one command, as redis-py parses it in RESP2.

        Args:
            command: name and subcommand as one word (`"SLOWLOG GET"`), then the arguments.

        Raises:
            Unreachable, AuthError, Timeout, ParseError: as their names say.
            NotOffered, NotPermitted: the server does not know the command, or does not let our user run it.
            Refused: it said no for another reason.
        """
        name = str(command[0])
        with self._explained(name), deadline(self._target.timeout):
            return self._redis.execute_command(self._renamed(name), *command[1:])

    def calls(self, commands: Sequence[tuple[Argument, ...]]) -> list[Any]:
        """The answers to many commands of one kind, sent at once; an answer may be a `redis.ResponseError`.

        Raises:
            as `call`.
        """
        if not commands:
            return []
        with self._explained(str(commands[0][0])), deadline(self._target.timeout):
            pipeline = self._redis.pipeline(transaction=False)
            for name, *arguments in commands:
                pipeline.execute_command(self._renamed(str(name)), *arguments)
            return list(pipeline.execute(raise_on_error=False))

    def info(self, section: str = "everything") -> dict[str, Any]:
        """Fields of `INFO`; compound values are mappings.

        Raises:
            ParseError: it is not the answer of a Redis.
            TargetError: as `call`.
        """
        answer = self.call("INFO", section)
        if not isinstance(answer, dict) or "__raw__" in answer:
            raise ParseError(f"{self.address} does not answer INFO as Redis does", hint="check host and port")
        return answer

    def _pool(self, credentials: CredentialProvider | None) -> redis.BlockingConnectionPool:
        target = self._target
        options: dict[str, Any] = {
            "db": self.db,
            "credential_provider": credentials,
            "protocol": 2,  # needs no HELLO, which a strict access control list or a proxy may deny
            "driver_info": None,  # nor CLIENT SETINFO
            "decode_responses": True,
            "encoding_errors": "replace",
            "socket_timeout": target.timeout,
            "socket_connect_timeout": target.connect_timeout,
            "retry": Retry(NoBackoff(), 0),  # whoever runs the poll decides
            "max_connections": _CONNECTIONS,
            "timeout": target.timeout,
        }
        if target.unix_socket:
            options |= {"connection_class": _UnixConnection, "path": str(target.unix_socket)}
        else:
            options |= {"connection_class": _TcpConnection, "host": self.host, "port": self.port}
        if target.tls:
            options |= {"connection_class": _TlsConnection} | _tls(target)
        return redis.BlockingConnectionPool(**options)  # type: ignore[no-untyped-call]  # redis-py leaves it untyped

    def _renamed(self, name: str) -> str:
        first, _, rest = name.partition(" ")
        return f"{self._target.command_names.get(first, first)} {rest}".rstrip()

    def _name_anew(self, names: dict[str, str]) -> None:
        for name, parse in list(self._redis.response_callbacks.items()):
            if name.partition(" ")[0] in names:
                self._redis.set_response_callback(self._renamed(name), parse)

    @contextmanager
    def _explained(self, command: str) -> Iterator[None]:
        try:
            yield
        except (wire.RedisError, OSError) as exc:
            raise self.explain(exc, command) from None  # an answer of the server may repeat what it was sent
        except (AttributeError, LookupError, TypeError, ValueError) as exc:  # redis-py parses what it trusts
            message = f"{self.address} answers {command} in a shape we do not know: {type(exc).__name__}"
            raise ParseError(message, hint="is it a Redis?") from None

    def explain(self, exc: Exception, command: str) -> TargetError:
        """Our error for one of redis-py, in words for people."""
        if isinstance(exc, wire.NoPermissionError):
            rule = "+" + command.lower().replace(" ", "|")
            user = self._user or "default"
            hint = f"ACL SETUSER {user} {rule}"
            return NotPermitted(f"{self.address} does not permit {command} to the user {user}", hint=hint)
        text = str(exc)
        if isinstance(exc, wire.ResponseError) and text.lower().startswith(("unknown command", "unknown subcommand")):
            hint = f"if it was renamed, name it: command_names = {{{command.partition(' ')[0]} = ...}}"
            subcommand = text.lower().startswith("unknown subcommand")
            return NotOffered(f"{self.address} does not offer {command}", hint=hint, subcommand=subcommand)
        for kinds, start, error, why, hint in _ERRORS:
            if isinstance(exc, kinds) and text.startswith(start):
                return error(f"{self.address} {why}".format(reason=_reason(text)), hint=hint)
        return Refused(f"{self.address} refused {command}: {_reason(text)}")


class _NoSecret(wire.AuthenticationError):
    """The password cannot be read. As an error of redis-py it makes the connection close."""


_CLOSED_HINT = "is it a Redis? a TLS port needs tls = true; otherwise see its log"
_TLS_HINT = "check tls, tls_ca, tls_cert and tls_key"
_ERRORS: tuple[tuple[type[Exception], str, type[TargetError], str, str], ...] = (
    (_NoSecret, "", AuthError, "was not asked: {reason}", "the password is read when it is needed"),
    (wire.AuthenticationError, "", AuthError, "does not accept our credentials", "check username and password"),
    (wire.BusyLoadingError, "", Refused, "is loading its data", "it answers when the dump is read"),
    (wire.ReadOnlyError, "", Refused, "is a read-only replica", "name the master, or its sentinels"),
    (wire.MasterDownError, "", Refused, "is a replica without its master", "check the replication"),
    (wire.OutOfMemoryError, "", Refused, "is out of memory", "raise maxmemory or free some"),
    (wire.ResponseError, "DENIED", Refused, "is in protected mode", "give it a password, or bind it to loopback"),
    (wire.ConnectionError, "max number of clients", Refused, "takes no more clients", "raise maxclients"),
    (wire.TimeoutError, "Timeout connecting", Unreachable, "could not be reached in time", "check host and firewall"),
    (wire.TimeoutError, "", Timeout, "gave no answer in time", "raise timeout, or see what keeps it busy"),
    (wire.InvalidResponse, "", ParseError, "does not speak the Redis protocol", "check host and port"),
    (wire.ConnectionError, "Connection closed", Unreachable, "closed the connection", _CLOSED_HINT),
    (wire.ConnectionError, "Error while reading", Unreachable, "closed the connection", _CLOSED_HINT),
    (wire.ConnectionError, "", Unreachable, "could not be reached: {reason}", "is it running, and is TLS as set?"),
    (OSError, "", Unreachable, "could not be reached: {reason}", _TLS_HINT),
)


class _Credentials(CredentialProvider):
    """Reads the secret anew for every connection, so a rotated one needs no restart."""

    def __init__(self, username: str, secret: Secret) -> None:
        self._username, self._secret = username, secret

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        try:
            password = self._secret.reveal()
        except ConfigError as exc:
            raise _NoSecret(str(exc)) from None
        return (self._username, password) if self._username else (password,)


class _LimitedSocket:
    """A socket that waits no longer than the work at hand has time, and takes no endless answer."""

    def __init__(self, sock: Any, limit: float) -> None:
        self._sock, self._limit = sock, limit
        self._asked = False
        self._received = 0  # since we last sent

    def settimeout(self, seconds: float) -> None:
        self._limit = seconds

    def recv(self, size: int) -> bytes:
        if not self._asked and self._limit == 0:  # redis-py probes a new connection, and drops one that has spoken:
            raise BlockingIOError(errno.EWOULDBLOCK, "not asked yet")  # but what it says is why it will hang up
        self._sock.settimeout(remaining(self._limit))
        data: bytes = self._sock.recv(size)
        self._received += len(data)
        if self._received > _MAX_ANSWER:
            raise ParseError(f"an answer is longer than {_MAX_ANSWER >> 20} MiB", hint="is it a Redis?")
        return data

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(remaining(self._limit))
        self._asked, self._received = True, 0
        self._sock.sendall(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class _TcpConnection(redis.Connection):
    def _connect(self) -> _LimitedSocket:
        return _opened(self, super()._connect)


class _TlsConnection(redis.SSLConnection):
    def _connect(self) -> _LimitedSocket:
        return _opened(self, super()._connect)


class _UnixConnection(redis.UnixDomainSocketConnection):
    def _connect(self) -> _LimitedSocket:
        return _opened(self, super()._connect)


def _opened(
    connection: redis.Connection | redis.UnixDomainSocketConnection, connect: Callable[[], Any]
) -> _LimitedSocket:
    """Open the socket of a connection in the time that the work at hand has."""
    answer, opening = connection.socket_timeout or 0.0, connection.socket_connect_timeout or 0.0
    connection.socket_timeout = connection.socket_connect_timeout = remaining(
        opening
    )  # a TLS handshake uses the former
    try:
        return _LimitedSocket(connect(), answer)
    finally:
        connection.socket_timeout, connection.socket_connect_timeout = answer, opening


def _tls(target: RedisTarget) -> dict[str, Any]:
    verify = target.tls_verify
    return {
        "ssl_ca_certs": str(target.tls_ca) if target.tls_ca else None,
        "ssl_certfile": str(target.tls_cert) if target.tls_cert else None,
        "ssl_keyfile": str(target.tls_key) if target.tls_key else None,
        "ssl_cert_reqs": "required" if verify else "none",
        "ssl_check_hostname": verify,
        "ssl_min_version": ssl.TLSVersion.TLSv1_2,
    }


def _reason(text: str) -> str:
    """What a person needs of an error text: one line, and never the arguments that a server repeats."""
    return text.partition(", with args")[0].splitlines()[0][:200].rstrip(". ") if text else "no reason given"
