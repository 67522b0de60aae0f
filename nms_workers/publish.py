"""From shards and jobs to messages."""

import time
from collections.abc import Iterable

from celery import Celery
from kombu.exceptions import BatchPublishError, OperationalError

from nms_workers.fleet.dispatch import Shard
from nms_workers.jobs.job import Job
from nms_workers.queues import queue

_BATCH = 500
_RETRY = {"max_retries": 2, "interval_start": 0.1, "interval_step": 0.3, "interval_max": 0.5}


def publish_shards(app: Celery, shards: Iterable[Shard]) -> None:
    """Publish polls, many in one round trip. Each message expires when its next slot is due.

    Raises:
        kombu.exceptions.OperationalError: the broker is away, or went away: then some may have been published.
    """
    try:
        _publish_batch(app, shards)
    except BatchPublishError as exc:
        raise OperationalError(str(exc)) from exc


def _publish_batch(app: Celery, shards: Iterable[Shard]) -> None:
    now_ms = time.time() * 1000
    with app.producer_pool.acquire(block=True, timeout=10) as producer, producer.batch(_BATCH):
        for shard in shards:
            app.send_task(
                shard.task,
                kwargs={
                    "slots": [(target.id, due) for target, due in shard.slots],
                    "targets": [target.name for target, _ in shard.slots],
                    "manual": shard.manual,
                },
                queue=queue(shard.queue, app.conf.broker_url),
                expires=max(0.1, (shard.expires_ms - now_ms) / 1000),
                producer=producer,
                ignore_result=True,
                retry_policy=_RETRY,
            )


def publish_job(app: Celery, job: Job) -> None:
    """Say that there is a job. The message carries what a foreign producer would send; its task id is the job's id.

    Raises:
        kombu.exceptions.OperationalError: the broker is away.
    """
    app.send_task(
        job.task,
        kwargs={"target": job.target, **job.arguments},
        task_id=str(job.id),
        queue=queue(job.queue, app.conf.broker_url),
        retry_policy=_RETRY,
    )
