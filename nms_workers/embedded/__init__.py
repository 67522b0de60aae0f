"""PostgreSQL and Valkey that start with the program when none is configured.

Each lives in a folder of its own: data, generated password, port, lock. Here they are prepared and described;
`nms_workers.supervisor` runs them.
"""

from nms_workers.embedded.folder import free_port
from nms_workers.embedded.postgresql import Postgres
from nms_workers.embedded.redis import Redis
from nms_workers.embedded.unprivileged import unprivileged

__all__ = ["Postgres", "Redis", "free_port", "unprivileged"]
