"""What things cost, measured on this machine."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nms_workers.cli.output import as_json, table
from nms_workers.supervisor import Process, Supervisor


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    bench = typer.Typer(help="Measure what things cost here.", no_args_is_help=True)
    bench.command("store")(store)
    bench.command("actions")(actions)
    bench.command("snmp")(snmp)
    bench.command("traps")(traps)
    bench.command("flows")(flows)
    app.add_typer(bench, name="bench")


def store(
    targets: Annotated[int, typer.Option(min=1, max=10_000, help="Targets that are polled.")] = 50,
    series: Annotated[int, typer.Option(min=1, max=100_000, help="Values one poll of one target reads.")] = 200,
    rounds: Annotated[int, typer.Option(min=1, max=100_000, help="Polls of each target.")] = 200,
    url: Annotated[str, typer.Option(help="PostgreSQL on this machine; default: one started for the run.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Store values as blocks, and the same values one row per sample, and compare.

    Example: nms-workers bench store --targets 100 --series 1000 --json
    """
    from nms_workers.bench.store import run

    if sys.stderr.isatty():
        typer.echo(f"storing {targets * series * rounds:,} values twice ...", err=True)
    with _server(url) as where:
        found = run(where, targets=targets, series=series, rounds=rounds)
    if json:
        as_json(found)
    else:
        table(("figure", "value"), ({"figure": figure, "value": value} for figure, value in found.items()))


class Place(StrEnum):
    """Where actions are measured."""

    FAIL2BAN = "fail2ban"
    REDIS = "redis"


def actions(
    at: Annotated[Place, typer.Option(help="What is changed: bans at a fail2ban, or FLUSHDB at a Valkey.")] = (
        Place.FAIL2BAN
    ),
    jobs: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 1_000,
    rate: Annotated[float, typer.Option(min=0.1, max=1_000, help="Of them a second.")] = 10.0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Ask for actions through a fleet started for the run, and measure from there to each effect.

    Example: nms-workers bench actions --jobs 200 --json
    """
    from nms_workers.bench.actions import run

    found = run(at=at.value, actions=jobs, rate=rate, tell=lambda line: typer.echo(line, err=True))
    if json:
        as_json(found)
    else:
        table(("figure", "value"), ({"figure": figure, "value": value} for figure, value in found.items()))


def traps(
    count: Annotated[int, typer.Option("--traps", min=1_000, max=10_000_000, help="How many.")] = 200_000,
    rate: Annotated[int, typer.Option(min=100, max=1_000_000, help="Of them a second.")] = 20_000,
    devices: Annotated[int, typer.Option(min=1, max=1_000, help="That send them.")] = 100,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Send SNMP traps to a receiver with a history, and measure what they cost it.

    Example: nms-workers bench traps --rate 40000 --json
    """
    from nms_workers.bench.traps import run

    with _server("") as where:
        found = run(where, traps=count, rate=rate, devices=devices)
    if json:
        as_json(found)
    else:
        table(("figure", "value"), ({"figure": figure, "value": value} for figure, value in found.items()))


def flows(
    count: Annotated[int, typer.Option("--flows", min=1_000, max=100_000_000, help="Of each format.")] = 1_000_000,
    rate: Annotated[int, typer.Option(min=1_000, max=10_000_000, help="Of them a second.")] = 150_000,
    url: Annotated[str, typer.Option(help="PostgreSQL on this machine; default: one started for the run.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Send NetFlow v5, v9, IPFIX and sFlow to a collector with a history; compare with nfcapd on the same datagrams.

    Example: nms-workers bench flows --json
    """
    from nms_workers.bench.flows import run

    with _server(url) as where:
        found = run(where, flows=count, rate=rate)
    if json:
        as_json(found)
    else:
        table(("figure", "value"), ({"figure": figure, "value": value} for figure, value in found.items()))


def snmp(
    targets: Annotated[int, typer.Option(min=1, max=5_000, help="Agents, on loopback.")] = 200,
    ports: Annotated[int, typer.Option(min=1, max=200, help="Ports of each.")] = 48,
    columns: Annotated[int, typer.Option(min=1, max=33, help="Counters and states of each port.")] = 26,
    rounds: Annotated[int, typer.Option(min=1, max=10_000, help="Polls of each target.")] = 10,
    url: Annotated[str, typer.Option(help="PostgreSQL on this machine; default: one started for the run.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Poll SNMP agents through a fleet started for the run; compare with pysnmp and snmpbulkwalk on such agents.

    Example: nms-workers bench snmp --targets 1000 --json
    """
    from nms_workers.bench.snmp import run

    found = run(targets=targets, ports=ports, columns=columns, rounds=rounds, url=url)
    if json:
        as_json(found)
    else:
        table(("figure", "value"), ({"figure": figure, "value": value} for figure, value in found.items()))


@contextmanager
def _server(url: str) -> Iterator[str]:
    """The named PostgreSQL, or one of our own for as long as it is needed."""
    if url:
        yield url
        return
    from nms_workers.embedded import Postgres

    with tempfile.TemporaryDirectory(prefix="nms-workers-bench-") as folder:
        server = Postgres(Path(folder) / "postgres")
        server.prepare()
        try:
            with Supervisor(Path(folder) / "logs", on_event=lambda event: None) as supervisor:
                supervisor.start(
                    Process("postgres", server.argv, server.env, server.ready, stop_signal=server.stop_signal)
                )
                yield server.secret_url()
        finally:
            server.close()
