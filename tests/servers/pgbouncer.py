"""PgBouncer, pooling by transaction."""

from pathlib import Path
from urllib.parse import quote

import psycopg

from nms_workers.embedded import unprivileged
from tests.servers.postgresql import PostgresServer
from tests.servers.server import Conf, Server, as_list


class PgBouncerServer(Server):
    """PgBouncer in front of a PostgreSQL of ours, as the same user. It has fewer connections than its clients.

    Settings: https://www.pgbouncer.org/config.html, section pgbouncer.

    Args:
        to: the server behind it, running.
    """

    def __init__(self, name: str, folder: Path, program: Path, conf: Conf, *, to: PostgresServer) -> None:
        self.user, self.password, self.dbname = to.user, to.password, to.dbname
        self._to = to
        self._prefix = unprivileged(program).prefix
        super().__init__(name, folder, program, conf)
        login = f"{self.user}:{quote(self.password)}"
        self.url = f"postgresql://{login}@{self.host}:{self.port}/{self.dbname}?pgbouncer=true"

    def prepare(self) -> None:
        settings = {
            "listen_addr": self.host,
            "listen_port": str(self.port),
            "unix_socket_dir": "",
            "auth_type": "scram-sha-256",
            "auth_file": str(self.folder / "users"),
            "pool_mode": "transaction",
            "default_pool_size": "2",
            "max_client_conn": "200",
        } | self.conf
        lines = [f"{key} = {line}" for key, value in settings.items() for line in as_list(value)]
        behind = f"{self.dbname} = host={self._to.host} port={self._to.port}"
        (self.folder / "users").write_text(f'"{self.user}" "{self.password}"\n')
        text = "\n".join(["[databases]", behind, "[pgbouncer]", *lines])
        (self.folder / "pgbouncer.ini").write_text(text + "\n")
        for path in (self.folder, *self.folder.iterdir()):
            path.chmod(0o755 if path.is_dir() else 0o644)

    def argv(self) -> list[str]:
        return [*self._prefix, str(self.program), str(self.folder / "pgbouncer.ini")]

    def ready(self) -> bool:
        try:
            with psycopg.connect(self.url.partition("?")[0], connect_timeout=5) as connection:
                return connection.execute("SELECT 1").fetchone() == (1,)
        except psycopg.OperationalError:
            return False
