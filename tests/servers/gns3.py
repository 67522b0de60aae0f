"""GNS3 2.2 and 3.0, with stand-ins for uBridge and VPCS."""

import http.client
import sys
from collections.abc import Sequence
from configparser import ConfigParser
from pathlib import Path

from tests.servers.server import PASSWORD, Conf, Server


class Gns3Server(Server):
    """GNS3, with stand-ins for the programs that make its nodes: uBridge carries nothing, VPCS only greets.

    Settings: https://docs.gns3.com/docs/using-gns3/administration/gns3-server-configuration-file/, as `Section.key`, or
    `key` alone in the section Server. `standins` names those that are there.
    """

    def __init__(
        self, name: str, folder: Path, program: Path, conf: Conf, *, standins: Sequence[str] = ("ubridge", "vpcs")
    ) -> None:
        self.user, self.password, self.dbname = "admin", PASSWORD, ""
        self.version = name.removeprefix("gns3-")
        self._standins = standins
        super().__init__(name, folder, program, conf)
        self.url = f"http://{self.host}:{self.port}"

    def prepare(self) -> None:
        settings: dict[str, str | Sequence[str]] = {
            "host": self.host,
            "port": str(self.port),
            "report_errors": "False",
            "enable_hardware_acceleration": "False",
            "install_builtin_appliances": "False",
        }
        first = 10_000 + self.port % 400 * 50  # servers side by side must not give the same ports to their nodes
        for kind in ("console", "udp"):
            settings |= {f"{kind}_start_port_range": str(first), f"{kind}_end_port_range": str(first + 49)}
        for kind in ("images", "projects", "appliances", "symbols", "configs", "resources"):
            settings[f"{kind}_path"] = str(self.folder / kind)
        for program in ("ubridge", "vpcs"):
            section = "Server" if program == "ubridge" else "VPCS"
            settings[f"{section}.{program}_path"] = str(self._program(program))
        settings |= self._login() | self.conf
        written = ConfigParser(interpolation=None)
        for key, value in settings.items():
            section, _, name = key.rpartition(".")
            written.read_dict({section or "Server": {name: value}})
        with (self.folder / "gns3_server.conf").open("w") as file:
            written.write(file)

    def argv(self) -> list[str]:
        return [str(self.program), "--config", str(self.folder / "gns3_server.conf")]

    def env(self) -> dict[str, str]:
        return super().env() | {"LC_ALL": "C.UTF-8", "XDG_CONFIG_HOME": str(self.folder / "config")}

    def ready(self) -> bool:
        """It answers, with 401 where it wants to know who asks."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=5)
        try:
            connection.request("GET", f"/v{self.version[0]}/version")
            return connection.getresponse().status in (200, 401)
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _login(self) -> dict[str, str]:
        if self.version.startswith("2"):
            return {"auth": "True", "user": self.user, "password": self.password}
        secrets = self.folder / "secrets"
        secrets.mkdir(exist_ok=True)  # it ends without
        return {
            "secrets_dir": str(secrets),
            "Controller.default_admin_username": self.user,
            "Controller.default_admin_password": self.password,
        }

    def _program(self, name: str) -> Path:
        """Where a stand-in is, or would be, as an executable of its own."""
        path = self.folder / "bin" / name
        if name in self._standins:
            path.parent.mkdir(exist_ok=True)
            source = Path(__file__).parents[1] / "services" / "gns3" / "standins" / f"{name}.py"
            path.write_text(f"#!{sys.executable}\n{source.read_text()}")
            path.chmod(0o755)
        return path
