"""Versions of a device's configuration, whole, in a folder of the worker's host: what can be put back.

The history in PostgreSQL has no secrets. These files have: they are readable by the fleet's own user only.
"""

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import NamedTemporaryFile

from nms_workers.errors import ConfigError, Refused

_FORM = "%Y%m%dT%H%M%S%fZ"
_NAME = re.compile(r"[0-9]{8}T[0-9]{12}Z\Z", re.ASCII)


@dataclass(frozen=True)
class Version:
    """One configuration, from the moment it was first seen."""

    name: str

    @property
    def since(self) -> datetime:
        """When it was first seen."""
        return datetime.strptime(self.name, _FORM).replace(tzinfo=UTC)


class Archive:
    """The versions of one device.

    Args:
        folder: its own; made at first use.
        keep: how many versions are kept.

    Every method raises:
        ConfigError: the folder cannot be used.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder, self._keep = folder, keep

    def versions(self) -> list[Version]:
        """All of them, the oldest first."""
        try:
            names = [path.stem for path in self._folder.glob("*.cfg")]
        except OSError as exc:
            raise self._unusable(exc) from None
        return [Version(name) for name in sorted(names) if _NAME.match(name)]

    def text(self, version: str) -> str:
        """A configuration, as it was put.

        Raises:
            Refused: there is no such version.
        """
        known = [one.name for one in self.versions()]
        if version not in known:
            told = ", ".join(known[-10:]) or "none"
            raise Refused(f"there is no version {version!r:.40} of this configuration", hint=f"there are {told}")
        try:
            return (self._folder / f"{version}.cfg").read_text(encoding="utf-8")
        except OSError as exc:
            raise self._unusable(exc) from None

    def put(self, text: str, now: datetime) -> Version:
        """Keep a configuration as the newest version; the oldest beyond `keep` go."""
        after = [one.since + timedelta(microseconds=1) for one in self.versions()[-1:]]
        made = Version(max([now.astimezone(UTC), *after]).strftime(_FORM))
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with NamedTemporaryFile("w", dir=self._folder, suffix=".new", delete=False, encoding="utf-8") as file:
                file.write(text)  # such a file is made with mode 0600
                file.flush()
                os.fsync(file.fileno())
            Path(file.name).replace(self._folder / f"{made.name}.cfg")
            for old in self.versions()[: -self._keep]:
                (self._folder / f"{old.name}.cfg").unlink(missing_ok=True)
        except OSError as exc:
            raise self._unusable(exc) from None
        return made

    def _unusable(self, exc: OSError) -> ConfigError:
        hint = "set configuration.archive to a folder that the workers may write"
        return ConfigError(f"the archive {self._folder} cannot be used: {exc.strerror}", hint=hint)
