"""What is delivered together: lines as documents, and where their sources stand after them."""

from datetime import datetime
from typing import Any

import msgspec

from nms_workers.logs.streams import StreamName

Document = dict[str, Any]


class Line(msgspec.Struct, frozen=True):
    """One entry, ready to leave this host: masked.

    Args:
        id: the same whenever this entry is read again: `<key of its source>` and the place where it begins, hashed.
        source: the key of its source.
        after: the place in its source after it.
        document: JSON with the names of fields of ECS (https://www.elastic.co/docs/reference/ecs); empty: this only
            says that its source has come to its end.
        size: about how many bytes it takes.
    """

    id: str
    source: str
    after: str
    stream: StreamName
    document: Document
    size: int


class Batch(msgspec.Struct, frozen=True):
    """What is delivered at once.

    Args:
        due: names it: no other batch of this host has the same; aware.
    """

    due: datetime
    lines: tuple[Line, ...]

    @property
    def documents(self) -> tuple[Line, ...]:
        """Those that are to be delivered."""
        return tuple(one for one in self.lines if one.document)

    def positions(self) -> dict[str, str]:
        """Where each source stands once all this is delivered."""
        return {one.source: one.after for one in self.lines if one.document}

    def ended(self) -> list[str]:
        """Sources that have come to their end with this."""
        return [one.source for one in self.lines if not one.document]
