"""What storing costs: blocks through the real writer against one row per sample, in the same run on the same server.

CPU seconds are those of the server's backend processes that did the work plus, apart, our own. The share of the
checkpointer and the WAL writer is in neither; both ways of storing leave them their work in proportion to the bytes.
"""

import secrets
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil
import psycopg
from numpy.typing import NDArray
from sqlalchemy import Engine, text

from nms_workers.errors import NmsError, Outcome
from nms_workers.records import Layout, SampleBlock, series
from nms_workers.store import partitions
from nms_workers.store.engine import make_engine
from nms_workers.store.history import History
from nms_workers.store.migrations import upgrade
from nms_workers.store.slot import Block, SlotResult
from nms_workers.store.spool import Spool

EVERY = timedelta(seconds=1)
MAX_ROUNDS = 10_000  # partitions are made three hours ahead
BATCH = 500

_ROW = np.dtype(
    [
        ("fields", ">i2"),
        ("series_id_bytes", ">i4"),
        ("series_id", ">i4"),
        ("ts_bytes", ">i4"),
        ("ts", ">i8"),
        ("value_bytes", ">i4"),
        ("value", ">f8"),
    ]
)
_COPY_ROWS = "COPY bench_rows (series_id, ts, value) FROM STDIN (FORMAT binary)"
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


class BenchError(NmsError):
    """The measurement cannot be made here."""


def run(url: str, *, targets: int = 50, series: int = 200, rounds: int = 200) -> dict[str, float | int | str]:
    """Store the same values twice and compare.

    A schema of its own is made for it and dropped at the end.

    Args:
        url: PostgreSQL on this machine: the CPU time of its processes is read from the system.
        targets: how many targets are polled.
        series: values one poll of one target reads.
        rounds: polls of every target, a second apart.

    Returns:
        `values`, how many were measured; `values_per_cpu_second` and `row_values_per_cpu_second` (server);
        `client_values_per_cpu_second` and `row_client_values_per_cpu_second`; `bytes_per_value` and
        `row_bytes_per_value` (table and indexes, after a checkpoint); `server`, its version.

    Raises:
        BenchError: the server does not run on this machine, its processes are hidden from us, or it is too little.
    """
    if min(targets, series, rounds) < 1 or rounds > MAX_ROUNDS:
        raise BenchError(f"targets, series and rounds must be at least 1, and rounds at most {MAX_ROUNDS}")
    schema = f"nms_bench_{secrets.token_hex(4)}"
    plain = make_engine(url)
    engine = make_engine(url, pool_size=1, schema=schema)
    try:
        with plain.begin() as connection:
            connection.execute(text(f"CREATE SCHEMA {schema}"))
            version = connection.execute(text("SHOW server_version")).scalar_one()
        upgrade(url, schema=schema)
        values = readings(targets, series, rounds + 1)
        blocks = _blocks(engine, values)
        rows = _rows(engine, values)
    finally:
        engine.dispose()
        with plain.begin() as connection:
            connection.execute(text(f"DROP SCHEMA IF EXISTS {schema} CASCADE"))
        plain.dispose()
    if not (blocks.server and rows.server and blocks.client and rows.client):
        raise BenchError("so little work cannot be measured: CPU time is counted in 10 ms", hint="ask for more rounds")
    return {
        "server": str(version),
        "targets": targets,
        "series": series,
        "rounds": rounds,
        "values": blocks.values,
        "values_per_cpu_second": round(blocks.values / blocks.server),
        "client_values_per_cpu_second": round(blocks.values / blocks.client),
        "bytes_per_value": round(blocks.size / values.size, 2),
        "row_values_per_cpu_second": round(rows.values / rows.server),
        "row_client_values_per_cpu_second": round(rows.values / rows.client),
        "row_bytes_per_value": round(rows.size / values.size, 2),
    }


def readings(targets: int, series: int, rounds: int, seed: int = 1) -> NDArray[np.float64]:
    """Values such as targets give, of shape (rounds, targets, series).

    Half of the series are counters, a third of those idle; a quarter are whole-numbered gauges that change now and
    then; a quarter are measured quantities, a third of those constant.
    """
    draw = np.random.default_rng(seed)
    counters, whole = series // 2, series // 4
    measured = series - counters - whole
    rate = draw.choice([0, 0, 1, 10, 1_000, 100_000], (targets, counters))
    start = draw.integers(0, 10**9, (targets, counters))
    growth = draw.poisson(rate, (rounds, targets, counters)).cumsum(axis=0)
    level = np.round(draw.gamma(2, 50, (targets, whole)))
    swing = np.round(draw.normal(0, 5, (rounds, targets, whole))) * (draw.random((rounds, targets, whole)) < 0.3)
    middle = draw.normal(100, 10, (targets, measured))
    noise = draw.normal(0, 1, (rounds, targets, measured)) * (draw.random((targets, measured)) > 1 / 3)
    return np.concatenate([start + growth, level + swing, middle + noise], axis=2).astype(np.float64)


class _Cost:
    """CPU seconds of the server's backend and of ourselves for so many values, and bytes of all on disk."""

    server = client = 0.0
    values = size = 0


