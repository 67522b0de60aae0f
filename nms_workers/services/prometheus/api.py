"""Questions to Prometheus' HTTP API: the envelope of its answers, and what its refusals mean.

Source: https://prometheus.io/docs/prometheus/latest/querying/api/#format-overview
"""

from collections.abc import Mapping
from typing import NamedTuple, TypeVar
from urllib.parse import urlencode

import msgspec

from nms_workers.errors import ParseError, Refused, TargetError, Timeout, Unreachable
from nms_workers.services.prometheus.model import Answer
from nms_workers.transport.http import HttpClient, Response

T = TypeVar("T")
Params = Mapping[str, str | int | float | list[str] | None]

_EXPLAINED = (400, 404, 422, 499, 500, 503)
LONGEST_WORDS = 500  # characters of the server's own words in a message
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_NO_SERVER = "the url may point at another product; an exporter that is no Prometheus server wants api = false"
_STARTING = "the target is starting, stopping or overloaded"


class TookTooLong(Timeout):
    """The server gave up on one question. It is well otherwise."""


# by the errorType of the envelope: what it is to us, and what to do
_KINDS: dict[str, tuple[type[TargetError], str]] = {
    "bad_data": (Refused, "correct the query, or the arguments"),
    "execution": (Refused, "the expression cannot be evaluated: try it in Prometheus' own console"),
    "timeout": (TookTooLong, "ask for less, or raise --query.timeout of the server"),
    "canceled": (TookTooLong, "the server gave the query up: is it overloaded?"),
    "unavailable": (Unreachable, _STARTING),
    "not_found": (Refused, "this version of the server does not have it"),
}

# over these, by a part of the server's own words
_HINTS: tuple[tuple[str, type[TargetError], str], ...] = (
    ("admin apis disabled", Refused, "start Prometheus with --web.enable-admin-api"),
    ("unavailable with prometheus agent", Refused, "this is an agent, which only forwards: skip this poll for it"),
    ("maximum resolution", Refused, "raise step, or shorten the range"),
    ("too many samples", Refused, "narrow the selector or the time, or raise --query.max-samples of the server"),
)


class Told(NamedTuple):
    """The data of an answer, not decoded yet, and what the server remarked."""

    data: msgspec.Raw
    url: str
    warnings: tuple[str, ...]
    infos: tuple[str, ...]

    def decoded(self, shape: type[T]) -> T:
        """The data as this shape.

        Raises:
            ParseError: it has another.
        """
        return decoded(self.data, shape, self.url)


def get(http: HttpClient, path: str, params: Params | None = None) -> Told:
    """Ask `/api/v1<path>`.

    Raises:
        Refused, Timeout, Unreachable: as `errorType` says, in the server's own words.
        ParseError: that is no answer of this API.
    """
    return _told("GET", http.get(f"/api/v1{path}", params=params or {}, expect=_EXPLAINED))


def post(http: HttpClient, path: str, form: Params) -> Told:
    """The same for questions of any length: the parameters go as a form. It changes nothing, and may be repeated."""
    fields = {name: value for name, value in form.items() if value is not None}
    body = urlencode(fields, doseq=True).encode()
    return _told("POST", http.post(f"/api/v1{path}", data=body, headers=_FORM, expect=_EXPLAINED, idempotent=True))


def command(http: HttpClient, path: str, params: Params) -> Told:
    """The same for what changes the server: sent once."""
    return _told("POST", http.post(f"/api/v1{path}", params=params, expect=_EXPLAINED))


def decoded(data: msgspec.Raw, shape: type[T], url: str) -> T:
    """JSON as this shape.

    Raises:
        ParseError: it has another.
    """
    try:
        return msgspec.json.decode(data, type=shape)
    except msgspec.ValidationError as exc:
        hint = "this version of the server may not be supported"
        raise ParseError(f"{url} answered with data of another shape: {exc}", hint=hint) from None


def words(text: str) -> str:
    """The server's own words in one line, bounded."""
    shown = "".join(c if c.isprintable() else " " for c in text[: 2 * LONGEST_WORDS])
    return " ".join(shown.split())[:LONGEST_WORDS]


def _told(method: str, response: Response) -> Told:
    if response.status == 204:
        return Told(msgspec.Raw(b"null"), response.url, (), ())
    answer = _envelope(method, response)
    if answer.status == "success" and response.status < 300:
        return Told(answer.data, response.url, tuple(answer.warnings or ()), tuple(answer.infos or ()))
    raise _refusal(f"{method} {response.url} was answered with {response.status}", answer)


def _envelope(method: str, response: Response) -> Answer:
    answer, fault = Answer(), None
    try:
        answer = response.json(Answer)
    except ParseError as exc:
        fault = exc
    if answer.status in ("success", "error"):
        return answer
    said = f"{method} {response.url} was answered with {response.status}"
    if response.status == 503:  # it says so in plain text until its data is read, and so do proxies
        raise Unreachable(f"{said} Service Unavailable", hint=_STARTING)
    if response.status >= 300:
        raise ParseError(f"{said}, as no Prometheus server does", hint=_NO_SERVER)
    if fault is not None:
        raise ParseError(fault.message, hint=f"{fault.hint}; {_NO_SERVER}")
    raise ParseError(f"{response.url} answered with JSON that is not of Prometheus' API", hint=_NO_SERVER)


def _refusal(said: str, answer: Answer) -> TargetError:
    kind, hint = _KINDS.get(answer.error_type, (Refused, "look at the log of the server"))
    low = answer.error.lower()
    for part, other, better in _HINTS:
        if part in low:
            kind, hint = other, better
    return kind(f"{said}: {words(answer.error)}", hint=hint)
