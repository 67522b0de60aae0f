"""The settings of everything that is spoken to over HTTP."""

from typing import Annotated, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, PositiveFloat, PositiveInt, model_validator

from nms_workers.service import BreakerPolicy, TargetSettings
from nms_workers.transport.cache import CacheSettings
from nms_workers.transport.retry import RetrySettings
from nms_workers.transport.secret import Secret
from nms_workers.transport.tls import TlsSettings


def _base_url(url: str) -> str:
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ValueError("a URL must not carry credentials: use username and password, or token")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("write http://host:port or https://host:port")
    if parts.query or parts.fragment:
        raise ValueError("the base URL takes no ?query and no #fragment")
    if not 0 < (parts.port or 80) <= 65_535:  # .port raises ValueError itself for what is no number
        raise ValueError("the port must be 1 to 65535")
    return url.rstrip("/")


def _proxy_url(url: str) -> str:
    if urlsplit(_base_url(url)).scheme != "http":
        raise ValueError("the proxy itself is spoken to over http://; https targets are tunnelled through it")
    return url.rstrip("/")


def _public_headers(headers: dict[str, str]) -> dict[str, str]:
    if secret := [name for name in headers if name.lower() in _SECRET_HEADERS]:
        raise ValueError(f"{', '.join(secret)} holds credentials: use username, token or secret_headers")
    return headers


_SECRET_HEADERS = {"authorization", "proxy-authorization", "cookie", "x-api-key", "x-auth-token"}

Url: TypeAlias = Annotated[str, AfterValidator(_base_url)]


class _Options(BaseModel):
    model_config = TargetSettings.model_config


class Instance(_Options):
    """One of several equal endpoints of a target: it gets `weight` of the sum of weights of all requests."""

    url: Url
    weight: int = Field(default=1, ge=1, le=1000)


class HttpTimeouts(_Options):
    """Seconds: to connect, between two bytes of an answer, and for one request with its retries."""

    connect: PositiveFloat = 5.0
    read: PositiveFloat = 30.0
    total: PositiveFloat = 60.0


class BreakerSettings(_Options):
    """The breaker of this target opens after `failures` in a row, and lets one try through after `reset` seconds."""

    failures: PositiveInt
    reset: PositiveFloat

    @property
    def policy(self) -> BreakerPolicy:
        """The same as the fleet knows it."""
        return BreakerPolicy(self.failures, self.reset)


def _as_instance(value: object) -> object:
    return {"url": value} if isinstance(value, str) else value


class HttpSettings(TargetSettings):
    """Everything about speaking HTTP to one target. The Target of an HTTP service inherits this.

    Args:
        url, urls: one endpoint, or several equal ones: texts or `{url, weight}`.
        username, password: HTTP basic authentication (RFC 7617).
        token, token_scheme: `Authorization: <scheme> <token>`; `Bearer` (RFC 6750), `ApiKey`, `Token`.
        headers, secret_headers: sent with each request; values of the second are references to secrets.
        proxy, proxy_username, proxy_password: an HTTP proxy. The environment's proxies and .netrc are not looked at.
        follow_redirects: follow for safe requests, to the same place or from http to https on the same host only.
        max_body: bytes of one answer, decompressed, that are taken before it is given up.
        connections: idle connections kept to each host.
        eject_after, probe_every: an instance that fails so often in a row is left out, and tried every so many seconds.
        cache: None keeps nothing.
        breaker: None takes the service's policy.
    """

    url: Url | None = None
    urls: tuple[Annotated[Instance, BeforeValidator(_as_instance)], ...] = ()
    timeout: HttpTimeouts = HttpTimeouts()
    username: str | None = None
    password: Secret | None = None
    token: Secret | None = None
    token_scheme: str = Field(default="Bearer", pattern=r"^[A-Za-z0-9-]+$")
    headers: Annotated[dict[str, str], AfterValidator(_public_headers)] = Field(default={})
    secret_headers: dict[str, Secret] = Field(default={})
    tls: TlsSettings = TlsSettings()
    proxy: Annotated[str, AfterValidator(_proxy_url)] | None = None
    proxy_username: str | None = None
    proxy_password: Secret | None = None
    follow_redirects: bool = False
    max_body: PositiveInt = 64 * 1024 * 1024
    connections: PositiveInt = 10
    retry: RetrySettings = RetrySettings()
    eject_after: PositiveInt = 3
    probe_every: PositiveFloat = 30.0
    cache: CacheSettings | None = None
    breaker: BreakerSettings | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> "HttpSettings":
        if bool(self.url) == bool(self.urls):
            raise ValueError("set either url or urls")
        if len({one.url for one in self.urls}) != len(self.urls):
            raise ValueError("urls names one place twice: use weight")
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password go together")
        if (self.proxy_username is None) != (self.proxy_password is None):
            raise ValueError("proxy_username and proxy_password go together")
        if self.token and self.username:
            raise ValueError("set either token or username, not both")
        return self

    def weights(self) -> dict[str, int]:
        """Base URL of each instance, and its weight."""
        return {self.url: 1} if self.url else {one.url: one.weight for one in self.urls}
