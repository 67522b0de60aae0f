"""The Celery tasks: one for each poll and each action of each service, and the fleet's own. They only call.

A name is `nms.<service>.<poll or action>`. Return values are not stored; they are what Flower shows.
"""

import logging
import time
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import redis
from celery import Celery, Task
from celery.exceptions import TimeLimitExceeded, WorkerLostError
from celery.signals import task_failure, worker_process_shutdown, worker_ready, worker_shutdown
from celery.worker.request import Request
from kombu.exceptions import OperationalError
from sqlalchemy import Connection

from nms_workers.change import PROPOSED
from nms_workers.errors import NmsError, Skipped
from nms_workers.fleet.audit import audit
from nms_workers.fleet.dispatch import Dispatcher, Shard
from nms_workers.fleet.health import Asked, Restart, Round
from nms_workers.jobs.desk import Desk
from nms_workers.jobs.job import Job, find
from nms_workers.jobs.restarts import restart
from nms_workers.jobs.run import run as run_job
from nms_workers.jobs.submit import record
from nms_workers.jobs.sweep import end_lease, sweep
from nms_workers.jobs.wish import Wish
from nms_workers.publish import publish_job, publish_shards
from nms_workers.queues import CLASSES, queue
from nms_workers.runtime import runtime, worker_name
from nms_workers.service import Action, Client, services
from nms_workers.store.flow_upkeep import roll_up_flows
from nms_workers.store.partitions import maintain
from nms_workers.store.rollups import roll_up

log = logging.getLogger(__name__)


def register(app: Celery) -> None:
    """Give the application its tasks."""
    for kind, one in services().items():
        for name in one.polls():
            _poll_task(app, kind, name)
        for name, declared in one.actions().items():
            _action_task(app, kind, name, declared)
    for task, function in _FLEET_TASKS.items():
        app.task(name=task, bind=True, send_events=task not in _UNSEEN)(function)


def _poll_task(app: Celery, kind: str, poll: str) -> None:
    @app.task(name=f"nms.{kind}.{poll}")
    def poll_targets(slots: list[tuple[int, int]], targets: list[str], manual: bool = False) -> dict[str, str]:
        """Poll these slots, (target id, due in ms); `targets` only tells people which they are."""
        here = runtime()
        due = dict(slots)
        picked = [(target, due[target.id]) for target in here.inventory.pick(list(due))]
        return here.runner.run(kind, poll, picked, manual=manual)


class JobRequest(Request):
    """An action as the worker's main process sees it, which learns when the process that ran it is no more."""

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """It failed: maybe because its process died."""
        super().on_failure(exc_info, send_failed_event, return_ok)
        exc = getattr(exc_info.exception, "exc", exc_info.exception)  # wrapped where it came with a traceback
        if isinstance(exc, WorkerLostError | TimeLimitExceeded):
            self._give_back()

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """The worker stops, and has waited long enough for it."""
        super().cancel(pool, signal, emit_retry)
        self._give_back()

    def _give_back(self) -> None:
        """Have the job run again at once. The main process has no database: the sweep is asked."""
        try:
            self.app.send_task(
                "nms.jobs.sweep",
                kwargs={"job": str(_job_id(self.id)), "worker": worker_name(self.worker_pid)},
                queue=queue("watch", self.app.conf.broker_url),
                retry=False,
            )
        except OperationalError:
            log.warning("job %s waits until its lease runs out: the broker is away", self.id)


def _job_id(task_id: str) -> uuid.UUID:
    """The job of a task. Ours are named alike; one of another producer may have any id."""
    try:
        return uuid.UUID(task_id)
    except ValueError:
        return uuid.uuid5(uuid.NAMESPACE_OID, task_id)


def _action_task(app: Celery, kind: str, action: str, declared: Action) -> None:
    @app.task(
        name=f"nms.{kind}.{action}",
        bind=True,
        acks_late=True,
        Request=JobRequest,
        soft_time_limit=declared.deadline,
        time_limit=declared.deadline + 10,
    )
    def act(self: Task, target: str, **arguments: Any) -> dict[str, Any]:
        """Run the job whose id is the task's id; a task of a producer that wrote no job becomes one."""
        desk, job_id = desk_of(self.app), _job_id(self.request.id)
        job = find(desk.engine, job_id)
        if job is None:
            wish = Wish(kind, action, target, arguments, requested_by=self.request.origin or "celery")
            try:
                job = record(desk, wish, job_id)
            except NmsError as exc:
                return {"target": target, "state": "refused", "error": str(exc)}
        came_by = (self.request.delivery_info or {}).get("routing_key")
        if job.edge and not job.done and came_by != job.queue:  # from a producer that knows nothing of edges
            desk.send([job])
            return {"target": target, "state": job.state, "error": f"sent on to {job.queue}"}
        job = run_job(desk, job, runtime().worker, _client_of)
        if job.good and PROPOSED in (job.after or {}):
            runtime().inventory.outdate()
        return {"target": target, "state": job.state, "error": job.error}


