"""HAProxy, with a frontend, a backend of the servers that a test has, and one backend that nobody answers for."""

import socket
from collections.abc import Sequence
from pathlib import Path

from nms_workers.embedded import free_port
from tests.servers.server import PASSWORD, Conf, Server, as_list


class HaproxyServer(Server):
    """HAProxy: `fe_web` at `web_port` before `be_app` with the servers app1, app2, ...; `be_dead`, where d1 is down.

    Its stats socket is at `socket` and at `tcp`, its statistics page at `url`, for `user` with `password`.

    Settings: of the section `global`; a list repeats the line. `ports` are where the servers of be_app listen; `web`
    are more lines of fe_web, `sections` more sections.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        program: Path,
        conf: Conf,
        *,
        ports: Sequence[int] = (),
        web: str = "",
        sections: str = "",
    ) -> None:
        self.user, self.password, self.dbname = "admin", PASSWORD, ""
        self.ports, self._web, self._sections = list(ports), web, sections
        self.socket = folder / "admin.sock"
        self.web_port, self.tcp_port = free_port(), free_port()
        self.tcp = f"tcp://{self.host}:{self.tcp_port}"
        super().__init__(name, folder, program, conf)
        self.url = f"http://{self.host}:{self.port}/stats"

    def prepare(self) -> None:
        settings = {
            "log": "stdout format raw local0 info",
            "stats": [
                f"socket {self.socket} mode 660 level admin",
                f"socket ipv4@{self.host}:{self.tcp_port} level admin",
                "timeout 10s",
            ],
            "maxconn": "200",
            "nbthread": "2",
            **self.conf,
        }
        lines = [f"  {key} {line}" for key, value in settings.items() for line in as_list(value)]
        servers = [f"  server app{n} {self.host}:{port} check weight 10" for n, port in enumerate(self.ports, 1)]
        text = _TEMPLATE.format(
            host=self.host,
            settings="\n".join(lines),
            web_port=self.web_port,
            web=self._web,
            servers="\n".join(servers),
            stats_port=self.port,
            auth=f"{self.user}:{self.password}",
        )
        (self.folder / "haproxy.cfg").write_text(text + self._sections)

    def argv(self) -> list[str]:
        return [str(self.program), "-db", "-f", str(self.folder / "haproxy.cfg")]

    def ready(self) -> bool:
        """Its socket answers. Whether its servers are up is shown by their checks."""
        try:
            return self.ask("show version") != ""
        except OSError:
            return False

    def ask(self, command: str) -> str:
        """What its socket answers, as socat would ask."""
        with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rb") as answer:
            connection.settimeout(5)
            connection.connect(str(self.socket))
            connection.sendall(command.encode() + b"\n")
            return answer.read().decode()


_TEMPLATE = """\
global
{settings}
defaults
  mode http
  timeout connect 1s
  timeout client 5s
  timeout server 5s
  timeout queue 1s
  timeout check 10s
frontend fe_web
  bind {host}:{web_port} name plain
  option socket-stats
{web}
  default_backend be_app
backend be_app
  balance roundrobin
  option httpchk GET /health
  default-server inter 100ms fall 2 rise 1
{servers}
backend be_dead
  default-server inter 100ms fall 1
  server d1 {host}:1 check
frontend stats
  bind {host}:{stats_port}
  stats enable
  stats uri /stats
  stats auth "{auth}"
"""
