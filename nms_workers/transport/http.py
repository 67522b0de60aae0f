"""A client that speaks HTTP to one target: cached, guarded, retried, balanced and bounded, in that order."""

import base64
import hashlib
import logging
import secrets
import time
from collections.abc import Collection, Hashable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from types import TracebackType
from typing import Any, NamedTuple, TypedDict, Unpack
from urllib.parse import urlsplit

import msgspec
import requests
import urllib3

from nms_workers import __version__
from nms_workers.errors import ConfigError, Outcome, TargetError, Timeout
from nms_workers.service import BreakerPolicy
from nms_workers.transport import metrics
from nms_workers.transport.adapter import DeadlineAdapter
from nms_workers.transport.balancer import Balancer
from nms_workers.transport.breaker import Breakers
from nms_workers.transport.cache import ResponseCache
from nms_workers.transport.deadline import deadline, remaining
from nms_workers.transport.faults import fault
from nms_workers.transport.http_settings import HttpSettings
from nms_workers.transport.response import Response, check, read
from nms_workers.transport.retry import SAFE_METHODS, retrying
from nms_workers.transport.tls import client_context

__all__ = ["HttpClient", "HttpSettings", "RequestOptions", "Response"]

log = logging.getLogger(__name__)

_MAX_REDIRECTS = 5


class RequestOptions(TypedDict, total=False):
    """What a request may carry beside method and path.

    * `params`: the query; a list repeats its name, None leaves it out. Never secrets: queries end in logs of proxies.
    * `json`: anything msgspec encodes; `data`: bytes as they are, or a mapping as a form.
    * `headers`: added to those of the settings.
    * `expect`: statuses beside 2xx that are returned instead of raised.
    * `idempotent`: True lets a request that is not safe be repeated after a fault.
    """

    params: Mapping[str, str | int | float | list[str] | None]
    json: object
    data: bytes | Mapping[str, str]
    headers: Mapping[str, str]
    expect: Collection[int]
    idempotent: bool


class _Credentials(NamedTuple):
    headers: dict[str, str]
    secrets: list[str]  # all that must never be shown


