"""What polling SNMP costs, all told: agents on loopback, the real queue, a real worker, the real database.

CPU seconds are those of all processes of the worker, of PostgreSQL and of Redis, helpers like the WAL writer included;
the agents and this process, which only asks and looks, are left out. A varbind counts once it is a value in the
database: names, which are read along, count as nothing. What others do with such agents is measured in the same run:
pysnmp's bare bulk walk and Net-SNMP's `snmpbulkwalk`, where every varbind counts as soon as it is decoded.
"""

import asyncio
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import psycopg
from psycopg import sql
from sqlalchemy import func, select, text

from nms_workers.app import create_app
from nms_workers.bench.snmp_agents import COLUMNS
from nms_workers.embedded import Postgres, Redis
from nms_workers.errors import NmsError
from nms_workers.fleet.dispatch import shards
from nms_workers.fleet.flight import STARTED
from nms_workers.fleet.inventory import Target
from nms_workers.fleet.targets import sync
from nms_workers.heartbeat import folder as heartbeats
from nms_workers.publish import publish_shards
from nms_workers.runtime import runtime
from nms_workers.service import service
from nms_workers.services.snmp.client import SnmpClient
from nms_workers.services.snmp.target import SnmpTarget
from nms_workers.settings import Settings
from nms_workers.store.latest import latest_key
from nms_workers.store.migrations import upgrade
from nms_workers.store.schema import poll_runs, series
from nms_workers.supervisor import Process, Supervisor

POLL, WIDTH = "interfaces", "snmp_interface_counter_bits"
TABLES = ("1.3.6.1.2.1.2.2.1", "1.3.6.1.2.1.31.1.1.1")
WARM = 2  # rounds before those that count: devices are planned, series entered
AT_ONCE = 400  # targets that are due at the same time; in a fleet they are spread over the interval
ROUND_SECONDS = 900.0  # the first rounds enter millions of series
REPETITIONS = 50  # of all three: an answer still fits into one Ethernet frame
BARE_SECONDS = 3.0  # of CPU that each of the others is measured for
_COMMUNITY = "NMS_BENCH_COMMUNITY"


class BenchError(NmsError):
    """The measurement cannot be made here."""


@dataclass
class Cost:
    """CPU seconds so far, by who spent them."""

    worker: float
    database: float
    redis: float

    def since(self, before: "Cost") -> "Cost":
        """What was spent after `before`."""
        return Cost(*(getattr(self, one) - getattr(before, one) for one in ("worker", "database", "redis")))

    @property
    def all(self) -> float:
        """Of everybody."""
        return self.worker + self.database + self.redis


def run(
    *, targets: int = 200, ports: int = 48, columns: int = 26, rounds: int = 10, url: str = ""
) -> dict[str, float | int | str]:
    """Poll agents through a fleet of its own, then walk the same agents by other programs.

    Args:
        targets: how many agents.
        ports: of each agent; `columns`: counters and states of each port.
        rounds: polls of every target that are measured.
        url: PostgreSQL on this machine, in which a database is made for the run; empty: one started for the run.

    Returns:
        `varbinds_per_cpu_second`, `pysnmp_varbinds_per_cpu_second`, `ratio_to_pysnmp`,
        `snmpbulkwalk_varbinds_per_cpu_second` (where the program is there); `varbinds`, how many were measured;
        `varbinds_per_second`, by the clock; `worker_share`, `database_share` and `redis_share` of the CPU time;
        `worker_rss_mb_after_a_tenth` of the rounds, and `worker_rss_mb` at their end.

    Raises:
        BenchError: it is not to be measured here, or not every value arrived in the database.
    """
    if not (targets > 0 and ports > 0 and rounds > 0 and 0 < columns <= len(COLUMNS)):
        raise BenchError(f"targets, ports and rounds are at least 1, columns 1 to {len(COLUMNS)}")
    with ExitStack() as held:
        at = held.enter_context(agents(targets, ports, columns))
        os.environ[_COMMUNITY] = "public"
        _check(at[0])
        fleet = held.enter_context(_fleet(at, url))
        for _ in range(WARM):
            fleet.poll()
        before, began = fleet.cost(), time.monotonic()
        varbinds, early = 0, 0
        for number in range(rounds):
            varbinds += fleet.poll()
            early = early or (fleet.rss() if (number + 1) * 10 >= rounds else 0)
        cost, took = fleet.cost().since(before), time.monotonic() - began
        found: dict[str, float | int | str] = {
            "targets": targets,
            "ports": ports,
            "columns": columns,
            "varbinds": varbinds,
            "varbinds_per_cpu_second": round(varbinds / cost.all),
            "varbinds_per_second": round(varbinds / took),
            "worker_share": round(cost.worker / cost.all, 3),
            "database_share": round(cost.database / cost.all, 3),
            "redis_share": round(cost.redis / cost.all, 3),
            "worker_rss_mb_after_a_tenth": round(early / 1e6),
            "worker_rss_mb": round(fleet.rss() / 1e6),
        }
        held.pop_all().close()
    with agents(min(targets, 20), ports, columns) as at:
        found["pysnmp_varbinds_per_cpu_second"] = round(_pysnmp(at))
    found["ratio_to_pysnmp"] = round(
        float(found["varbinds_per_cpu_second"]) / float(found["pysnmp_varbinds_per_cpu_second"]), 1
    )
    if shutil.which("snmpbulkwalk"):
        with agents(1, 2000, columns) as at:  # one large agent, so that the start of the program is not what is seen
            found["snmpbulkwalk_varbinds_per_cpu_second"] = round(_snmpbulkwalk(at[0]))
    return found


