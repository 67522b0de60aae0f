"""The Celery application: queues, serialisation, and which class of task goes where.

Polls ack early and expire; actions ack late and are claimed in PostgreSQL (see docs/architecture.md, "Two classes of
task"). `celery -A nms_workers.app` works as everywhere; `nms-workers worker` starts the right pool for each class.
"""

import logging
from typing import Any

from celery import Celery
from celery.signals import after_setup_logger

from beat_schedule import beat_schedule
from nms_workers.heartbeat import Heartbeat
from nms_workers.queues import queue, queue_names, route
from nms_workers.settings import Settings, config_path
from nms_workers.tasks import register

# Longer than any action may take, waiting in the worker included: a message that is not acked by then runs again.
_VISIBILITY_SECONDS = 900


def create_app(settings: Settings) -> Celery:
    """The application for these settings; nothing is connected yet."""
    url = settings.broker_url()
    app = Celery("nms_workers", broker=url)
    app.conf.update(
        accept_content=["json"],
        result_accept_content=["json"],
        task_serializer="json",
        result_serializer="json",
        enable_utc=True,
        task_ignore_result=True,
        task_track_started=True,
        task_create_missing_queues=False,
        task_default_queue="watch",
        task_queues=[queue(name, url) for name in queue_names(settings)],
        task_routes=(route,),
        task_reject_on_worker_lost=False,  # the sweep of the jobs runs them again, a bounded number of times
        worker_prefetch_multiplier=1,
        worker_send_task_events=True,
        worker_enable_remote_control=True,
        worker_hijack_root_logger=True,
        worker_soft_shutdown_timeout=8,  # actions; always waited in full, and Docker kills after 10
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_detect_quorum_queues=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=5,
        broker_heartbeat=10,
        broker_transport_options=_transport_options(url),
        control_queue_expires=60.0,
        beat_scheduler="nms_workers.scheduler:LeaderScheduler",
        beat_max_loop_interval=1,
        beat_schedule=beat_schedule(settings),
    )
    app.steps["consumer"].add(Heartbeat)
    register(app)
    return app


def _transport_options(url: str) -> dict[str, Any]:
    if not url.startswith(("redis", "sentinel")):
        return {"confirm_publish": True}
    return {
        "visibility_timeout": _VISIBILITY_SECONDS,
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        "socket_timeout": 30,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "client_name": "nms-workers",
    }


@after_setup_logger.connect
def _quiet(loglevel: int, **_: Any) -> None:
    """Celery tells each message's coming and going; the ledger and Flower do that better. State changes are logged."""
    if loglevel > logging.DEBUG:
        for name in ("celery.beat", "celery.worker.strategy", "celery.app.trace"):
            logging.getLogger(name).setLevel(logging.WARNING)


def __getattr__(name: str) -> Celery:
    """`app`, made when it is first asked for, so that importing this module reads no settings."""
    if name == "app":
        made = create_app(Settings.load(config_path()))
        globals()["app"] = made
        return made
    raise AttributeError(name)