class HttpClient:
    """Speaks HTTP to one target. Thread-safe. Connects lazily, and may be used again after `close()`.

    Args:
        settings: of the target.
        service, target: names for counters and log; default: `http` and the host of the first URL.
        breakers: guards each request for those who use the client alone. The fleet guards whole polls itself, and
            gives none here.
        policy: of the breaker, unless the settings have their own.

    Raises:
        ConfigError: a TLS file cannot be used.

    Every method that sends raises, beside what is written there:
        Unreachable: no connection, or 502, 503.
        Timeout: no whole answer inside `timeout` and the deadline around it.
        AuthError: 401, 407, a login page, or our certificate is not accepted.
        Refused: any other status that is not 2xx.
        ParseError: cut off, too large, or no HTTP.
        Skipped: the breaker is open.
        ConfigError: a secret cannot be read.
    """

    def __init__(
        self,
        settings: HttpSettings,
        *,
        service: str = "http",
        target: str = "",
        breakers: Breakers | None = None,
        policy: BreakerPolicy = BreakerPolicy(),  # noqa: B008 - frozen
    ) -> None:
        self._settings = settings
        weights = settings.weights()
        self._names = (service, target or urlsplit(next(iter(weights))).netloc)
        self._balancer = Balancer(weights, failures=settings.eject_after, probe=settings.probe_every)
        self._cache = ResponseCache(settings.cache) if settings.cache else None
        self._cache_pepper = secrets.token_bytes(16)
        self._breakers = breakers
        self._policy = settings.breaker.policy if settings.breaker else policy
        self._adapter = DeadlineAdapter(
            client_context(settings.tls),
            server_name=settings.tls.server_name,
            proxy_auth=self._proxy_auth,
            connections=settings.connections,
        )
        for url in weights:
            metrics.INSTANCE_UP.labels(*self._names, urlsplit(url).netloc).set(1)

    def __repr__(self) -> str:
        return f"HttpClient({'/'.join(self._names)})"

    def __enter__(self) -> "HttpClient":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of all idle connections."""
        self._adapter.close()

    def get(self, path: str = "", **options: Unpack[RequestOptions]) -> Response:
        """Read. Repeated after faults that pass, and taken from the cache if there is one."""
        return self.request("GET", path, **options)

    def post(self, path: str = "", **options: Unpack[RequestOptions]) -> Response:
        """Send; sent once unless `idempotent`."""
        return self.request("POST", path, **options)

    def put(self, path: str = "", **options: Unpack[RequestOptions]) -> Response:
        """Replace; sent once unless `idempotent`."""
        return self.request("PUT", path, **options)

    def patch(self, path: str = "", **options: Unpack[RequestOptions]) -> Response:
        """Change; sent once unless `idempotent`."""
        return self.request("PATCH", path, **options)

    def delete(self, path: str = "", **options: Unpack[RequestOptions]) -> Response:
        """Remove; sent once unless `idempotent`."""
        return self.request("DELETE", path, **options)

    def json(self, path: str = "", **options: Unpack[RequestOptions]) -> Any:
        """Read, and decode the JSON of the answer: `get(path).json()`, which raises `ParseError` on anything else."""
        return self.get(path, **options).json()

    def request(self, method: str, path: str = "", **options: Unpack[RequestOptions]) -> Response:
        """Send one request and read its whole answer.

        Args:
            method: an HTTP method in capitals.
            path: below the URL of the settings; names that come from people must be quoted (`urllib.parse.quote`).
        """
        with deadline(self._settings.timeout.total):
            credentials = self._credentials()
            key = self._cache_key(method, path, options, credentials)
            if key is not None and (kept := self._look_up(key)):
                return kept
            guard = self._breakers.guard("/".join(self._names), self._policy) if self._breakers else nullcontext()
            with guard:
                response = self._repeat(method, path, options, credentials)
            if self._cache is not None:
                if key is not None and response.status == 200:
                    self._cache.put(key, response)
                elif method not in SAFE_METHODS:
                    self._cache.clear()
            return response

    def _repeat(self, method: str, path: str, options: RequestOptions, credentials: _Credentials) -> Response:
        tried: list[str] = []

        def once() -> Response:
            remaining(self._settings.timeout.total)  # with no time left nothing is sent, and no instance blamed
            base = self._balancer.choose(tried)
            tried.append(base)
            with self._counted(base):
                return self._exchange(method, f"{base}/{path.lstrip('/')}" if path else base, options, credentials)

        if method in SAFE_METHODS or options.get("idempotent"):
            return retrying(self._settings.retry, metrics.RETRIES.labels(*self._names).inc)(once)
        return once()

    def _exchange(self, method: str, url: str, options: RequestOptions, credentials: _Credentials) -> Response:
        headers = {"User-Agent": f"nms-workers/{__version__}", "Accept": "application/json, */*;q=0.5"}
        headers |= self._settings.headers | dict(options.get("headers", {})) | credentials.headers
        data: Any = options.get("data")
        if "json" in options:
            data = msgspec.json.encode(options["json"])
            headers["Content-Type"] = "application/json"
        response = self._send(requests.Request(method, url, headers, data=data, params=options.get("params")))
        for _ in range(_MAX_REDIRECTS):
            if not (self._settings.follow_redirects and method in SAFE_METHODS and _same_place(response)):
                break
            response = self._send(requests.Request(method, response.location, headers))
        check(response, method, options.get("expect", ()), credentials.secrets)
        return response

    def _send(self, request: requests.Request) -> Response:
        url = request.url.partition("?")[0]
        limits = self._settings.timeout
        proxies = {"http": self._settings.proxy, "https": self._settings.proxy} if self._settings.proxy else None
        try:
            prepared = request.prepare()
            timeout = remaining(limits.connect), remaining(limits.read)
            answer = self._adapter.send(prepared, stream=True, timeout=timeout, proxies=proxies)
            response = read(answer, url, self._settings.max_body)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, Timeout) as exc:
            # Without the cause: its text may hold the query, and the proxies of requests their credentials.
            raise fault(exc, f"{request.method} {url}", urlsplit(url).hostname or "") from None
        metrics.RECEIVED.labels(*self._names).inc(len(response.body))
        return response

    @contextmanager
    def _counted(self, base: str) -> Iterator[None]:
        """Count one request to an instance, and tell the balancer how it went."""
        instance, outcome = urlsplit(base).netloc, Outcome.ERROR
        started = time.monotonic()
        try:
            yield
            outcome = Outcome.OK
        except TargetError as exc:
            outcome = exc.outcome
            raise
        finally:
            metrics.SECONDS.labels(*self._names).observe(time.monotonic() - started)
            metrics.REQUESTS.labels(*self._names, outcome).inc()
            if outcome in (Outcome.UNREACHABLE, Outcome.TIMEOUT):
                if self._balancer.failed(base):
                    metrics.INSTANCE_UP.labels(*self._names, instance).set(0)
                    metrics.INSTANCE_REMOVALS.labels(*self._names, instance).inc()
                    log.warning("%s: %s is left out, it is %s", "/".join(self._names), instance, outcome)
            elif outcome is not Outcome.ERROR and self._balancer.succeeded(base):
                metrics.INSTANCE_UP.labels(*self._names, instance).set(1)
                log.info("%s: %s answers again", "/".join(self._names), instance)

    def _credentials(self) -> _Credentials:
        settings, headers, hidden = self._settings, {}, []
        if settings.username is not None and settings.password is not None:
            hidden.append(settings.password.reveal())
            headers["Authorization"] = _basic(settings.username, hidden[0])
        if settings.token is not None:
            hidden.append(settings.token.reveal())
            headers["Authorization"] = f"{settings.token_scheme} {hidden[0]}"
        for name, secret in settings.secret_headers.items():
            headers[name] = secret.reveal()
        for name, value in headers.items():
            if not (value.isascii() and value.isprintable()):
                raise ConfigError(f"the secret for the header {name} holds characters that no header can carry")
        hidden += headers.values()
        hidden += [value.partition(" ")[2] for value in headers.values()]
        return _Credentials(headers, sorted(filter(None, hidden), key=len, reverse=True))

    def _proxy_auth(self) -> str | None:
        settings = self._settings
        if settings.proxy_username is None or settings.proxy_password is None:
            return None
        return _basic(settings.proxy_username, settings.proxy_password.reveal())

    def _cache_key(self, method: str, path: str, options: RequestOptions, credentials: _Credentials) -> Hashable | None:
        if self._cache is None or method != "GET":
            return None
        # Whom we ask as, so that a changed token does not see what another was shown; never the secret itself.
        who = msgspec.json.encode([credentials.headers, dict(options.get("headers", {}))], order="sorted")
        asked = msgspec.json.encode(dict(options.get("params", {})), order="sorted")
        return path, asked, hashlib.blake2b(who, key=self._cache_pepper, digest_size=16).digest()

    def _look_up(self, key: Hashable) -> Response | None:
        kept = self._cache.get(key) if self._cache is not None else None
        metrics.CACHE.labels(*self._names, "hit" if kept else "miss").inc()
        return kept


def _basic(username: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


def _same_place(response: Response) -> bool:
    """Whether a redirect stays where our credentials belong."""
    if not response.location or response.to_login:
        return False
    here, there = urlsplit(response.url), urlsplit(response.location)
    upgrade = (here.scheme, there.scheme) == ("http", "https") and here.hostname == there.hostname
    return upgrade or (here.scheme, here.netloc) == (there.scheme, there.netloc)
