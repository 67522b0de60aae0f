"""A registry of images, which lets the user `nms` in with our password."""

import http.client
from pathlib import Path

import yaml

from tests.servers.server import PASSWORD, Conf, Server

_HASH = "$2b$04$I23R8rjaZtmoqhCcsUDvqu/h291mjlpgLRtO2vXeYoz1dSrP3D7Si"  # bcrypt of PASSWORD


class RegistryServer(Server):
    """docker-registry at `address`; engines take any on 127.0.0.0/8 without TLS.

    Settings: https://distribution.github.io/distribution/about/configuration/, by section.
    """

    def __init__(self, name: str, folder: Path, program: Path, conf: Conf) -> None:
        self.user, self.password, self.dbname = "nms", PASSWORD, ""
        super().__init__(name, folder, program, conf)
        self.address = f"{self.host}:{self.port}"
        self.url = f"http://{self.address}"

    def prepare(self) -> None:
        (self.folder / "users").write_text(f"nms:{_HASH}\n")
        settings = {
            "version": "0.1",
            "storage": {"filesystem": {"rootdirectory": str(self.folder / "data")}},
            "http": {"addr": f"{self.host}:{self.port}"},
            "auth": {"htpasswd": {"realm": "tests", "path": str(self.folder / "users")}},
        }
        (self.folder / "config.yml").write_text(yaml.safe_dump(settings | self.conf))

    def argv(self) -> list[str]:
        return [str(self.program), "serve", str(self.folder / "config.yml")]

    def ready(self) -> bool:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=5)
        try:
            connection.request("GET", "/v2/")
            return connection.getresponse().status == 401
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
