"""A file that is touched while a worker can receive messages: what a health check looks at.

A process that lives but lost its broker stops touching it; asking the worker over the broker would cost a second of CPU
every time. The file is `<data>/run/<node name>.heartbeat`.
"""

from pathlib import Path
from typing import Any

from celery import bootsteps

from nms_workers.alive import STALE_SECONDS, stale
from nms_workers.settings import Settings, config_path

__all__ = ["EVERY_SECONDS", "STALE_SECONDS", "Heartbeat", "folder", "stale"]

EVERY_SECONDS = 2.0


def folder(settings: Settings) -> Path:
    """Where the heartbeat files lie."""
    return settings.data / "run"


class Heartbeat(bootsteps.StartStopStep):
    """Part of the consumer, once its queues are declared: stops when the broker goes, starts when it is back."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._timer: Any = None
        self._path = folder(Settings.load(config_path())) / f"{consumer.hostname}.heartbeat"

    def start(self, consumer: Any) -> None:
        """Touch now and from then on."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.touch()
        self._timer = consumer.timer.call_repeatedly(EVERY_SECONDS, self._path.touch)

    def stop(self, consumer: Any) -> None:
        """Leave the file to grow stale."""
        if self._timer:
            self._timer.cancel()
            self._timer = None

    shutdown = stop
