"""`nms-workers up`: the whole fleet on one machine, with PostgreSQL and Redis of its own when none is configured."""

import os
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nms_workers.cli.output import as_json, table
from nms_workers.errors import Outcome
from nms_workers.heartbeat import folder
from nms_workers.queues import host_name
from nms_workers.settings import WRITTEN_BY_UP, Settings, config_path
from nms_workers.supervisor import Event, Process, Supervisor

if TYPE_CHECKING:
    from nms_workers.embedded import Postgres, Redis
    from nms_workers.runtime import Runtime

COLUMNS = ("service", "target", "poll", "outcome", "samples", "milliseconds")
_RECOVERY_SECONDS = 600.0  # a server that was killed first reads its log again
_QUIET_LINES = 20  # more outcomes than this in one look are told as a sum


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(up)


def up(
    once: Annotated[
        bool, typer.Option("--once", help="Poll everything once through the queue, print it, stop.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="With --once: print JSON.")] = False,
    data: Annotated[Path | None, typer.Option(help="Where data is kept; default: $XDG_DATA_HOME/nms-workers.")] = None,
) -> None:
    """Start everything: servers, workers, beat, Flower. Ctrl-C stops it; the next start finds the data.

    Example: nms-workers up --once --json
    """
    if data is not None:
        os.environ["NMS_DATA"] = str(data.absolute())
    settings = Settings.load(config_path())
    settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    tell = _Teller(quiet=once)
    with ExitStack() as held:
        servers = _prepare_servers(held, settings)
        supervisor = held.enter_context(Supervisor(settings.data / "logs", on_event=tell.event))
        settings = _start_servers(supervisor, servers, settings)
        good = _once(supervisor, settings, json=json) if once else _run(supervisor, settings, tell)
    if not good:
        raise typer.Exit(1)


class _Teller:
    """Says what happens to the processes, on standard error; quietly, only what goes wrong."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet

    def event(self, event: Event) -> None:
        """One line an event."""
        if event.what in ("died", "killed") or (not self._quiet and event.what in ("ready", "stopped")):
            typer.echo(f"  {event.name}: {event.what} {event.detail}".rstrip(), err=True)

    def line(self, text: str) -> None:
        """One line for people."""
        typer.echo(text, err=True)


def _prepare_servers(held: ExitStack, settings: Settings) -> dict[str, "Postgres | Redis"]:
    """The servers that are not configured elsewhere. Their folders are let go when the supervisor has stopped them."""
    from nms_workers.embedded import Postgres, Redis

    servers: dict[str, Postgres | Redis] = {}
    if settings.database.url is None and "NMS_DATABASE_URL" not in os.environ:
        servers["postgres"] = Postgres(settings.data / "postgres")
    if settings.redis.url is None and "NMS_REDIS_URL" not in os.environ:
        servers["redis"] = Redis(settings.data / "redis")
    for server in servers.values():
        held.callback(server.close)
        server.prepare()
    return servers


def _start_servers(supervisor: Supervisor, servers: Mapping[str, "Postgres | Redis"], settings: Settings) -> Settings:
    """Start them and bring the schema up to date; returns the settings, now with something to poll."""
    supervisor.start(
        *(
            Process(
                name,
                server.argv,
                env=server.env,
                ready=server.ready,
                stop_signal=server.stop_signal,
                start_timeout=_RECOVERY_SECONDS,
            )
            for name, server in servers.items()
        )
    )
    from nms_workers.store.migrations import upgrade

    upgrade(settings.database_url())
    if config_path() in (None, settings.data / WRITTEN_BY_UP):
        path = settings.data / WRITTEN_BY_UP
        path.write_text(_own_targets(servers), encoding="utf-8")
        os.environ["NMS_CONFIG"] = str(path)
        return Settings.load(path)
    return settings


def _own_targets(servers: Mapping[str, "Postgres | Redis"]) -> str:
    """Settings whose targets are the servers that `up` started."""
    text = (
        "# Written by `nms-workers up` at each start. For targets of your own: nms-workers config example > nms.toml\n"
    )
    for name, server in servers.items():
        kind = "postgresql" if name == "postgres" else name
        user = 'user = "nms"\ndbname = "nms"\n' if name == "postgres" else ""
        text += f"""
[[targets]]
service = "{kind}"
name = "embedded"
host = "127.0.0.1"
port = {server.port}
{user}password = "file:{server.folder.password_file}"
"""
    return text


def _fleet(settings: Settings, *names: str) -> list[Process]:
    """The processes of ours, ready when their heartbeat files are fresh."""
    return [_ours(settings, name) for name in names]


def _edge(settings: Settings) -> list[str]:
    """The class `edge`, if there are targets beside which this host stands."""
    return ["edge"] if any(target.worker == host_name() for target in settings.targets) else []


_COMMANDS = {name: [name] for name in ("beat", "flower", "logs", "traps")} | {
    "discovery": ["discover", "docker", "--watch"]
}


def _wanted(settings: Settings) -> list[str]:
    """The processes that the settings ask for: who receives traps and flows, ships logs, follows engines."""
    names = [f"flows-{number:02}" for number in range(1, settings.flows.processes + 1)] if settings.flows.listen else []
    asked = {"traps": settings.traps.listen, "logs": settings.logs.any, "discovery": settings.discovery.docker}
    return [*names, *(name for name, section in asked.items() if section)]


def _ours(settings: Settings, name: str) -> Process:
    command = _COMMANDS.get(name, ["worker", name])
    if name.startswith("flows-"):
        command = ["flows", "run", "--number", name.removeprefix("flows-")]
    return Process(
        name,
        [sys.executable, "-m", "nms_workers", *command],
        ready=_answers(settings) if name == "flower" else _beats(settings, name),
        stop_timeout=30.0,
    )


def _beats(settings: Settings, name: str) -> Callable[[], bool]:
    pattern = f"{name}*.heartbeat"
    for old in folder(settings).glob(pattern):
        old.unlink()
    return lambda: any(folder(settings).glob(pattern))


def _answers(settings: Settings) -> Callable[[], bool]:
    def ready() -> bool:
        with socket.socket() as probe:
            probe.settimeout(0.5)
            return probe.connect_ex((settings.web.host, settings.web.flower_port)) == 0

    return ready


def _once(supervisor: Supervisor, settings: Settings, *, json: bool) -> bool:
    """One round; returns whether every outcome was ok."""
    from nms_workers.app import create_app
    from nms_workers.fleet.round import run_round
    from nms_workers.fleet.targets import sync
    from nms_workers.publish import publish_shards
    from nms_workers.runtime import runtime

    here = runtime()
    sync(here.engine, here.inventory, settings, datetime.now(UTC))
    supervisor.start(*_fleet(settings, "polls", *_edge(settings)))
    celery = create_app(settings)
    ran = list(run_round(here.engine, here.inventory, lambda shards: publish_shards(celery, shards)))
    ran.sort(key=lambda one: (one.service, one.target, one.poll))
    if json:
        as_json({"slots": [{column: asdict(one)[column] for column in COLUMNS} for one in ran]})
    else:
        table((*COLUMNS, "detail"), map(asdict, ran))
    celery.close()
    here.close()
    return bool(ran) and all(one.outcome is Outcome.OK for one in ran)


def _run(supervisor: Supervisor, settings: Settings, tell: _Teller) -> bool:
    """Everything, until asked to stop: that is how it is meant to end."""
    from nms_workers.fleet.targets import sync
    from nms_workers.runtime import runtime

    here = runtime()
    sync(here.engine, here.inventory, settings, datetime.now(UTC))
    settings = _free_flower_port(settings)
    names = "polls", "control", "actions", *_edge(settings), *_wanted(settings), "beat", "flower"
    supervisor.start(*_fleet(settings, *names))
    targets = here.inventory.all().values()
    tell.line(f"\npolling {len(targets)} targets:")
    for target in list(targets)[:_QUIET_LINES]:
        tell.line(f"  {target}: " + ", ".join(f"{poll} {every:g} s" for poll, every in target.every.items()))
    if len(targets) > _QUIET_LINES:
        tell.line(f"  and {len(targets) - _QUIET_LINES} more: nms-workers targets")
    tell.line(f"\nFlower   http://{settings.web.host}:{settings.web.flower_port}")
    tell.line(f"settings {config_path()}\ndata     {settings.data}\nCtrl-C stops everything\n")
    try:
        _follow(supervisor, here)
    except KeyboardInterrupt:
        tell.line("\nstopping")
    here.close()
    return True


def _free_flower_port(settings: Settings) -> Settings:
    """The port of the settings, or a free one when somebody else listens there."""
    if not _answers(settings)():
        return settings
    with socket.socket() as probe:
        probe.bind((settings.web.host, 0))
        os.environ["NMS_WEB__FLOWER_PORT"] = str(probe.getsockname()[1])
    return Settings.load(config_path())


def _follow(supervisor: Supervisor, here: "Runtime") -> None:
    """Print outcomes as they come in.

    Raises:
        KeyboardInterrupt: asked to stop.
    """
    from sqlalchemy.exc import SQLAlchemyError

    from nms_workers.store.query import runs

    seen = datetime.now(UTC) - timedelta(seconds=10)
    while supervisor.running():
        supervisor.wait(1.0)
        try:
            new = runs(here.engine, finished_after=seen)
        except SQLAlchemyError as exc:
            typer.echo(f"  the ledger cannot be read now: {type(exc).__name__}", err=True)
            continue
        if new:
            seen = max(run["finished"] for run in new)
        _print_outcomes(new)


def _print_outcomes(runs: list[dict[str, object]]) -> None:
    if len(runs) > _QUIET_LINES:
        counts: dict[str, int] = {}
        for run in runs:
            counts[str(run["outcome"])] = counts.get(str(run["outcome"]), 0) + 1
        typer.echo(f"{datetime.now(UTC):%H:%M:%S} " + ", ".join(f"{n} {what}" for what, n in sorted(counts.items())))
        return
    for run in runs:
        typer.echo(
            f"{run['finished']:%H:%M:%S} {run['service']}/{run['target']} {run['poll']}: {run['outcome']}, "
            f"{run['samples']} samples, {run['milliseconds'] or 0:.0f} ms {run['detail']}".rstrip()
        )
