"""How an engine is reached: the vendor's client over connections of ours, which keep deadlines and bounds.

The SDK's own transports for sockets and ssh know no deadline of a whole answer, no bound on its size, and need paramiko
even to run `ssh`. So it speaks through adapters made here, and what an answer means is told in one place.
"""

import errno
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO, Any
from urllib.parse import urlsplit

import docker
import requests
from requests.adapters import HTTPAdapter
from urllib3 import BaseHTTPResponse, HTTPConnectionPool
from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError

from nms_workers.errors import AuthError, NmsError, TargetError, Unreachable
from nms_workers.services.docker.failures import meaning, no_engine
from nms_workers.services.docker.target import DockerTarget
from nms_workers.transport.adapter import DeadlineAdapter, keep_deadline
from nms_workers.transport.deadline import remaining
from nms_workers.transport.faults import fault
from nms_workers.transport.response import read
from nms_workers.transport.tls import TlsSettings, client_context

Dial = Callable[[float], socket.socket]
Params = Mapping[str, str | int | bool] | None

_SSH_ENDS = 1.0  # seconds
_NO_HOST = "http://localhost:2375"  # named in the Host header where a socket leads to the engine


class Engine(docker.APIClient):
    """The vendor's client of one engine, spoken to in one version of its API. Safe to share between threads.

    Its methods raise our errors: `Unreachable`, `Timeout`, `AuthError`, `ParseError`, `Refused` (`NotThere`).
    """

    def __init__(self, target: DockerTarget, transport: "Transport", version: str) -> None:
        super().__init__(transport.base_url, version=version, timeout=target.timeout)  # type: ignore[arg-type]
        self._target, self._transport = target, transport
        self.trust_env = False
        for scheme in ("http://", "https://"):
            self.mount(scheme, transport.adapter)

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """One request, sent once."""
        where = f"{request.method} {urlsplit(str(request.url)).path} at {self._target.url}"
        whole = not options.get("stream")
        options["timeout"] = remaining(float(options.get("timeout") or self._target.timeout))
        try:
            answer = super().send(request, **options | {"stream": True, "allow_redirects": False})
            if whole or answer.status_code >= 400:
                answer._content = read(answer, where, self._target.max_body).body
        except NmsError:
            raise
        except (OSError, requests.RequestException, HTTPError) as exc:
            raise self._transport.explain(exc, where) from None
        if answer.status_code >= 400:
            raise meaning(answer, where)
        if answer.is_redirect:
            raise no_engine(self._target.url, "it sends us elsewhere")
        return answer

    def ask(self, method: str, path: str, body: object = None, *, timeout: float | None = None) -> Any:
        """The JSON of an answer, None when it has none: what the SDK has no method for, or one that lacks a part.

        Args:
            path: below the version, with checked names only.
            timeout: seconds between two bytes; None: as the settings say.
        """
        answer = self.request(method, f"{self.base_url}/v{self.api_version}{path}", json=body, timeout=timeout)
        return answer.json() if answer.content else None

    @contextmanager
    def body_of(self, method: str, path: str, params: Params = None, body: object = None) -> Iterator[BaseHTTPResponse]:
        """The body of an answer as it comes; what the SDK has no bounded way for.

        Args:
            path: below the version, with checked names only: `/events`.
            body: sent as JSON unless None.
        """
        url = f"{self.base_url}/v{self.api_version}{path}"
        plain = {"Accept-Encoding": "identity"}  # what comes piece by piece is read as it comes
        answer = self.request(method, url, params=params, json=body, headers=plain, stream=True)
        try:
            yield answer.raw
        except (OSError, HTTPError) as exc:
            raise self._transport.explain(exc, f"{method} {path} at {self._target.url}") from None
        finally:
            answer.close()


class Transport:
    """The way to one engine.

    Raises:
        ConfigError: a file of the TLS settings cannot be used.
    """

    def __init__(self, target: DockerTarget) -> None:
        parts = urlsplit(target.url)
        self._target, self._ssh = target, None
        self.base_url = _NO_HOST
        self.adapter: HTTPAdapter
        if target.scheme == "unix":
            self.adapter = _adapter(lambda limit: _to_socket(parts.path, limit), target.connections)
        elif target.scheme == "ssh":
            self._ssh = _Ssh(target)
            self.adapter = _adapter(self._ssh.dial, target.connections)
        else:
            self.base_url = f"{'https' if target.tls else 'http'}://{parts.netloc}"
            self.adapter = _over_tcp(target)

    def close(self) -> None:
        """End the connections that are idle."""
        self.adapter.close()
        if self._ssh:
            self._ssh.close()

    def explain(self, error: Exception, where: str) -> NmsError:
        """What it means that no answer came."""
        if self._ssh and (told := self._ssh.explain()):
            return told
        if self._target.scheme == "unix":
            for cause in _chain(error):
                if isinstance(cause, OSError) and cause.errno in _SOCKET:
                    kind, what, hint = _SOCKET[cause.errno]
                    return kind(f"{self._target.url}: {what}", hint=hint)
        return fault(error, where, urlsplit(self._target.url).hostname or "")


