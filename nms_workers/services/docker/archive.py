"""The files of backups: a volume as tar, compressed (zstd), encrypted (age) when there is a key, with its SHA-256.

`volume-20260301T100000Z.tar.zst[.age]` and, beside it, the same with `.sha256`, as `sha256sum -c` reads it. Whatever
these lines do can be done by hand: `age -d -i KEY FILE | zstd -d | tar -x`. All is in a folder `volume` of the tar.
"""

import hashlib
import os
import re
import shutil
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BufferedWriter
from pathlib import Path
from typing import IO, Any, Protocol

import pyrage
import zstandard

from nms_workers.errors import ConfigError, ParseError, Refused
from nms_workers.services.docker.target import Backups
from nms_workers.transport.deadline import remaining

_CHUNK = 1 << 20
_LEVEL = 3  # of zstd: its own default
_STAMP = "%Y%m%dT%H%M%S%fZ"
_NAME = re.compile(r"(?P<volume>.+)-\d{8}T\d{12}Z\.tar\.zst(\.age)?")
_SUM = ".sha256"


class Source(Protocol):
    """Where bytes come from."""

    def read(self, amount: int = ..., /) -> bytes: ...


@dataclass(frozen=True)
class Contents:
    """What a backup holds: entries of the tar, bytes of its files, and bytes of the tar itself."""

    entries: int
    file_bytes: int
    size: int


def write(backups: Backups, volume: str, source: Source) -> Path:
    """Write a backup; it has its name once it is whole and on the disk.

    Args:
        source: the tar.

    Raises:
        Refused: it is bigger than `max_bytes`, or cannot be written.
    """
    folder = backups.folder / volume
    kind = ".tar.zst" + (".age" if backups.recipient else "")
    path = folder / f"{volume}-{datetime.now(UTC).strftime(_STAMP)}{kind}"
    part = path.with_name(path.name + ".part")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _new(part) as out:
            sink: Any = _Hashed(out)
            bounded: Any = _Bounded(source, backups.max_bytes)
            packed: Any = zstandard.ZstdCompressor(level=_LEVEL).stream_reader(bounded)
            if backups.recipient:
                pyrage.encrypt_io(packed, sink, [_recipient(backups.recipient)])
            else:
                shutil.copyfileobj(packed, sink, _CHUNK)
            out.flush()
            os.fsync(out.fileno())
        with _new(path.with_name(path.name + _SUM)) as out:
            out.write(f"{sink.digest()}  {path.name}\n".encode())
        part.rename(path)
    except OSError as exc:
        raise Refused(
            f"a backup cannot be written to {folder}: {exc.strerror}", hint="look at backups.folder"
        ) from None
    finally:
        part.unlink(missing_ok=True)
    return path


def found(backups: Backups, volume: str) -> list[Path]:
    """The backups of a volume, oldest first."""
    folder = backups.folder / volume
    named = [
        one for one in folder.glob("*.tar.zst*") if (match := _NAME.fullmatch(one.name)) and match["volume"] == volume
    ]
    return sorted(named)


def chosen(backups: Backups, volume: str, name: str) -> Path:
    """The backup of this name, or the newest.

    Raises:
        Refused: there is none.
    """
    all_ = found(backups, volume)
    path = next((one for one in reversed(all_) if name in {"", one.name}), None)
    if path is None:
        some = ", ".join(one.name for one in all_[-5:]) or "none"
        raise Refused(f"there is no backup {name or 'at all'} of {volume}", hint=f"there are: {some}")
    return path


def drop_old(backups: Backups, volume: str, *, but: str = "") -> list[str]:
    """Remove all but the newest `keep` backups, never the one named `but`; the names of those that went."""
    old = [one for one in found(backups, volume)[: -backups.keep] if one.name != but]
    for one in old:
        one.unlink(missing_ok=True)
        one.with_name(one.name + _SUM).unlink(missing_ok=True)
    return [one.name for one in old]


def digest(path: Path) -> str:
    """The SHA-256 that was written beside it."""
    try:
        return path.with_name(path.name + _SUM).read_text(encoding="ascii").split()[0]
    except (OSError, IndexError, UnicodeDecodeError):
        raise Refused(
            f"the checksum of {path.name} is missing", hint="without it nobody knows whether it is whole"
        ) from None


