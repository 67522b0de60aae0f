"""Redis and Valkey."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

import redis

from tests.servers.server import PASSWORD, Conf, Server, as_list


class RedisServer(Server):
    """Redis or Valkey, as the user `default` with a password; `password=""` goes without.

    Settings: https://redis.io/docs/latest/operate/oss_and_stack/management/config/; a list repeats the line.
    `arguments` follow the configuration file on the command line (`--sentinel`).
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        program: Path,
        conf: Conf,
        *,
        password: str = PASSWORD,
        arguments: Iterable[str] = (),
    ) -> None:
        self.user, self.password, self.dbname = "default", password, "0"
        self._arguments = list(arguments)
        super().__init__(name, folder, program, conf)
        login = f":{quote(password)}@" if password else ""
        self.url = f"redis://{login}{self.host}:{self.port}/{self.dbname}"

    def prepare(self) -> None:
        settings: dict[str, str | Sequence[str]] = {
            "bind": self.host,
            "port": str(self.port),
            "dir": str(self.folder),
            "save": '""',
            "appendonly": "yes",
            "appendfsync": "always",  # so that a killed server has what it acknowledged
            "enable-debug-command": "local",
        }
        if self.password:
            settings["requirepass"] = f'"{self.password}"'
        if self.name == "redis-6.2" or "--sentinel" in self._arguments:
            del settings["enable-debug-command"]  # came with 7.0
        settings |= self.conf
        lines = [f"{key} {line}" for key, value in settings.items() for line in as_list(value)]
        (self.folder / "server.conf").write_text("\n".join(lines) + "\n")

    def argv(self) -> list[str]:
        return [str(self.program), str(self.folder / "server.conf"), *self._arguments]

    def ready(self) -> bool:
        client = redis.Redis(host=self.host, port=self.port, password=self.password or None, socket_timeout=5)
        try:
            return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):  # BusyLoadingError is a ConnectionError
            return False
        finally:
            client.close()
