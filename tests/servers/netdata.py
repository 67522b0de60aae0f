"""Netdata 1.37, also as a child of another one."""

import http.client
import os
import pwd
import signal
import socket
from configparser import ConfigParser
from pathlib import Path

from nms_workers.embedded import free_port
from tests.servers.server import Conf, Server

_OFF = (
    *("diskspace", "timex", "tc", "idlejitter", "checks", "cgroups", "apps", "charts.d", "python.d", "node.d", "go.d"),
    *("ebpf", "perf", "slabinfo", "fping", "nfacct", "cups", "ioping", "enable running new plugins"),
)
_STREAM_KEY = "11111111-2222-3333-4444-555555555555"
_ALARM = """\
 alarm: nms_level
    on: statsd_nms.level_gauge
  calc: $gauge
 every: 1s
  warn: $this > 50
  crit: $this > 90
 units: things
  info: the level that the tests set
    to: sysadmin
"""


class NetdataServer(Server):
    """Netdata as the user we are, with the charts of /proc, those of its own, and one that tests set: `level(60)`.

    Its alarm `nms_level` of the chart `statsd_nms.level_gauge` is WARNING above 50 and CRITICAL above 90.
    Settings: https://learn.netdata.cloud/docs/netdata-agent/configuration/netdata.conf, as `section.key`.
    `streams_to` makes it the child of another one, `hostname` is what it calls itself.
    """

    stop_signal = signal.SIGKILL  # in good order it takes 5 seconds, and it has nothing to keep

    def __init__(
        self,
        name: str,
        folder: Path,
        program: Path,
        conf: Conf,
        *,
        streams_to: "NetdataServer | None" = None,
        hostname: str = "own host",
    ) -> None:
        self.user = self.password = self.dbname = ""
        self.hostname = hostname
        self._parent = streams_to
        self._statsd_port = free_port()
        super().__init__(name, folder, program, conf)
        self.url = f"http://{self.host}:{self.port}"

    def prepare(self) -> None:
        folder = {part: self.folder / part for part in ("etc", "lib", "cache", "log", "stock")}
        for path in (*folder.values(), folder["etc"] / "health.d", folder["lib"] / "registry"):
            path.mkdir(exist_ok=True)
        (folder["etc"] / "health.d" / "nms.conf").write_text(_ALARM)
        settings = {
            "global.run as user": pwd.getpwuid(os.geteuid()).pw_name,
            "global.hostname": self.hostname,
            "global.process scheduling policy": "keep",
            "global.OOM score": "keep",
            "directories.home": str(folder["lib"]),
            "directories.config": str(folder["etc"]),
            "directories.cache": str(folder["cache"]),
            "directories.lib": str(folder["lib"]),
            "directories.log": str(folder["log"]),
            "directories.web": "/usr/share/netdata/web",
            "directories.health config": str(folder["etc"] / "health.d"),
            "directories.stock health config": str(folder["stock"]),
            "db.mode": "alloc",
            "db.retention": "600",
            "db.update every": "1",
            "web.bind to": f"{self.host}:{self.port}",
            "web.web server threads": "2",
            "registry.enabled": "no",
            "cloud.enabled": "no",
            "ml.enabled": "no",
            "health.script to execute on alarm": "/bin/true",
            "plugins.proc": "yes",
            "plugins.statsd": "yes",
            "statsd.bind to": f"udp:{self.host}:{self._statsd_port}",
            "statsd.update every (flushInterval)": "1",
            **{f"plugins.{plugin}": "no" for plugin in _OFF},
        }
        sections: dict[str, dict[str, str]] = {}
        for key, value in {**settings, **self.conf}.items():
            section, _, name = key.partition(".")
            sections.setdefault(section, {})[name] = str(value)
        _write(self.folder / "netdata.conf", sections)
        parent = {"enabled": "yes", "default memory mode": "alloc", "default postpone alarms on connect seconds": "0"}
        stream = {_STREAM_KEY: parent}
        if self._parent is not None:
            to = f"{self._parent.host}:{self._parent.port}"
            stream["stream"] = {"enabled": "yes", "destination": to, "api key": _STREAM_KEY}
        _write(folder["etc"] / "stream.conf", stream)

    def argv(self) -> list[str]:
        return [str(self.program), "-D", "-c", str(self.folder / "netdata.conf"), "-P", str(self.folder / "pid")]

    def ready(self) -> bool:
        """It has the chart that tests set, or does not let us in, as it was told."""
        self.level(0)
        connection = http.client.HTTPConnection(self.host, self.port, timeout=5)
        try:
            connection.request("GET", "/api/v1/allmetrics?format=json&filter=statsd_nms.*")
            answer = connection.getresponse()
            return answer.status == 403 or b"level_gauge" in answer.read()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def level(self, value: float) -> None:
        """Set the chart that the alarm looks at; it is there a second or two later."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(f"nms.level:{value}|g".encode(), (self.host, self._statsd_port))

    @property
    def api_key(self) -> Path:
        """The file with the key of its management API."""
        return self.folder / "lib" / "netdata.api.key"


def _write(path: Path, sections: dict[str, dict[str, str]]) -> None:
    written = ConfigParser(interpolation=None)
    written.optionxform = str  # type: ignore[assignment, method-assign] - keys of Netdata know capitals
    written.read_dict(sections)
    with path.open("w") as file:
        written.write(file)