_SOCKET: dict[int, tuple[type[TargetError], str, str]] = {
    errno.ENOENT: (Unreachable, "there is no such socket", "does the engine run on this host, and is the path right?"),
    errno.ECONNREFUSED: (Unreachable, "nobody listens at that socket", "the engine is stopped: start it"),
    errno.ENOTSOCK: (Unreachable, "that is no socket", "check the path in the url"),
    errno.EACCES: (
        AuthError,
        "we may not open that socket",
        "put the worker's user into the group that owns it; who may use it is as good as root on that host",
    ),
}


class _Ssh:
    """Connections through the system's ssh, each a process of its own that ends with its connection."""

    def __init__(self, target: DockerTarget) -> None:
        parts = urlsplit(target.url)
        options = ["-o", "BatchMode=yes", "-o", "ClearAllForwardings=yes", "-T"]
        options += ["-F", str(target.ssh_config)] if target.ssh_config else []
        options += ["-l", parts.username] if parts.username else []
        options += ["-p", str(parts.port)] if parts.port else []
        self._host = parts.hostname or ""
        self._options = options
        self._lock = threading.Lock()
        self._running: list[tuple[subprocess.Popen[bytes], IO[bytes]]] = []
        self._last_words = ""

    def dial(self, limit: float) -> socket.socket:
        """A connection to the engine of the other host."""
        self._reap(end=False)
        ours, theirs = socket.socketpair()
        words = tempfile.TemporaryFile()  # noqa: SIM115 - closed when ssh has ended
        wait = ["-o", f"ConnectTimeout={max(1, round(limit))}"]
        argv = ["ssh", *self._options, *wait, "--", self._host, "docker", "system", "dial-stdio"]
        try:
            pipe = theirs.fileno()
            process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=words, start_new_session=True)
        except OSError:
            ours.close()
            words.close()
            raise
        finally:
            theirs.close()
        with self._lock:
            self._running.append((process, words))
        ours.settimeout(limit)
        return ours

    def explain(self) -> TargetError | None:
        """What ssh said when a connection came to nothing. It ends a moment after its connection does."""
        with self._lock:
            newest = self._running[-1][0] if self._running else None
        if newest is not None:
            with suppress(subprocess.TimeoutExpired):
                newest.wait(_SSH_ENDS)
        self._reap(end=False)
        with self._lock:
            words, self._last_words = self._last_words, ""
        if not words:
            return None
        where = f"ssh to {self._host}: {words}"
        if "permission denied" in words.lower() or "host key" in words.lower():
            return AuthError(where, hint="look at the keys and known hosts in ssh_config")
        return Unreachable(where, hint="try the same with ssh by hand; docker must be there on that host")

    def close(self) -> None:
        """End what still runs."""
        self._reap(end=True)

    def _reap(self, *, end: bool) -> None:
        """Take leave of the processes that have ended, or of all."""
        with self._lock:
            for one in list(self._running):
                process, words = one
                if end:
                    process.terminate()
                    process.wait()
                if process.poll() is not None:
                    self._running.remove(one)
                    words.seek(0)
                    if process.returncode > 0:
                        self._last_words = _one_line(words.read(4096))
                    words.close()


def _one_line(text: bytes) -> str:
    shown = "".join(c if c.isprintable() else " " for c in text.decode("utf-8", "replace"))
    return " ".join(shown.split())[:300]


def _to_socket(path: str, limit: float) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(limit)
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return sock


def _over_tcp(target: DockerTarget) -> HTTPAdapter:
    settings = target.tls
    return DeadlineAdapter(
        client_context(settings or TlsSettings()),
        server_name=settings.server_name if settings else None,
        proxy_auth=lambda: None,
        connections=target.connections,
    )


def _adapter(dial: Dial, connections: int) -> HTTPAdapter:
    """Pooled connections that `dial` makes."""

    class Connection(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return keep_deadline(dial(remaining(float(self.timeout or 60.0))))

    class Pool(HTTPConnectionPool):
        ConnectionCls = Connection

    adapter = HTTPAdapter(pool_maxsize=connections)
    adapter.poolmanager.pool_classes_by_scheme = {"http": Pool}
    return adapter


def _chain(error: BaseException | None) -> list[BaseException]:
    """The error and what led to it. urllib3 gives its causes as arguments too."""
    found: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, BaseException) and one not in found:
            found.append(one)
            waiting += [one.__cause__, one.__context__, *one.args]
    return found
