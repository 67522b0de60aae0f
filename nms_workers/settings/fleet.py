"""Sections of the fleet itself: where it keeps what, for how long, and how much runs at once."""

from datetime import timedelta
from pathlib import Path

from pydantic import (
    Field,
)

from nms_workers.settings.section import Duration, Section
from nms_workers.transport.secret import Secret


class Database(Section):
    """PostgreSQL: the history. Default: $NMS_DATABASE_URL, else the one that `nms-workers up` starts."""

    url: Secret | None = None


class Redis(Section):
    """Redis: latest state, locks, and the broker unless another is named. Default: $NMS_REDIS_URL, else as above."""

    url: Secret | None = None


class Broker(Section):
    """Where Celery's messages live: `redis://...`, or `amqp://...` for RabbitMQ with quorum queues."""

    url: Secret | None = None


class Workers(Section):
    """How much runs at once in one process of each class."""

    poll_threads: int = Field(default=20, ge=1, le=500)
    control_threads: int = Field(default=4, ge=1, le=50)
    action_processes: int = Field(default=2, ge=1, le=64)
    edge_processes: int = Field(default=2, ge=1, le=64)


class Retention(Section):
    """How long history is kept."""

    samples: Duration = 30 * 86_400.0
    rollups_5m: Duration = 180 * 86_400.0
    rollups_1h: Duration = 730 * 86_400.0
    events: Duration = 90 * 86_400.0
    flows: Duration = 86_400.0
    flow_rollups_1m: Duration = 2 * 86_400.0
    flow_rollups_5m: Duration = 30 * 86_400.0
    flow_rollups_1h: Duration = 400 * 86_400.0
    poll_runs: Duration = 86_400.0

    def by_table(self) -> dict[str, timedelta]:
        """The same by the name of the table."""
        tables = {"samples": "sample_blocks", "flows": "flow_blocks"}
        tables |= {f"flow_rollups_{level}": f"flow_rollup_blocks_{level}" for level in ("1m", "5m", "1h")}
        return {tables.get(name, name): timedelta(seconds=getattr(self, name)) for name in type(self).model_fields}


class Spool(Section):
    """Where finished polls wait for PostgreSQL: a folder shared by the workers of a host, and how much it may hold."""

    folder: Path | None = None
    max_bytes: int = Field(default=2_000_000_000, ge=1_000_000)


class Web(Section):
    """Where Flower listens, and the metrics that processes are told to serve (`--metrics PORT`)."""

    host: str = "127.0.0.1"
    flower_port: int = Field(default=5555, ge=0, le=65_535)
    flower_auth: Secret | None = None
    metrics_host: str = "127.0.0.1"
