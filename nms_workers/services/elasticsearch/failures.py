"""What Elasticsearch says when it says no: its errors as JSON, told as ours."""

import msgspec

from nms_workers.errors import Refused, TargetError
from nms_workers.transport.http import Response

EXPLAINED = frozenset({400, 403, 404, 405, 409, 410, 413, 500})  # the rest means what it means everywhere

_LONGEST = 400  # characters of the server's own words in a message


class Denied(Refused):
    """The cluster said no. `kind` is its name for why: `index_not_found_exception`; `status` that of HTTP."""

    def __init__(self, message: str, kind: str, *, hint: str = "", status: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.kind, self.status = kind, status


class NotThere(Denied):
    """The cluster knows no such object."""


class _Cause(msgspec.Struct):
    type: str = ""
    reason: str | None = ""


class _Error(msgspec.Struct):
    error: _Cause | str = ""


SERVERLESS = "api_not_available_exception"

_HINTS = {
    SERVERLESS: "Elasticsearch Serverless has no such API: name the poll in `skip` of the target",
    "media_type_header_exception": "the cluster has another version than it had: the next run asks for it anew",
    "security_exception": "give the API key, or the user's role, one of the privileges that are named",
    "cluster_block_exception": "an index or the cluster is closed for this: look at the disks (flood stage watermark)",
    "circuit_breaking_exception": "the node is short of heap: poll less often, or look at what fills it",
    "content_too_long_exception": "lower bulk_bytes, or raise http.max_content_length there",
    "repository_exception": "look at the repository's settings, and whether the nodes reach it",
    "repository_missing_exception": "look at the names that get_repositories gives",
    "index_not_found_exception": "check the name; get_indices lists those there are",
    "resource_not_found_exception": "check the name",
    "illegal_argument_exception": "this version of Elasticsearch may not know it, or it does not fit what is there",
    "mapper_parsing_exception": "correct the mappings",
    "resource_already_exists_exception": "choose another name, or delete_index first",
    "invalid_index_name_exception": "choose another name",
}


def explained(method: str, response: Response) -> TargetError:
    """The error that an answer with one of the statuses `EXPLAINED` means."""
    kind, reason = _cause(response)
    said = f"{method} {response.url} was answered with {response.status}" + (f": {reason}" if reason else "")
    if response.status == 410 or "running in serverless mode" in reason:
        kind = SERVERLESS
    hint = _HINTS.get(kind, "")
    if "no handler found" in reason:
        hint = "this version of Elasticsearch does not know it: name the poll in `skip` of the target"
    if response.status == 404 and kind != SERVERLESS:
        return NotThere(said, kind, hint=hint or "check the name, the url, and the version of the cluster")
    if response.status == 403:
        hint = hint or "the credentials are known and lack the permission"
    return Denied(said, kind, hint=hint, status=response.status)


def _cause(response: Response) -> tuple[str, str]:
    try:
        error = msgspec.json.decode(response.body, type=_Error).error
    except msgspec.DecodeError:
        return "", ""
    kind, reason = ("", error) if isinstance(error, str) else (error.type, error.reason or error.type)
    words = "".join(letter if letter.isprintable() else " " for letter in reason[: 4 * _LONGEST])
    return kind, " ".join(words.split())[:_LONGEST]
