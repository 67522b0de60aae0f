"""Requests to a GNS3 server of either version, as somebody it knows."""

import base64
import binascii
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import msgspec

from nms_workers.errors import AuthError, ParseError, Refused, TargetError, Timeout, Unreachable
from nms_workers.services.gns3.model import Version
from nms_workers.services.gns3.target import Gns3Target
from nms_workers.transport.deadline import remaining
from nms_workers.transport.http import HttpClient, Response

_EXPLAINED = (400, 401, 403, 404, 409, 422)
_RENEW_AT = 0.8  # of a token's life
_UNKNOWN_LIFE = 600.0  # seconds, where a token does not say how long it lives
_LONGEST = 300  # characters of the server's own words in a message
_NO_LOGIN = {"username": None, "password": None, "token": None}
_LOGIN_HINT = "check username and password in the target's settings"

# What is missing when the server says 409 or the like: it names the part, seldom what to do.
_HINTS = (
    ("dynamips", "install Dynamips on the compute and set dynamips_path there, or use a node type that needs none"),
    ("ubridge", "install uBridge on the compute, set ubridge_path there, and let it capture (setcap)"),
    ("could not start", "look at the log of the node, in its directory on the compute"),
    ("vpcs", "install VPCS 0.6.1 or later on the compute and set vpcs_path there"),
    ("virbr0", "a NAT node needs libvirt's default network on the compute"),
    ("docker", "Docker must run on the compute, and the GNS3 user must be in its group"),
    ("kvm", "the compute lacks hardware acceleration: set enable_hardware_acceleration = False there"),
    ("project is not opened", "open_project first"),
    ("must be stopped", "stop_node first, for all nodes of the project"),
    ("cannot connect to compute", "bring the compute back, or remove it from the controller"),
    ("compute id", "name a compute that the controller knows"),
    ("already used", "choose another port, or delete_link first"),
    ("image", "upload the image to the compute"),
)


class NotThere(Refused):
    """The server knows no such object."""


class _Error(msgspec.Struct):
    message: str = ""
    detail: object = ""


class _Token(msgspec.Struct):
    access_token: str


class _Claims(msgspec.Struct):
    exp: float | None = None


class _Login(NamedTuple):
    header: dict[str, str]
    renew_at: float  # of time.monotonic()