@contextmanager
def _measured(engine: Engine, cost: _Cost) -> Iterator[None]:
    """Add what happens inside to `cost`; the pool holds one connection, so one backend does all the work."""
    with engine.connect() as connection:
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        local = connection.execute(text("SELECT coalesce(inet_server_addr() <<= '127.0.0.0/8', true)")).scalar_one()
    try:
        backend = psutil.Process(pid)
        if not local or "postgres" not in backend.name():
            raise BenchError("the server's processes are not on this machine", hint="give the URL of a local server")
        before, own = _cpu(backend), time.process_time()
        yield
        cost.server += _cpu(backend) - before
        cost.client += time.process_time() - own
    except psutil.Error:
        raise BenchError("the server's processes cannot be seen", hint="run where PostgreSQL runs") from None


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _size(engine: Engine, table: str) -> int:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("CHECKPOINT"))
        found = text(
            "SELECT pg_total_relation_size(CAST(:table AS regclass)) + coalesce(sum(pg_total_relation_size(relid)), 0) "
            "FROM pg_partition_tree(CAST(:table AS regclass)) WHERE isleaf AND relid <> CAST(:table AS regclass)"
        )
        return int(connection.execute(found, {"table": table}).scalar_one())


def _blocks(engine: Engine, values: NDArray[np.float64]) -> _Cost:
    """All that happens to a finished slot: encoded, spooled, read back, written with its ledger row, forgotten."""
    rounds, targets, width = values.shape
    layout = Layout([series("bench_value", (("number", str(number)),)) for number in range(width)])
    start = datetime.now(UTC).replace(microsecond=0)  # and onwards: what lies behind would be taken for late data
    with engine.begin() as connection:
        name = text(
            "INSERT INTO targets (service, name, source, state) SELECT 'bench', n::text, 'bench', 'active' "
            "FROM generate_series(1, :targets) AS n RETURNING id"
        )
        ids = list(connection.execute(name, {"targets": targets}).scalars())
        partitions.ensure(
            connection,
            [(table, start + n * EVERY) for table in ("sample_blocks", "poll_runs") for n in range(rounds)],
        )
    cost = _Cost()
    with tempfile.TemporaryDirectory(prefix="nms-bench-") as folder:
        spool = Spool(Path(folder))
        history = History(engine, spool.layout)

        def poll(number: int) -> None:
            at = start + number * EVERY
            for target_id, read in zip(ids, values[number], strict=True):
                spool.append(_slot(target_id, at, SampleBlock(layout, read)), [layout])

        poll(0)  # enters the series, which happens once; rows have nothing of the kind
        _drain(spool, history)
        with _measured(engine, cost):
            for number in range(1, rounds):
                poll(number)
                if spool.backlog().rows >= BATCH:
                    _drain(spool, history)
            _drain(spool, history)
        spool.close()
    cost.values = values[1:].size
    cost.size = _size(engine, "sample_blocks")
    with engine.connect() as connection:
        stored = connection.execute(text('SELECT sum(cardinality("values")) FROM sample_blocks')).scalar_one()
    if stored != values.size:
        raise BenchError(f"{stored} of {values.size} values were stored")
    return cost


def _drain(spool: Spool, history: History) -> None:
    while waiting := spool.batch(BATCH):
        history.write([spooled.result for spooled in waiting])
        spool.done(waiting[-1].id)


def _slot(target_id: int, at: datetime, block: SampleBlock) -> SlotResult:
    return SlotResult(
        target_id=target_id,
        service="bench",
        target=str(target_id),
        poll="all",
        due=at,
        started=at,
        finished=at + timedelta(milliseconds=20),
        outcome=Outcome.OK,
        worker="bench",
        blocks=(Block.of(block, at),),
    )


def _rows(engine: Engine, values: NDArray[np.float64]) -> _Cost:
    """The same values one row each, in the same batches, by binary COPY too."""
    rounds, targets, width = values.shape
    start = datetime.now(UTC).replace(microsecond=0)
    per_batch = max(1, BATCH // targets)
    with engine.begin() as connection:
        connection.execute(
            text("CREATE TABLE bench_rows (series_id int, ts timestamptz, value float8, PRIMARY KEY (series_id, ts))")
        )
    cost = _Cost()
    with _measured(engine, cost):
        for first in range(0, rounds, per_batch):
            batch = values[first : first + per_batch]
            made = np.zeros(batch.shape, _ROW)
            made["fields"] = 3
            made["series_id_bytes"] = 4
            made["series_id"] = np.arange(targets * width).reshape(targets, width)
            made["ts_bytes"] = made["value_bytes"] = 8
            times = [(start + (first + n) * EVERY - _EPOCH) // timedelta(microseconds=1) for n in range(len(batch))]
            made["ts"] = np.array(times).reshape(-1, 1, 1)
            made["value"] = batch
            header = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
            with engine.begin() as session:
                driver = cast("psycopg.Connection[Any]", session.connection.driver_connection)
                with driver.cursor() as cursor, cursor.copy(_COPY_ROWS) as stream:
                    stream.write(header + made.tobytes() + struct.pack(">h", -1))
    cost.values = values.size
    cost.size = _size(engine, "bench_rows")
    return cost
