"""The lines of a container's log, out of the engine's stream.

Without a terminal, stdout and stderr come in frames of one connection: 1 byte stream, 3 bytes nothing, 4 bytes length.
https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Container/operation/ContainerAttach
"""

import struct
from collections.abc import Iterator
from datetime import UTC, datetime

from urllib3 import BaseHTTPResponse

from nms_workers.errors import ParseError
from nms_workers.services.docker.model import LogLine

MAX_LINE = 256 * 1024  # bytes of one line; the engine itself cuts lines at 16 KiB into pieces
_MAX_READ = 65_536
_STREAMS = {0: "stdout", 1: "stdout", 2: "stderr"}


def frames(body: BaseHTTPResponse, *, tty: bool) -> Iterator[tuple[str, bytes]]:
    """Stream and bytes as they come, in pieces of a bounded size.

    Raises:
        ParseError: it is not in frames.
    """
    if tty:
        while piece := body.read1(_MAX_READ):
            yield "stdout", piece
        return
    while len(head := body.read(8)) == 8:
        number, length = struct.unpack(">BxxxL", head)
        if number not in _STREAMS:
            raise ParseError("the log does not come in the frames of an engine's stream")
        while length > 0 and (piece := body.read(min(length, _MAX_READ))):
            length -= len(piece)
            yield _STREAMS[number], piece


def lines(pieces: Iterator[tuple[str, bytes]]) -> Iterator[LogLine]:
    """Whole lines, of which the engine told the time at the beginning; the last one may lack its end."""
    open_: dict[str, bytes] = {}
    for stream, piece in pieces:
        *whole, rest = (open_.get(stream, b"") + piece).split(b"\n")
        yield from (_line(stream, one) for one in whole)
        if len(rest) > 2 * MAX_LINE:  # what follows of this line is dropped when it ends
            rest = rest[: 2 * MAX_LINE]
        open_[stream] = rest
    yield from (_line(stream, rest) for stream, rest in sorted(open_.items()) if rest)


def _line(stream: str, line: bytes) -> LogLine:
    stamp, _, text = line.partition(b" ")
    at = nanoseconds(stamp.decode("ascii", "replace"))
    text = (text if at else line).rstrip(b"\r")
    return LogLine(at, stream, text[:MAX_LINE].decode("utf-8", "replace"), cut=len(text) > MAX_LINE)


def nanoseconds(stamp: str) -> int:
    """Nanoseconds of the epoch of a time as the engine writes it (RFC 3339, UTC); 0: it is none, or year 1."""
    whole, _, rest = stamp.partition(".")
    digits = rest.rstrip("Z") if rest else ""
    try:
        seconds = int(datetime.fromisoformat(whole.removesuffix("Z")).replace(tzinfo=UTC).timestamp())
        return max(0, seconds * 1_000_000_000 + int(digits.ljust(9, "0")[:9] or 0))
    except ValueError:
        return 0


def moment(at: int) -> str:
    """Nanoseconds as the engine takes them in `since` and `until`."""
    return f"{at // 1_000_000_000}.{at % 1_000_000_000:09d}"
