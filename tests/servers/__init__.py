"""Real servers for tests, by name: `create("postgresql-17", folder)`.

Each listens on the loopback interface only, keeps its data in its own folder across restarts, and writes what it has
to say to `server.log` there. A program that is not on this machine is a `ServerMissing`, which says how to get it.
"""

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
from tests.servers.server import PASSWORD, Conf, Server, ServerFailed, ServerMissing
from tests.servers.sources import GNS3, HAPROXY, POSTGRES, PROMETHEUS, REDIS, SERVERS, SURICATA, create, program
from tests.servers.sshd import SshdServer
from tests.servers.suricata import SuricataServer

__all__ = [
    "GNS3",
    "HAPROXY",
    "PASSWORD",
    "POSTGRES",
    "PROMETHEUS",
    "REDIS",
    "SERVERS",
    "SURICATA",
    "Conf",
    "DockerServer",
    "Fail2banServer",
    "Gns3Server",
    "HaproxyServer",
    "NetdataServer",
    "PodmanServer",
    "PostgresServer",
    "PrometheusServer",
    "RabbitServer",
    "RedisServer",
    "Server",
    "ServerFailed",
    "ServerMissing",
    "SshdServer",
    "SuricataServer",
    "create",
    "program",
]
