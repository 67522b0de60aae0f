"""What is known of a source beside its lines, in the names of ECS."""

from typing import Literal, NamedTuple

from nms_workers.logs.batch import Document
from nms_workers.logs.joining import Rule
from nms_workers.logs.streams import StreamName


class Origin(NamedTuple):
    """One source of lines.

    Args:
        source: names it for ever: no other ever has the same key.
        medium: what it is.
        stream: where its lines go.
        rule: which of them belong together.
        fields: what each of its documents has beside the line; read, never changed.
    """

    source: str
    medium: Literal["file", "container"]
    stream: StreamName
    rule: Rule
    fields: Document
