"""What an engine's refusal means."""

import msgspec
import requests

from nms_workers.errors import AuthError, ParseError, Refused, TargetError, Timeout, Unreachable

_LONGEST = 300  # characters of the engine's own words in a message


class NotThere(Refused):
    """The engine knows no such object."""


class Conflict(Refused):
    """The object is in a state in which that cannot be done, or its name is taken."""


class _Error(msgspec.Struct):
    message: str = ""


_LOG = "look at the engine's own log"
_MEANINGS: dict[int, tuple[type[TargetError], str]] = {
    401: (AuthError, "check the certificate in tls, or what stands in front of the engine"),
    403: (AuthError, "an authorization plugin or proxy of the engine forbids it to us: ask who runs it"),
    404: (NotThere, ""),
    409: (Conflict, ""),
    500: (Refused, _LOG),
    502: (Unreachable, "what stands in front of the engine answered: look at the engine behind it"),
    503: (Unreachable, "the engine is starting, stopping or overloaded"),
    504: (Timeout, "what stands in front of the engine answered: look at the engine behind it"),
}

# The engine says what is missing, seldom what to do.
_HINTS = (
    ("is not running", "start it first"),
    ("is paused", "unpause it first"),
    ("toomanyrequests", "wait, or give username and password of the registry in registries"),
    ("pull access denied", "check the name of the image, and registries in the settings"),
    ("unauthorized", "check username and password in registries"),
    ("no space left", "free space on the engine's host: the action prune may help"),
    ("volume is in use", "remove the containers that use it first"),
    ("port is already allocated", "another container or program has that port"),
    ("no such image", "pull it first, or check its name"),
)


def meaning(answer: requests.Response, where: str) -> TargetError:
    """The error of an answer of 400 and above, with the engine's own words."""
    words = _words(answer.content)
    kind, hint = _MEANINGS.get(answer.status_code, (Refused, ""))
    low = words.lower()
    hint = next((better for part, better in _HINTS if part in low), hint)
    return kind(f"{where} was answered with {answer.status_code}" + (f": {words}" if words else ""), hint=hint)


def no_engine(url: str, why: str) -> ParseError:
    """Something answers there that does not speak the engine's API."""
    return ParseError(f"{url} is no Docker engine: {why}", hint="check host and port, or the path of the socket")


def _words(body: bytes) -> str:
    try:
        text = msgspec.json.decode(body, type=_Error).message
    except (msgspec.DecodeError, msgspec.ValidationError):
        text = "" if body.lstrip()[:1] == b"<" else body[: 4 * _LONGEST].decode("utf-8", "replace")
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_LONGEST]
