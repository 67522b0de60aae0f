"""The settings file under a running process: what changed is taken over, what is broken is not."""

import logging
from pathlib import Path

from nms_workers.errors import ConfigError
from nms_workers.settings import Settings

log = logging.getLogger(__name__)


class SettingsFile:
    """Watches the settings file; a broken file is refused, and the settings before it stay."""

    def __init__(self, path: Path | None, settings: Settings) -> None:
        self.settings = settings
        self._path = path
        self._seen = self._state()

    def changed(self) -> bool:
        """Whether there are new, good settings since the last call."""
        state = self._state()
        if state == self._seen:
            return False
        self._seen = state
        try:
            self.settings = Settings.load(self._path)
        except ConfigError as exc:
            log.error("the changed settings are refused, the ones before stay:\n%s", exc)  # noqa: TRY400
            return False
        return True

    def _state(self) -> tuple[int, int, int] | None:
        if self._path is None:
            return None
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino
