"""What is known of a source beside its lines, in the names of ECS."""

from typing import Literal, NamedTuple

from nms_workers.logs.batch import Document
from nms_workers.logs.cursors import Cursors
from nms_workers.logs.intake import Intake
from nms_workers.logs.joining import Rule
from nms_workers.logs.streams import StreamName
from nms_workers.settings import Logs


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


class Way(NamedTuple):
    """What every source needs: how lines are taken, from where, and where they are put."""

    settings: Logs
    cursors: Cursors
    intake: Intake
