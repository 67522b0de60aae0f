"""What it takes to deal with jobs: the database, the settings that guards look at, and a way to the workers."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kombu.exceptions import OperationalError
from sqlalchemy import Engine

from nms_workers.jobs.job import Job
from nms_workers.settings import Settings

Publish = Callable[[Job], None]


@dataclass(frozen=True)
class Desk:
    """Passed to everything that makes, runs or ends jobs.

    Args:
        publish: sends the message that there is a job; raises kombu's OperationalError when the broker is away.
    """

    engine: Engine
    settings: Settings
    publish: Publish

    def send(self, jobs: Iterable[Job]) -> None:
        """Publish these committed jobs. With the broker away they stay as they are: the sweep sends them again."""
        for job in jobs:
            try:
                self.publish(job)
            except OperationalError:
                return