class Session:
    """Speaks to one server. Thread-safe. Finds out its version at the first request, and logs in where that is asked.

    `call` raises, beside what `HttpClient` does:
        AuthError: username and password, or the token, are not accepted.
        NotThere: 404, no such object.
        Refused: 400, 403, 409, 422; the hint says what to do where we know.
    """

    def __init__(self, target: Gns3Target) -> None:
        self._target = target
        self._known = HttpClient(target, service="gns3")  # with username and password, or the token
        self._bare = HttpClient(target.model_copy(update=_NO_LOGIN), service="gns3")
        self._lock = threading.Lock()
        self._version: Version | None = None
        self._login: _Login | None = None

    def close(self) -> None:
        """Let go of connections and of the token; the next request begins anew."""
        self._forget()
        self._known.close()
        self._bare.close()

    def version(self) -> Version:
        """Version of the server and of the API that it is spoken to with."""
        with self._alone():
            if self._version is None:
                self._version = self._ask_version()
            return self._version

    def call(self, method: str, path: str, body: object = None) -> Response:
        """Send one request below `/v2` or `/v3`.

        Args:
            path: with ids, never with names: `/projects/<id>/nodes`.
            body: sent as JSON unless None.
        """
        try:
            api = self.version().api
            response = self._as_user(method, path, body) if self._by_token(api) else None
            if response is None:
                response = _send(self._known, method, f"/v{api}{path}", body, {})
        except Unreachable:
            self._forget()  # it may come back as another version
            raise
        if response.status in _EXPLAINED:
            raise _explained(method, response)
        return response

    def _by_token(self, api: int) -> bool:
        """Whether we have to fetch a token: version 3, and a password."""
        return api == 3 and self._target.password is not None

    def _as_user(self, method: str, path: str, body: object) -> Response:
        login = self._logged_in(None)
        response = _send(self._bare, method, f"/v3{path}", body, login.header)
        if response.status == 401:  # the server has other secrets now, or forgot the user
            login = self._logged_in(login)
            response = _send(self._bare, method, f"/v3{path}", body, login.header)
        return response

    def _logged_in(self, refused: _Login | None) -> _Login:
        """A login that is not near its end, and not the one that was refused."""
        with self._alone():
            login = self._login
            if login is None or login is refused or time.monotonic() >= login.renew_at:
                login = self._login = self._log_in()
            return login

    def _log_in(self) -> _Login:
        password = self._target.password.reveal() if self._target.password else ""
        body = {"username": self._target.username, "password": password}
        asked_at = time.monotonic()
        response = _send(self._bare, "POST", "/v3/access/users/authenticate", body, {})
        if response.status in _EXPLAINED:  # without its words: a 422 repeats what was sent
            message = f"{response.url} does not accept the user {self._target.username!r} ({response.status})"
            raise AuthError(message, hint=_LOGIN_HINT)
        token = response.json(_Token).access_token
        if not (token.isascii() and token.isprintable()):
            raise ParseError(f"{response.url} answered with a token that no header can carry")
        return _Login({"Authorization": f"Bearer {token}"}, asked_at + _RENEW_AT * _life(token, response))

    def _ask_version(self) -> Version:
        answer = _send(self._bare, "GET", "/v3/version", None, {})
        if answer.status not in _EXPLAINED:
            return Version(answer.json(Version).version, 3)
        answer = _send(self._known, "GET", "/v2/version", None, {})
        if answer.status == 404:
            raise ParseError(f"{answer.url} is no GNS3 server", hint="check host and port in the url")
        if answer.status in _EXPLAINED:
            raise _explained("GET", answer)
        return Version(answer.json(Version).version, 2)

    def _forget(self) -> None:
        self._version = self._login = None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One thread at a time, waiting no longer than the work at hand has time."""
        if not self._lock.acquire(timeout=remaining(self._target.timeout.total)):
            raise Timeout("another thread is still logging in", hint="is the GNS3 server overloaded?")
        try:
            yield
        finally:
            self._lock.release()


def _send(http: HttpClient, method: str, path: str, body: object, headers: dict[str, str]) -> Response:
    if body is None:
        return http.request(method, path, headers=headers, expect=_EXPLAINED)
    return http.request(method, path, headers=headers, expect=_EXPLAINED, json=body)


def _life(token: str, response: Response) -> float:
    """Seconds a token lives (RFC 7519, `exp`), by the server's own clock: ours may be another."""
    _, _, rest = token.partition(".")
    payload = rest.partition(".")[0]
    try:
        ends = msgspec.json.decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)), type=_Claims).exp
        now = parsedate_to_datetime(response.headers.get("Date", "")).timestamp()
    except (binascii.Error, msgspec.DecodeError, ValueError):
        return _UNKNOWN_LIFE
    return _UNKNOWN_LIFE if ends is None else max(0.0, ends - now)


def _explained(method: str, response: Response) -> TargetError:
    words = _words(response)
    said = f"{method} {response.url} was answered with {response.status}" + (f": {words}" if words else "")
    if response.status == 401:
        return AuthError(said, hint=_LOGIN_HINT)
    low = words.lower()
    hint = next((hint for part, hint in _HINTS if part in low), "")
    return (NotThere if response.status == 404 else Refused)(said, hint=hint)


def _words(response: Response) -> str:
    """The server's own words in one line."""
    try:
        error = response.json(_Error)
    except TargetError:
        return ""
    text = error.message or (error.detail if isinstance(error.detail, str) else "")
    return " ".join("".join(c if c.isprintable() else " " for c in text[: 2 * _LONGEST]).split())[:_LONGEST]
