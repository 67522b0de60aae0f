"""What Grafana says when it says no, as our errors: which kind, and what to do about it."""

import re
from collections.abc import Collection

from nms_workers.errors import Refused, TargetError
from nms_workers.services.grafana.model import Told
from nms_workers.transport.http import Response

EXPLAINED = (400, 403, 404, 409, 412, 422, 500)  # statuses that come with Grafana's own words

_CREDENTIALS = re.compile(r"://[^/\s@]+@")  # plugins repeat the URL of a data source
_LONGEST = 300  # characters of the server's own words in a message
_RIGHTS = "the credentials are known and lack the permission: give the service account or user a role that has it"

# Grafana names the part that is missing, seldom what to do. Looked for in its words, in this order.
_HINTS = (
    ("changed by someone else", "look at what was changed, then run it again with overwrite"),
    ("provisioned", "it comes from a file: change it there, or allow changes where it is provisioned"),
    ("belongs to plugin", "a plugin keeps it: save a copy under another uid"),
    ("name in the folder already exists", "choose another title or folder, or name the uid of that dashboard"),
    ("same name", "choose another name"),
    ("same uid", "choose another uid"),
    ("folder not found", "name the uid of a folder that exists; an empty one is the top"),
    ("read-only", "it comes from a file: change it there"),
    ("quota", "raise the quota in Grafana's settings"),
    ("cannot change provenance", "it is kept by another tool: change it there"),
)


class NotThere(Refused):
    """Grafana knows no such object, or does not show it to us."""


class Forbidden(Refused):
    """We are known, and may not (403)."""


class Conflict(Refused):
    """Somebody else has the name, or changed it (409, 412)."""


class Overtaken(Conflict):
    """Somebody else saved between our look and our save."""


def told(response: Response) -> Told:
    """What an answer that is no good one says; empty where it has no words of Grafana's."""
    try:
        return response.json(Told)
    except TargetError:
        return Told()


def words(said: Told, hidden: Collection[str] = ()) -> str:
    """The message in one short line, without what must not be shown."""
    text = _CREDENTIALS.sub("://***@", said.message)
    for secret in hidden:
        text = text.replace(secret, "***")
    return " ".join("".join(c if c.isprintable() else " " for c in text[: 2 * _LONGEST]).split())[:_LONGEST]


def refusal(method: str, response: Response, hidden: Collection[str] = ()) -> Refused:
    """The error that an answer with a status of `EXPLAINED` means."""
    answer = told(response)
    text = words(answer, hidden)
    said = f"{method} {response.url} was answered with {response.status}" + (f": {text}" if text else "")
    low = text.lower()
    hint = next((hint for part, hint in _HINTS if part in low), "")
    match response.status:
        case 403:
            return Forbidden(said, hint=hint or _RIGHTS)
        case 404:
            return NotThere(said, hint=hint or "check the uid, the organisation (org_id) and the version of Grafana")
        case 412 if answer.status == "version-mismatch":
            return Overtaken(said, hint=hint)
        case 409 | 412:
            return Conflict(said, hint=hint)
        case 500:
            return Refused(said, hint=hint or "look at the log of Grafana")
        case _:
            return Refused(said, hint=hint)
