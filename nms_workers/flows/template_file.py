"""Templates outlive us in a file: a restarted collector reads data at once, without waiting for exporters to say again
what their data looks like, which takes them up to half an hour.
"""

import logging
import os
import time
from pathlib import Path

import msgspec

from nms_workers.services.flows.templates import Templates

log = logging.getLogger(__name__)

EVERY_SECONDS = 1.0
MAX_BYTES = 256 << 20


class TemplateFile:
    """The file of one process, and those of its neighbours who share its ports. For one thread.

    Args:
        folder: made if missing.
        number: of this process among those that share its ports. What an exporter sends may come to another of them
            after a restart, so each reads the files of all.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self._folder, self._path = folder, folder / f"templates-{number}.json"
        self._changed = False
        self._next = 0.0
        self._failing = False

    def load(self, templates: Templates) -> int:
        """Take over what there is. How many templates were taken; a file that cannot be read is said and left out."""
        taken = 0
        for path in sorted(self._folder.glob("templates-*.json"), key=lambda one: one == self._path):
            try:
                with path.open("rb") as file:
                    taken += templates.load(msgspec.json.decode(file.read(MAX_BYTES)))
            except (OSError, ValueError) as exc:
                log.warning("templates cannot be read from %s, exporters will tell them again: %s", path, exc)
        return taken

    def changed(self) -> None:
        """There is something to be written."""
        self._changed = True

    def write(self, templates: Templates, *, last: bool = False) -> None:
        """Write what changed, in place of the old file as a whole; not more often than once in `EVERY_SECONDS`."""
        now = time.monotonic()
        if not self._changed or (now < self._next and not last):
            return
        self._next = now + EVERY_SECONDS
        fresh = self._path.with_suffix(".new")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with fresh.open("wb") as file:
                file.write(msgspec.json.encode(templates.dump()))
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
        except OSError as exc:
            if not self._failing:
                log.error("templates cannot be kept in %s, it is tried again: %s", self._path, exc)  # noqa: TRY400
            self._failing = True
            return
        self._changed = self._failing = False