def verify(backups: Backups, path: Path) -> Contents:
    """Read a whole backup: its checksum, its key, its compression, and every entry of its tar.

    Raises:
        ParseError: it is not what was written.
        ConfigError: the key is not there, or not its own.
    """
    expected, seen = digest(path), hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            seen.update(piece)
            remaining(1.0)
    if seen.hexdigest() != expected:
        raise ParseError(f"{path.name} is not what was written: its SHA-256 is another", hint="take another backup")
    with opened(backups, path) as source:
        counted = _Counted(source)
        entries = size = 0
        with tarfile.open(fileobj=counted, mode="r|") as tar:  # type: ignore[call-overload]
            for entry in tar:
                entries, size = entries + 1, size + entry.size
                remaining(1.0)
        while counted.read(_CHUNK):
            remaining(1.0)
        return Contents(entries, size, counted.size)


@contextmanager
def opened(backups: Backups, path: Path) -> Iterator[Source]:
    """The tar of a backup, as it is read.

    Raises:
        ConfigError: it is encrypted, and the key is not there or not its own.
        ParseError: it is damaged.
    """
    with path.open("rb") as file, _bad(path):
        if path.suffix != ".age":
            with zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) as tar:
                yield tar
            return
        if backups.identity is None:
            raise ConfigError(f"{path.name} is encrypted", hint="set backups.identity to the key that opens it")
        key = _identity(backups.identity.reveal())
        with (
            _piped(lambda sink: pyrage.decrypt_io(file, sink, [key])) as clear,
            zstandard.ZstdDecompressor().stream_reader(clear, read_across_frames=True) as tar,
        ):
            yield tar


@contextmanager
def _bad(path: Path) -> Iterator[None]:
    try:
        yield
    except (zstandard.ZstdError, tarfile.TarError, EOFError) as exc:
        raise ParseError(f"{path.name} is damaged: {str(exc)[:200]}", hint="take another backup") from None
    except pyrage.DecryptError as exc:
        hint = "is backups.identity the key of that time?"
        raise ConfigError(f"{path.name} does not open with our key: {str(exc)[:200]}", hint=hint) from None


@contextmanager
def _piped(write_to: Callable[[BufferedWriter], None]) -> Iterator[IO[bytes]]:
    """What a function writes, to be read as it comes. Its error is raised when the reader is done."""
    reader, writer = os.pipe()
    failed: list[BaseException] = []

    def run() -> None:
        with os.fdopen(writer, "wb") as sink:
            try:
                write_to(sink)
            except BrokenPipeError:
                return  # the reader has enough
            except Exception as exc:  # noqa: BLE001 - it is raised in the thread that reads
                failed.append(exc)

    thread = threading.Thread(target=run, name="decrypt", daemon=True)
    thread.start()
    try:
        with os.fdopen(reader, "rb") as source:
            yield source
    except (zstandard.ZstdError, tarfile.TarError, EOFError):
        thread.join()
        if not failed:
            raise
    thread.join()
    if failed:
        raise failed[0]


def _new(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")


def _recipient(text: str) -> Any:
    try:
        return pyrage.x25519.Recipient.from_str(text)
    except pyrage.RecipientError:
        raise ConfigError("backups.recipient is no public key of age", hint="age-keygen makes a pair") from None


def _identity(text: str) -> Any:
    keys = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    try:
        return pyrage.x25519.Identity.from_str(keys[0])
    except (IndexError, pyrage.IdentityError):
        raise ConfigError("backups.identity holds no secret key of age", hint="age-keygen makes a pair") from None


class _Bounded:
    """A source that ends in an error when it gives too much, and keeps the deadline."""

    def __init__(self, source: Source, limit: int) -> None:
        self._source, self._left = source, limit

    def read(self, amount: int = _CHUNK) -> bytes:
        remaining(1.0)
        piece = self._source.read(min(amount, _CHUNK) if amount > 0 else _CHUNK)
        self._left -= len(piece)
        if self._left < 0:
            raise Refused("the volume is bigger than backups.max_bytes", hint="raise it, or back up less")
        return piece


class _Hashed:
    def __init__(self, out: IO[bytes]) -> None:
        self._out, self._seen = out, hashlib.sha256()

    def write(self, piece: bytes) -> int:
        self._seen.update(piece)
        return self._out.write(piece)

    def flush(self) -> None:
        self._out.flush()

    def digest(self) -> str:
        return self._seen.hexdigest()


class _Counted:
    def __init__(self, source: Source) -> None:
        self._source, self.size = source, 0

    def read(self, amount: int = _CHUNK) -> bytes:
        piece = self._source.read(amount)
        self.size += len(piece)
        return piece
