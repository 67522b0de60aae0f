"""Answers over HTTP: reading them within bounds, telling a good one from the many kinds of bad, and decoding JSON."""

import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, TypeVar, overload
from urllib.parse import urljoin, urlsplit

import msgspec
import requests

from nms_workers.errors import AuthError, ParseError, Refused, TargetError, Timeout, Unreachable
from nms_workers.transport.retry import Overloaded, Throttled

T = TypeVar("T")

_CHUNK = 65_536
_EXCERPT = 200  # characters of the target's own words in a message
_LOGIN_PATH = re.compile(r"(log|sign)[-_]?(in|on)\b|/(sso|saml|oauth2?|auth)\b", re.IGNORECASE)
_LOGIN_FORM = re.compile(rb"<input[^>]+type=[\"']?password", re.IGNORECASE)
_TOKEN_HINT = "check username and password, or the token, in the target's settings"  # noqa: S105 - words for people


@dataclass(frozen=True)
class Response:
    """An answer that arrived whole.

    Args:
        status: the status code.
        headers: by name, case-insensitive.
        body: decompressed.
        url: what was asked, without the query.
        location: where a redirect points, absolute; empty otherwise.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    url: str
    location: str = ""

    @property
    def to_login(self) -> bool:
        """Whether it sends us to a login page."""
        return bool(_LOGIN_PATH.search(urlsplit(self.location).path))

    @property
    def text(self) -> str:
        """The body as UTF-8; what is not becomes U+FFFD."""
        return self.body.decode("utf-8", "replace")

    @overload
    def json(self) -> Any: ...
    @overload
    def json(self, shape: type[T]) -> T: ...
    def json(self, shape: Any = Any) -> Any:
        """The body decoded from JSON (RFC 8259).

        Args:
            shape: what it must look like, any type msgspec knows; the default takes everything.

        Raises:
            ParseError: a web page, no JSON, cut-off JSON, or another shape.
            AuthError: a page with a password field: a login page.
        """
        if self.body.lstrip()[:1] == b"<":
            if _LOGIN_FORM.search(self.body):
                raise AuthError(f"{self.url} answered with a login page instead of JSON", hint=_TOKEN_HINT)
            hint = "the url may point at another product, at its web pages instead of its API, or at a proxy in between"
            raise ParseError(f"{self.url} answered with a web page instead of JSON", hint=hint)
        try:
            return msgspec.json.decode(self.body, type=shape)
        except msgspec.ValidationError as exc:
            hint = "this version of the target may not be supported"
            raise ParseError(f"{self.url} answered with JSON of another shape: {exc}", hint=hint) from None
        except msgspec.DecodeError as exc:
            hint = "the answer may have been cut off: look at the target's log and at any proxy in between"
            raise ParseError(f"{self.url} answered with {len(self.body)} bytes of no JSON: {exc}", hint=hint) from None


def read(answer: requests.Response, url: str, max_body: int) -> Response:
    """The whole of an answer that has begun to arrive. The connection goes back to its pool, or is closed on a fault.

    Raises:
        ParseError: the body is longer than `max_body` bytes.
    """
    parts, size = [], 0
    try:
        while part := answer.raw.read1(_CHUNK, decode_content=True):
            size += len(part)
            if size > max_body:
                hint = "raise max_body, or ask for less"
                raise ParseError(f"{url} answered with more than {max_body} bytes", hint=hint)
            parts.append(part)
    finally:
        answer.close()
    location = answer.headers.get("Location", "") if answer.status_code // 100 == 3 else ""
    return Response(
        status=answer.status_code,
        headers=answer.headers,
        body=b"".join(parts),
        url=url,
        location=urljoin(url, location) if location else "",
    )


def check(response: Response, method: str, expect: Collection[int], secrets: Collection[str]) -> None:
    """Raise what the status means; 2xx and those in `expect` are good.

    | status | meaning |
    |---|---|
    | 401, 407, a redirect to a login page | `AuthError` |
    | 429 with Retry-After | `Throttled`, a `Refused` that may be repeated |
    | 502, 503 | `Unreachable`: what we asked for is not there just now; `Overloaded` with Retry-After |
    | 408, 504 | `Timeout` |
    | everything else, 403 and 500 among it | `Refused`: it understood, and said no or broke on it |

    Args:
        secrets: never shown, even if the target echoes them.
    """
    status = response.status
    if 200 <= status < 300 or status in expect:
        return
    said = f"{method} {response.url} was answered with {status} {_phrase(status)}{_words(response, secrets)}"
    after = _retry_after(response.headers.get("Retry-After", ""))
    if after is not None and status == HTTPStatus.TOO_MANY_REQUESTS:
        raise Throttled(said, after)
    if after is not None and status in (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE):
        raise Overloaded(said, after)
    if response.location:
        raise _redirected(response)
    kind, hint = _MEANINGS.get(status, (Refused, ""))
    raise kind(said, hint=hint)


_MEANINGS: dict[int, tuple[type[TargetError], str]] = {
    401: (AuthError, _TOKEN_HINT),
    403: (Refused, "the credentials are known and lack the permission"),
    404: (Refused, "the path is unknown there: check the url and the version of the target"),
    407: (AuthError, "check proxy_username and proxy_password in the target's settings"),
    408: (Timeout, ""),
    429: (Refused, "poll less often"),
    500: (Refused, "look at the target's own log"),
    502: (Unreachable, "the proxy in front of the target answered: look at what is behind it"),
    503: (Unreachable, "the target is starting, stopping or overloaded"),
    504: (Timeout, "the proxy in front of the target answered: look at what is behind it"),
}


def _redirected(response: Response) -> TargetError:
    place = urlsplit(response.location)
    to = f"{place.scheme}://{place.netloc.rpartition('@')[2]}{place.path}"
    if response.to_login:
        return AuthError(f"{response.url} sends us to its login page {to}", hint=_TOKEN_HINT)
    return Refused(f"{response.url} has moved to {to}", hint="set url to that place, or follow_redirects = true")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "(no standard status)"


def _words(response: Response, secrets: Collection[str]) -> str:
    text = response.text
    if text.lstrip()[:1] == "<":
        return ""
    for secret in secrets:
        text = text.replace(secret, "***")
    text = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * _EXCERPT]).split())
    return f": {text[:_EXCERPT]}" if text else ""


def _retry_after(value: str) -> float | None:
    """Seconds of a Retry-After header, a number or a date (RFC 9110 section 10.2.3); None when it is neither."""
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
