"""PostgreSQL, also as a standby."""

import os
import signal
from pathlib import Path
from urllib.parse import quote

import psycopg

from nms_workers.embedded import unprivileged
from tests.servers.server import PASSWORD, Conf, Server, run


class PostgresServer(Server):
    """PostgreSQL. `standby_of` makes a streaming standby of another one.

    Settings: https://www.postgresql.org/docs/current/runtime-config.html
    """

    stop_signal = signal.SIGINT  # "fast": does not wait for clients

    def __init__(
        self, name: str, folder: Path, program: Path, conf: Conf, *, standby_of: "PostgresServer | None" = None
    ) -> None:
        self.user, self.password, self.dbname = "nms", PASSWORD, "nms"
        self.bin = program.parent
        self.data = folder / "data"
        self._user = unprivileged(program)
        self._primary = standby_of
        super().__init__(name, folder, program, conf)
        self.url = f"postgresql://{self.user}:{quote(self.password)}@{self.host}:{self.port}/{self.dbname}"

    def prepare(self) -> None:
        secret = self.folder / "password"
        secret.write_text(self.password)
        secret.chmod(0o600)
        self._own()
        if self._primary is not None:
            self._run("pg_basebackup", "-D", str(self.data), "-d", self._primary.url, "-R", "-c", "fast")
            return
        options = ["-E", "UTF8", "--locale=C", "-A", "scram-sha-256", f"--pwfile={secret}", "--no-sync"]
        self._run("initdb", "-D", str(self.data), "-U", self.user, *options)
        create = "create database nms;\n"
        self._run("postgres", "--single", "-c", "exit_on_error=on", "-D", str(self.data), "postgres", stdin=create)

    def argv(self) -> list[str]:
        settings: dict[str, object] = {
            "listen_addresses": self.host,
            "port": self.port,
            "unix_socket_directories": "",
            "shared_preload_libraries": "pg_stat_statements" if self.has_statements else "",
            "fsync": "off",  # the system does not crash here, only the server
            "timezone": "UTC",
            "log_timezone": "UTC",
            **self.conf,
        }
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        return [*self._user.prefix, str(self.program), "-D", str(self.data), *options]

    @property
    def has_statements(self) -> bool:
        """Whether this build carries pg_stat_statements."""
        libraries = self._run("pg_config", "--pkglibdir").strip()
        return (Path(libraries) / "pg_stat_statements.so").exists()

    def ready(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def _own(self) -> None:
        if self.folder.stat().st_uid != self._user.uid:
            for path in (self.folder, *self.folder.iterdir()):
                os.chown(path, self._user.uid, self._user.gid)

    def _run(self, tool: str, *arguments: str, stdin: str = "") -> str:
        argv = [*self._user.prefix, str(self.bin / tool), *arguments]
        return run(argv, cwd=self.folder, env=self.env(), stdin=stdin)
