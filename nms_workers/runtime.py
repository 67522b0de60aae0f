"""What one process of the fleet holds: connections, clients, the writer. Made at first use, after every fork anew."""

import os
import socket
from functools import cache, cached_property

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry
from sqlalchemy import Engine

from nms_workers.fleet.clients import Clients
from nms_workers.fleet.flight import Flights
from nms_workers.fleet.inventory import Inventory
from nms_workers.fleet.run import Runner
from nms_workers.settings import Settings, config_path
from nms_workers.settings_file import SettingsFile
from nms_workers.store.engine import make_engine
from nms_workers.store.latest import Latest
from nms_workers.store.spool import Spool
from nms_workers.store.writer import Writer
from nms_workers.transport.breaker import Breakers


def worker_name(pid: int) -> str:
    """What a process of this host is called in the ledger and in jobs: `host:pid`."""
    return f"{os.environ.get('NMS_WORKER_NAME') or socket.gethostname()}:{pid}"


class Runtime:
    """The parts, each made when it is first asked for: a process pays for what it uses.

    Args:
        settings: what to connect to.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.worker = worker_name(os.getpid())
        self._file = SettingsFile(config_path(), settings)

    def settings_now(self) -> Settings:
        """The settings as the file has them now: what was forbidden a minute ago must not be done today.

        `settings` are those this process began with, which its connections are made from.
        """
        self._file.changed()
        return self._file.settings

    @cached_property
    def engine(self) -> Engine:
        """PostgreSQL."""
        return make_engine(self.settings.database_url())

    @cached_property
    def redis(self) -> "redis.Redis":
        """Redis; answers are bytes. A dropped connection is tried again twice, then the caller is told."""
        return redis.Redis.from_url(
            self.settings.redis_url(),
            socket_timeout=5,
            socket_connect_timeout=5,
            health_check_interval=15,
            retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), 2),
            client_name="nms-workers",
        )

    @cached_property
    def inventory(self) -> Inventory:
        """The targets."""
        return Inventory(self.redis, lambda targets: self.clients.keep_only(set(targets)))

    @cached_property
    def clients(self) -> Clients:
        """The clients of this process."""
        return Clients()

    @cached_property
    def breakers(self) -> Breakers:
        """The breakers of the fleet."""
        return Breakers(self.redis)

    @cached_property
    def writer(self) -> Writer:
        """The way to the history, running."""
        settings = self.settings
        spool = Spool(settings.spool_folder, settings.spool.max_bytes)
        latest = Latest(settings.redis_url())
        writer = Writer(spool, settings.database_url(), latest, retention=settings.retention.by_table())
        writer.start()
        return writer

    @cached_property
    def runner(self) -> Runner:
        """What runs polls."""
        return Runner(Flights(self.redis, self.worker), self.breakers, self.clients, self.writer, self.worker)

    def close(self, timeout: float = 10.0) -> None:
        """Write what can still be written and let go of everything that was made."""
        made = vars(self)
        if "writer" in made:
            self.writer.close(timeout)
        if "clients" in made:
            self.clients.close()
        if "engine" in made:
            self.engine.dispose()
        if "redis" in made:
            self.redis.close()


@cache
def runtime() -> Runtime:
    """The runtime of this process, from the settings the environment names."""
    return Runtime(Settings.load(config_path()))


os.register_at_fork(after_in_child=runtime.cache_clear)
