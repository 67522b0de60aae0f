"""From the lines of one source to what can be delivered: joined, masked, and with what they say of themselves."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import blake2b

import msgspec

from nms_workers.logs import metrics
from nms_workers.logs.batch import Document, Line
from nms_workers.logs.joining import Entry, Joiner, Piece
from nms_workers.logs.masking import masked
from nms_workers.logs.meaning import level_of, time_of
from nms_workers.logs.origin import Origin
from nms_workers.settings import Logs

_ECS = "8.11.0"  # https://www.elastic.co/docs/reference/ecs/ecs-field-reference
_OVERHEAD = 200  # bytes of a line's names and quotes, about


class Feed:
    """One source. For one thread.

    Args:
        put: takes what is ready; may wait.
        clock: seconds, as `time.monotonic`.
    """

    def __init__(
        self, origin: Origin, settings: Logs, put: Callable[[Line], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.origin = origin
        self._put, self._clock = put, clock
        self._joiner = Joiner(origin.rule, settings.entry_lines, settings.entry_bytes)
        self._join_for = settings.join_for
        self._last = clock()
        self._rate = float(settings.lines_per_second)
        self._owed, self._owed_at = 0.0, clock()  # lines read and not yet worked off by the rate
        self._read = metrics.READ.labels(origin.medium, origin.stream)
        self._read_bytes = metrics.READ_BYTES.labels(origin.medium, origin.stream)
        self._fields_size = _OVERHEAD + len(msgspec.json.encode(origin.fields))

    def add(self, piece: Piece) -> None:
        """One line more."""
        self._last = self._clock()
        self._owed += 1
        self._read.inc()
        self._read_bytes.inc(len(piece.text))
        if piece.cut:
            metrics.CUT.labels(self.origin.stream).inc()
        if (whole := self._joiner.add(piece)) is not None:
            self._hand_on(whole)

    def pause(self) -> float:
        """Seconds for which nothing should be read of this source: it says more than it may."""
        now = self._clock()
        self._owed = max(0.0, self._owed - (now - self._owed_at) * self._rate)
        self._owed_at = now
        return max(0.0, self._owed / self._rate - 1.0)

    @property
    def waits(self) -> bool:
        """Whether a line may still belong to what came last."""
        return self._joiner.waiting

    def idle(self) -> None:
        """Nothing came just now. What waited long enough for a line that belongs to it is handed on."""
        if self._joiner.waiting and self._clock() - self._last >= self._join_for:
            self.flush()

    def flush(self) -> None:
        """Hand on what waits."""
        if (whole := self._joiner.flush()) is not None:
            self._hand_on(whole)

    def end(self) -> None:
        """Nothing will come any more, ever."""
        self.flush()
        self._put(Line("", self.origin.source, "", self.origin.stream, {}, 0))

    def _hand_on(self, entry: Entry) -> None:
        first, last = entry.pieces[0], entry.pieces[-1]
        texts = [one.text for one in entry.pieces]
        clean = masked(texts)
        changed = sum(old != new for old, new in zip(texts, clean, strict=True))
        if changed:
            metrics.MASKED.labels(self.origin.stream).inc(changed)
        message = "\n".join(clean)
        self._put(
            Line(
                id=blake2b(f"{self.origin.source}\n{first.start}".encode(), digest_size=16).hexdigest(),
                source=self.origin.source,
                after=last.after,
                stream=self.origin.stream,
                document=self._document(message, first, [one.cut for one in entry.pieces]),
                size=len(message.encode()) + self._fields_size,
            )
        )

    def _document(self, message: str, first: Piece, cut: list[bool]) -> Document:
        now = datetime.now(UTC)
        read = f"{now:%Y-%m-%dT%H:%M:%S.%fZ}"
        level = level_of(message)
        flags = [name for name, holds in (("truncated", any(cut)), ("multiline", len(cut) > 1)) if holds]
        about: Document = dict(self.origin.fields.get("log", {}))
        if level:
            about["level"] = level
        if flags:
            about["flags"] = flags
        if self.origin.medium == "file":
            about["offset"] = int(first.start)
        event = {**self.origin.fields.get("event", {}), "created": read}
        own = {"log": about} if about else {}
        return {
            "@timestamp": first.time or time_of(message, now) or read,
            "message": message,
            "ecs": {"version": _ECS},
            **self.origin.fields,
            "event": event,
            **own,
        }
