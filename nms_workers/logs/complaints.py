"""What is wrong, told once when it begins and then once a minute: whoever reads our own log ships it, too."""

import logging
import time

log = logging.getLogger(__name__)

EVERY_SECONDS = 60.0
_KEPT = 1000


class Complaints:
    """Remembers what was told when. For one thread."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}

    def tell(self, what: str, why: object) -> None:
        """Log this, unless the same `what` was told a moment ago."""
        now = time.monotonic()
        if now - self._told.get(what, -EVERY_SECONDS) < EVERY_SECONDS:
            return
        if len(self._told) >= _KEPT:
            self._told.clear()
        self._told[what] = now
        log.warning("%s: %s", what, why)

    def over(self, what: str) -> None:
        """It is well again."""
        if self._told.pop(what, None) is not None:
            log.info("%s: it is well again", what)
