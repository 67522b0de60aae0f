"""What beat does and how often: one entry for each poll of each service, and the housekeeping of the fleet.

An entry does not poll; it asks which targets are due. It runs every few seconds, so that the targets of one poll are
spread evenly over its interval, each at an offset of its own.
"""

from typing import Any

from nms_workers.fleet.slots import tick
from nms_workers.service import services
from nms_workers.settings import Settings

HOUSEKEEPING = {
    "audit": {"task": "nms.audit", "schedule": 10.0, "options": {"queue": "watch", "expires": 10}},
    "jobs.sweep": {"task": "nms.jobs.sweep", "schedule": 5.0, "options": {"queue": "watch", "expires": 5}},
    "roll_up": {"task": "nms.roll_up", "schedule": 60.0, "options": {"queue": "store", "expires": 60}},
    "health": {"task": "nms.health", "schedule": 30.0, "options": {"queue": "watch", "expires": 30}},
    "maintain": {"task": "nms.maintain", "schedule": 600.0, "options": {"queue": "store", "expires": 600}},
}


def beat_schedule(settings: Settings) -> dict[str, dict[str, Any]]:
    """The entries of beat, by name."""
    entries: dict[str, dict[str, Any]] = dict(HOUSEKEEPING)
    often = settings.health.every
    entries["health"] = HOUSEKEEPING["health"] | {"schedule": often, "options": {"queue": "watch", "expires": often}}
    for kind, service in services().items():
        for name, poll in service.polls().items():
            every = settings.every.get(f"{kind}.{name}", poll.every)
            shortest = min([every, *(t.every[name] for t in settings.targets if t.service == kind and name in t.every)])
            entries[f"{kind}.{name}"] = {
                "task": "nms.dispatch",
                "schedule": tick(shortest),
                "kwargs": {"service": kind, "poll": name},
                "options": {"queue": "dispatch", "expires": 2 * tick(shortest)},
            }
    return entries
