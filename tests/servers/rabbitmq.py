"""RabbitMQ."""

import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from nms_workers.child import end_with_parent
from nms_workers.embedded import free_port
from tests.servers.server import PASSWORD, Conf, Server, which


class RabbitServer(Server):
    """RabbitMQ, with a port mapper (epmd) of its own that ends with it.

    Settings: https://www.rabbitmq.com/docs/configure; `plugins` are enabled from the start.
    """

    def __init__(self, name: str, folder: Path, program: Path, conf: Conf, *, plugins: Sequence[str] = ()) -> None:
        self.user, self.password, self.dbname = "nms", PASSWORD, "/"
        self._plugins = plugins
        self._mapper: subprocess.Popen[bytes] | None = None
        self._mapper_port, self._cluster_port = free_port(), free_port()
        super().__init__(name, folder, program, conf)
        self.url = f"amqp://{self.user}:{quote(self.password)}@{self.host}:{self.port}//"

    def prepare(self) -> None:
        settings = {
            "listeners.tcp.1": f"{self.host}:{self.port}",
            "default_user": self.user,
            "default_pass": self.password,
            "vm_memory_high_watermark.absolute": "512MB",
            "disk_free_limit.absolute": "50MB",
            "log.console": "true",
            **self.conf,
        }
        lines = [f"{key} = {value}" for key, value in settings.items()]
        (self.folder / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
        (self.folder / "enabled_plugins").write_text(f"[{','.join(self._plugins)}].\n")

    def argv(self) -> list[str]:
        return [str(self.program)]

    def env(self) -> dict[str, str]:
        return super().env() | {
            "LC_ALL": "C.UTF-8",
            "RABBITMQ_NODENAME": "nms@localhost",
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_DIST_PORT": str(self._cluster_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +sbwt none",
            "ERL_EPMD_PORT": str(self._mapper_port),
            "ERL_EPMD_ADDRESS": self.host,
            "RUNNING_UNDER_SYSTEMD": "true",  # the start script becomes the server, so that it gets our signals
        }

    def start(self) -> None:
        if self._mapper is None:
            argv = [which("epmd", self.name), "-port", str(self._mapper_port), "-address", self.host]
            self._mapper = subprocess.Popen(
                argv,
                start_new_session=True,
                stderr=subprocess.DEVNULL,
                preexec_fn=end_with_parent(),  # noqa: PLW1509 - as above
            )
        super().start()

    def ready(self) -> bool:
        """The listener is the last thing that RabbitMQ starts; it greets a wrong header with its own."""
        try:
            with socket.create_connection((self.host, self.port), timeout=5) as connection:
                connection.sendall(b"AMQP\x00\x00\x00\x00")
                return connection.recv(4) == b"AMQP"
        except OSError:
            return False

    def _end(self, how: signal.Signals) -> None:
        try:
            super()._end(how)
        finally:
            if self._mapper is not None:
                self._mapper.kill()
                self._mapper.wait()
                self._mapper = None