@contextmanager
def agents(number: int, ports: int, columns: int) -> Iterator[list[int]]:
    """Agents of version 2c on loopback, in a process of their own, with any community; gives the ports they are at."""
    argv = [sys.executable, "-m", "nms_workers.bench.snmp_agents"]
    argv += ["--agents", str(number), "--ports", str(ports), "--columns", str(columns)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as process:
        line = process.stdout.readline() if process.stdout else b""
        try:
            if not line:
                raise BenchError("the agents did not start", hint=f"more files may have to be open: {number} and some")
            yield json.loads(line)
        finally:
            process.stdin.close()  # type: ignore[union-attr]


def _client(port: int) -> SnmpClient:
    return SnmpClient(SnmpTarget.model_validate({"host": "127.0.0.1", "port": port, "community": f"env:{_COMMUNITY}"}))


def _check(port: int) -> None:
    """Agents of ours that answered wrongly would make every figure wrong: Net-SNMP must read what we read."""
    if not shutil.which("snmpbulkwalk"):
        return
    for table in TABLES:
        done = subprocess.run(_bulk_walk(port, table), env=_NO_MIBS, capture_output=True, timeout=60, check=False)
        theirs = [line.split()[0].lstrip(".") for line in done.stdout.decode().splitlines()]
        if done.returncode or theirs != [oid for oid, _ in _client(port).walk(table)]:
            raise BenchError(f"the agents answer snmpbulkwalk otherwise than us at {table}")


_NO_MIBS = {"MIBS": "", "PATH": os.environ.get("PATH", "")}


def _bulk_walk(port: int, table: str) -> list[str]:
    return ["snmpbulkwalk", "-v2c", "-cpublic", "-Onq", f"-Cr{REPETITIONS}", f"127.0.0.1:{port}", table]


@dataclass
class _Fleet:
    """A running fleet: one worker of the class polls, its queue and its stores."""

    supervisor: Supervisor
    app: Any
    postgres: psutil.Process

    def poll(self) -> int:
        """Poll every target once. Returns how many varbinds are in the database, and in Redis, because of that."""
        here, due_ms = runtime(), int(time.time() * 1000)
        targets = list(here.inventory.all().values())
        for done in range(0, len(targets), AT_ONCE):
            some = targets[done : done + AT_ONCE]
            publish_shards(self.app, shards("snmp", POLL, [(target, due_ms) for target in some], manual=True))
            varbinds = self._ended(due_ms, targets[: done + AT_ONCE])
        with here.engine.connect() as connection:  # what no agent was asked for: it follows from the columns there are
            widths = connection.execute(select(func.count()).where(series.c.metric == WIDTH)).scalar_one()
        return varbinds - int(widths)

    def _ended(self, due_ms: int, targets: list[Target]) -> int:
        """Wait for these polls. Returns how many values they are."""
        due = datetime.fromtimestamp(due_ms / 1000, UTC)
        ended = select(poll_runs.c.outcome, func.count(), func.sum(poll_runs.c.samples)).where(poll_runs.c.due == due)
        ends = time.monotonic() + ROUND_SECONDS
        while True:
            with runtime().engine.connect() as connection:
                rows = connection.execute(ended.group_by(poll_runs.c.outcome)).all()
            if sum(number for _, number, _ in rows) >= len(targets) and self._over(due_ms, targets):
                break
            if time.monotonic() > ends:
                raise BenchError(f"a round did not end in {ROUND_SECONDS:g} s: {rows}")
            self.supervisor.wait(0.1)
        if [outcome for outcome, _, _ in rows] != ["ok"]:
            raise BenchError(f"polls went wrong: {[tuple(row) for row in rows]}")
        return int(rows[0][2])

    def _over(self, due_ms: int, targets: list[Target]) -> bool:
        """Whether the latest state of these is there, and every lock is free again."""
        here = runtime()
        with here.redis.pipeline(transaction=False) as pipe:
            for one in targets:
                pipe.hget(latest_key(one.id), f"{POLL}:due")
            arrived = all(int(found or 0) >= due_ms for found in pipe.execute())
        return arrived and not here.redis.hlen(STARTED)

    def cost(self) -> Cost:
        pids = self.supervisor.pids()
        return Cost(_cpu(psutil.Process(pids["polls"])), _cpu(self.postgres), _cpu(psutil.Process(pids["redis"])))

    def rss(self) -> int:
        polls = psutil.Process(self.supervisor.pids()["polls"])
        return sum(int(one.memory_info().rss) for one in (polls, *polls.children(recursive=True)))


def _cpu(process: psutil.Process) -> float:
    """CPU seconds of a process, of its children, and of those that ended meanwhile."""
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return float(sum(one.user + one.system + one.children_user + one.children_system for one in times))


@contextmanager
def _fleet(at: list[int], url: str) -> Iterator[_Fleet]:
    """A fleet of its own in a folder of its own, for as long as it is needed."""
    with ExitStack() as held:
        place = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="nms-workers-bench-")))
        database, broker = Postgres(place / "postgres"), Redis(place / "redis")
        supervisor = held.enter_context(Supervisor(place / "logs", on_event=lambda event: None))
        for server in (database, broker):
            held.callback(server.close)
            server.prepare()
        supervisor.start(
            Process("redis", broker.argv, broker.env, broker.ready),
            *(
                ()
                if url
                else (
                    Process("postgres", database.argv, database.env, database.ready, stop_signal=database.stop_signal),
                )
            ),
        )
        where = held.enter_context(_database(url)) if url else database.secret_url()
        upgrade(where)
        settings = _settings(place, at, where, broker.secret_url())
        held.callback(runtime.cache_clear)
        held.callback(lambda: runtime().close())
        here = runtime()
        sync(here.engine, here.inventory, settings, datetime.now(UTC))
        beats = heartbeats(settings)
        supervisor.start(
            Process(
                "polls",
                [sys.executable, "-m", "nms_workers", "worker", "polls"],
                ready=lambda: any(beats.glob("polls*.heartbeat")),
            )
        )
        yield _Fleet(supervisor, create_app(settings), _postmaster())


