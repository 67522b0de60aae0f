"""One log file, read line by line from where it was left, and known again by its beginning wherever it is."""

import os
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from stat import S_ISREG

from nms_workers.logs.joining import Piece

HEAD = 1024  # bytes of the beginning by which a file is known
_CHUNK = 65_536


class Tail:
    """An open file.

    Args:
        path: where it is now.
        offset: bytes of it that were read.
        line_bytes: what a line has at most; the rest of a longer one is left out.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """

    def __init__(self, path: Path, offset: int, line_bytes: int) -> None:
        self.path = path
        self._line_bytes = line_bytes
        self._file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        found = os.fstat(self._file)
        if not S_ISREG(found.st_mode):
            os.close(self._file)
            raise OSError(f"{path} is no regular file")
        self.device, self.inode = found.st_dev, found.st_ino
        self._start = self._at = offset  # of the line at hand, and of what is read next
        self._rest = bytearray()  # the beginning of the line at hand, no more than line_bytes
        self._cut = False

    def close(self) -> None:
        """Let go of it."""
        os.close(self._file)

    @property
    def size(self) -> int:
        """Bytes it has now."""
        return os.fstat(self._file).st_size

    @property
    def offset(self) -> int:
        """Bytes that were read."""
        return self._at

    @property
    def line_start(self) -> int:
        """Where the line begins that is not whole yet."""
        return self._start

    @property
    def at_end(self) -> bool:
        """Whether nothing more is there to read just now."""
        return self._at >= self.size

    def head(self, size: int = HEAD) -> tuple[int, bytes]:
        """How much of the beginning there is, up to `size` bytes, and its hash."""
        beginning = os.pread(self._file, size, 0)
        return len(beginning), blake2b(beginning, digest_size=16).digest()

    def begins(self, size: int, head: bytes) -> bool:
        """Whether it begins with the bytes of which this is the hash."""
        return self.head(size) == (size, head)

    def is_file(self, device: int, inode: int) -> bool:
        """Whether it is the one with this number."""
        return (self.device, self.inode) == (device, inode)

    def read(self, budget: int) -> Iterator[Piece]:
        """The next whole lines, until about so many bytes were read or nothing more is there."""
        while budget > 0:
            chunk = os.pread(self._file, min(_CHUNK, budget), self._at)
            if not chunk:
                return
            budget -= len(chunk)
            parts = chunk.split(b"\n")
            for part in parts[:-1]:
                self._keep(part)
                self._at += len(part) + 1
                yield self._piece()
            self._keep(parts[-1])
            self._at += len(parts[-1])

    def last(self) -> Piece | None:
        """What stands at the end without an end of line, of a file to which nothing is written any more."""
        return self._piece() if self._at > self._start else None

    def _keep(self, part: bytes) -> None:
        room = self._line_bytes - len(self._rest)
        self._rest += part[:room]
        self._cut = self._cut or len(part) > room

    def _piece(self) -> Piece:
        # NUL: what an emptied file has before its first line when its writer goes on at the old place
        text = self._rest.replace(b"\0", b"").decode(errors="replace").rstrip("\r")
        piece = Piece(text, str(self._start), str(self._at), cut=self._cut)
        self._rest.clear()
        self._cut = False
        self._start = self._at
        return piece
