"""Nodes of pytest-celery that are processes: what its API asks of a container, over our fleet and our servers."""

from importlib.metadata import version
from typing import Any

from celery import Celery
from pytest_celery import CeleryTestSetup

from nms_workers.queues import queue
from tests.real.fleet import Fleet, Member
from tests.servers import Server


class ServerNode:
    """A broker."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.id = self.name = server.name

    @property
    def status(self) -> str:
        return "running" if self._server.running else "exited"

    @property
    def celeryconfig(self) -> dict[str, Any]:
        return {"url": self._server.url, "host_url": self._server.url}

    def ready(self) -> bool:
        return self._server.ready()

    def logs(self) -> str:
        return self._server.output()

    def kill(self, signal: str = "SIGKILL") -> None:
        end = self._server.kill if signal == "SIGKILL" else self._server.stop
        end()

    def restart(self, timeout: float = 0) -> None:
        self._server.restart()

    def reload(self) -> None:
        """The status is always the present one."""

    def teardown(self) -> None:
        self._server.stop()


class WorkerNode:
    """A worker of ours, of one class."""

    def __init__(self, fleet: Fleet, worker_class: str) -> None:
        self._fleet, self._class = fleet, worker_class
        self.member: Member = fleet.worker(worker_class)
        self.id = self.name = worker_class

    @property
    def status(self) -> str:
        return "running" if self.member.running else "exited"

    def version(self) -> str:
        return version("celery")

    def worker_name(self) -> str:
        return self._class

    def worker_queue(self) -> str:
        return {"polls": "poll.probe", "actions": "act.probe", "control": "watch"}[self._class]

    def ready(self) -> bool:
        return self.member.ready().running

    def logs(self) -> str:
        return self.member.words()

    def kill(self, signal: str = "SIGKILL") -> None:
        end = self.member.kill if signal == "SIGKILL" else self.member.stop
        end()

    def restart(self, timeout: float = 0) -> None:
        if self.member.running:
            self.member.stop()
        self.member = self._fleet.worker(self._class).ready()

    def reload(self) -> None:
        """The status is always the present one."""

    def teardown(self) -> None:
        if self.member.running:
            self.member.kill()


class Setup(CeleryTestSetup):
    """Sends as our own application does: to the queues as we declare them."""

    @classmethod
    def update_app_config(cls, app: Celery) -> None:
        url = app.conf.broker_url
        app.conf.update(
            task_queues=[queue(name, url) for name in ("poll.probe", "act.probe")],
            task_default_queue="act.probe",
            task_create_missing_queues=False,
            task_ignore_result=True,
        )
