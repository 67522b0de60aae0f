"""Entries that Elasticsearch refuses for what they are, kept on this host for people to look at: bounded."""

import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from nms_workers.errors import NmsError
from nms_workers.logs import metrics
from nms_workers.logs.batch import Line

_REASONS = 50  # different ones that are counted by name


class DeadLetterError(NmsError):
    """They cannot be written."""


class DeadLetters:
    """A file with one JSON object a line: when, why, which stream, the id and the document, masked as it was sent.

    A full file is kept as `.1`, and the one that was `.1` is deleted.

    Args:
        size: bytes of one file.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._path, self._size = path, size
        self._reasons: set[str] = set()

    def put(self, lines: Iterable[tuple[Line, str, str]]) -> None:
        """Put these aside: each with the name of the reason and its words.

        Raises:
            DeadLetterError: the file cannot be written.
        """
        now = datetime.now(UTC).isoformat()
        written = [(kind, msgspec.json.encode(_letter(line, kind, words, now)) + b"\n") for line, kind, words in lines]
        try:
            for _, letter in written:
                self._append(letter)
        except OSError as exc:
            raise DeadLetterError(
                f"{self._path} cannot be written: {exc.strerror}", hint="look at the disk's space and permissions"
            ) from None
        for kind, _ in written:
            if kind in self._reasons or len(self._reasons) < _REASONS:
                self._reasons.add(kind)
            metrics.DEAD.labels(kind if kind in self._reasons else "other").inc()

    def _append(self, letter: bytes) -> None:
        if self._path.exists() and self._path.stat().st_size + len(letter) > self._size:
            self._path.replace(self._path.with_name(self._path.name + ".1"))
        handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(handle, letter)
        finally:
            os.close(handle)


def _letter(line: Line, kind: str, words: str, now: str) -> dict[str, object]:
    about = {"at": now, "reason": kind, "words": words, "stream": line.stream}
    return {**about, "source": line.source, "id": line.id, "document": line.document}