def desk_of(app: Celery) -> Desk:
    """What it takes to deal with jobs in this process."""
    here = runtime()
    return Desk(here.engine, here.settings_now(), lambda job: publish_job(app, job))


def _client_of(job: Job) -> Client:
    here = runtime()
    try:
        found = [t for t in here.inventory.all().values() if (t.service, t.name) == (job.service, job.target)]
        for target in found:
            here.breakers.allow(str(target), services()[job.service].breaker)
            return here.clients.get(target)
    except redis.RedisError as exc:
        raise Skipped(f"where {job.target} is cannot be told: Redis does not answer ({type(exc).__name__})") from exc
    raise NmsError(f"the {job.service} target {job.target!r} is not active any more")


def _dispatch(task: Task, service: str, poll: str) -> int:
    """Publish what is due of one poll."""
    here = runtime()

    def send(shards: Iterable[Shard]) -> None:
        publish_shards(task.app, shards)

    return Dispatcher(here.inventory, here.redis, send).dispatch(service, poll, int(time.time() * 1000))


def _audit(task: Task) -> dict[str, int]:
    """Account for slots that left no trace."""
    here = runtime()
    return audit(here.engine, here.redis, datetime.now(UTC), here.settings.retention.by_table())


def _maintain(task: Task) -> None:
    """Make partitions ahead and drop what is older than the retention."""
    here = runtime()
    maintain(here.engine, datetime.now(UTC), here.settings.retention.by_table())


def _roll_up(task: Task) -> None:
    """Bring the roll-ups up to now."""
    here = runtime()
    roll_up(here.engine, datetime.now(UTC))
    settings = here.settings
    roll_up_flows(here.engine, keep=settings.flows.conversations, retention=settings.retention.by_table())


def _sweep(task: Task, job: str | None = None, worker: str = "") -> int:
    """Publish jobs nobody picked up. `job`: one whose process, `worker`, just died."""
    desk = desk_of(task.app)
    if job is not None:
        end_lease(desk, uuid.UUID(job), worker)
    return sweep(desk)


def _health(task: Task) -> dict[str, int]:
    """Look at the health of every target, and have containers restarted that are ill."""
    here, desk = runtime(), desk_of(task.app)
    asked: list[uuid.UUID] = []

    def ask(connection: Connection, wanted: Restart) -> Asked:
        answer = restart(connection, desk.settings, wanted)
        asked.append(answer.job)
        return answer

    counts = Round(here.engine, here.inventory, here.clients, desk.settings, here.writer, here.worker, ask).run()
    desk.send(job for one in asked if (job := find(desk.engine, one)) and not job.done)
    return counts


_FLEET_TASKS = {
    "nms.dispatch": _dispatch,
    "nms.audit": _audit,
    "nms.maintain": _maintain,
    "nms.roll_up": _roll_up,
    "nms.jobs.sweep": _sweep,
    "nms.health": _health,
}
_UNSEEN = {
    "nms.dispatch",
    "nms.audit",
    "nms.jobs.sweep",
    "nms.health",
}  # they come so often that Flower would show nothing else


@worker_ready.connect
def _drain(sender: Any, **_: Any) -> None:
    """What a dead neighbour left in the spool is written also when nothing is due here."""
    if any(name.startswith(CLASSES["polls"]) for name in sender.app.amqp.queues.consume_from):
        runtime().writer.start()


@worker_shutdown.connect
@worker_process_shutdown.connect
def _close(**_: Any) -> None:
    if runtime.cache_info().currsize:
        runtime().close()


@task_failure.connect
def _forget_traceback(sender: Task, exception: BaseException, **_: Any) -> None:
    log.warning("task %s failed: %s", sender.name, type(exception).__name__)
