"""The queues by class: a storm in one never starves another. The broker makes them as they are declared here."""

import os
import socket

from kombu import Queue

from nms_workers.service import services
from nms_workers.settings import Settings

CLASSES = {
    "polls": ("poll.",),
    "actions": ("act.",),
    "edge": ("edge.",),
    "control": ("dispatch", "store", "watch"),
}


def host_name() -> str:
    """What targets call the workers of this host: `$NMS_WORKER_NAME`, else the host's name."""
    return os.environ.get("NMS_WORKER_NAME") or socket.gethostname()


def queue_names(settings: Settings) -> list[str]:
    """Every queue of the fleet, by class."""
    own = {target.worker for target in settings.targets if target.worker} | {host_name()}
    return [
        "dispatch",
        "store",
        "watch",
        *(f"poll.{kind}" for kind, one in services().items() if one.polls()),
        *(f"act.{kind}" for kind, one in services().items() if one.actions()),
        *(f"edge.{name}" for name in sorted(own)),
    ]


def queue(name: str, broker_url: str) -> Queue:
    """A durable queue; on RabbitMQ a quorum queue."""
    quorum = {"x-queue-type": "quorum"} if broker_url.startswith(("amqp", "pyamqp")) else None
    return Queue(name, routing_key=name, durable=True, queue_arguments=quorum)


def queues_of(worker_class: str, settings: Settings) -> list[str]:
    """The queues a class of worker consumes on this host: of the edge queues only this host's own."""
    elsewhere = {name for name in queue_names(settings) if name.startswith("edge.")} - {f"edge.{host_name()}"}
    return [n for n in queue_names(settings) if n.startswith(CLASSES[worker_class]) and n not in elsewhere]


def route(name: str, *_: object, **__: object) -> dict[str, str] | None:
    """The queue of an action that was sent without one (`task_routes` of Celery)."""
    prefix, action = name.rpartition(".")[::2]
    kind = prefix.removeprefix("nms.")
    known = kind != prefix and kind in services() and action in services()[kind].actions()
    return {"queue": f"act.{kind}"} if known else None