@contextmanager
def _database(url: str) -> Iterator[str]:
    """A database of its own on a configured server."""
    name = f"nms_bench_{uuid4().hex[:12]}"
    with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            head, _, options = url.partition("?")
            yield f"{head.rpartition('/')[0]}/{name}" + (f"?{options}" if options else "")
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _postmaster() -> psutil.Process:
    """PostgreSQL's first process, of which all others are children."""
    with runtime().engine.connect() as connection:
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    try:
        parent = psutil.Process(pid).parent()
    except psutil.Error:
        parent = None
    if parent is None or "postgres" not in parent.name():
        raise BenchError("the server's processes cannot be seen", hint="run where PostgreSQL runs")
    return parent


def _settings(place: Path, at: list[int], database: str, broker: str) -> Settings:
    """The settings of this fleet, in force in this process and in its children."""
    skip = [name for name in service("snmp").polls() if name != POLL]
    target = (
        '[[targets]]\nservice = "snmp"\nname = "agent-{}"\nhost = "127.0.0.1"\nport = {}\n'
        'community = "env:{}"\nevery = {{ {} = "1d" }}\nskip = {}\nmax_series = 100000\n'
    )
    config = place / "nms.toml"
    targets = (target.format(number, port, _COMMUNITY, POLL, json.dumps(skip)) for number, port in enumerate(at))
    config.write_text("\n".join(targets), encoding="utf-8")
    os.environ.pop("NMS_BROKER_URL", None)
    os.environ |= {
        "NMS_CONFIG": str(config),
        "NMS_DATA": str(place),
        "NMS_DATABASE_URL": database,
        "NMS_REDIS_URL": broker,
    }
    runtime.cache_clear()
    return runtime().settings


def _pysnmp(at: list[int]) -> float:
    """Varbinds a CPU second of pysnmp's bulk walk, with one engine for all agents and without MIBs."""
    from pysnmp.hlapi.v3arch import asyncio as hlapi  # noqa: PLC0415 - slow to import, and rarely needed

    async def walks() -> float:
        engine, varbinds, began = hlapi.SnmpEngine(), 0, time.process_time()
        who, context = hlapi.CommunityData("public"), hlapi.ContextData()
        bare = {"lookupMib": False, "lexicographicMode": False}
        try:
            for port in cycle(at):
                where = await hlapi.UdpTransportTarget.create(("127.0.0.1", port), timeout=10)
                for table in TABLES:
                    asked = hlapi.ObjectType(hlapi.ObjectIdentity(table))
                    rows = hlapi.bulk_walk_cmd(engine, who, where, context, 0, REPETITIONS, asked, **bare)
                    async for failure, status, _, found in rows:
                        if failure or status:
                            raise BenchError(f"pysnmp cannot walk the agents: {failure or status}")
                        varbinds += len(found)
                if (took := time.process_time() - began) > BARE_SECONDS:
                    return varbinds / took
            raise AssertionError("there is an agent")
        finally:
            engine.close_dispatcher()

    return asyncio.run(walks())


def _snmpbulkwalk(port: int) -> float:
    """Varbinds a CPU second of Net-SNMP's program, its start included, without MIBs."""
    varbinds, cpu = 0, 0.0
    while cpu < BARE_SECONDS:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        for table in TABLES:
            done = subprocess.run(_bulk_walk(port, table), env=_NO_MIBS, capture_output=True, timeout=300, check=True)
            varbinds += done.stdout.count(b"\n")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu += after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return varbinds / cpu
