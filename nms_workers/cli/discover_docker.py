"""`nms-workers discover docker`: containers that say by labels that they are targets; once, or live."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nms_workers.cli.metrics import serve
from nms_workers.cli.output import as_json, table
from nms_workers.cli.read import Json
from nms_workers.errors import ConfigError
from nms_workers.settings import DockerDiscovery, Settings, config_path

if TYPE_CHECKING:
    from nms_workers.fleet.docker_watch import Discovery

_LOOK_SECONDS = 1.0


def discover_docker(
    watch: Annotated[bool, typer.Option("--watch", help="Go on, live, until it is stopped: `up` runs it so.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show them; needs no database.")] = False,
    metrics: Annotated[int, typer.Option(help="Serve Prometheus metrics of this process on this port.")] = 0,
    loglevel: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING, ERROR.")] = "INFO",
    json: Json = False,
) -> None:
    """Make targets of the labelled containers of the docker targets, as `discovery.docker` of the settings says.

    Example: nms-workers discover docker --dry-run
    """
    import logging

    from nms_workers.fleet.docker_watch import engines

    if loglevel not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise typer.BadParameter(f"{loglevel!r} is none of DEBUG, INFO, WARNING, ERROR", param_hint="--loglevel")
    settings = Settings.load(config_path())
    if not engines(settings):
        raise ConfigError("the settings name no docker target", hint="add one: its engine is asked for containers")
    if watch:
        if settings.discovery.docker is None:
            raise ConfigError("the settings have no section [discovery.docker]", hint="an empty one will do")
        logging.basicConfig(level=loglevel, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        _watch(settings, metrics)
        return
    looks = [_show(settings, name) if dry_run else _enter(settings, name) for name in engines(settings)]
    if json:
        as_json(looks)
        return
    for look in looks:
        rows = [{"container": name, "why": why} for name, why in look.pop("faults").items()]
        for row in look.pop("found", ()):
            typer.echo("  ".join(f"{key}: {value}" for key, value in row.items() if value))
        typer.echo(
            "; ".join(
                f"{key}: {value if isinstance(value, str | int) else ', '.join(value) or 'none'}"
                for key, value in look.items()
            )
        )
        if rows:
            table(("container", "why"), rows, title="no targets:")


def _show(settings: Settings, name: str) -> dict[str, Any]:
    """What would be entered."""
    from nms_workers.fleet.docker_discovery import described
    from nms_workers.fleet.docker_watch import containers, engines, host_of
    from nms_workers.services.docker.client import DockerClient
    from nms_workers.services.docker.target import DockerTarget
    from nms_workers.settings import picks

    rules = settings.discovery.docker or DockerDiscovery()
    own = {(one.service, one.name) for one in settings.targets}
    target = DockerTarget.model_validate(engines(settings)[name].settings)
    client = DockerClient(target)
    try:
        wanted, faults = described(containers(client), rules, host_of(target), own)
    finally:
        client.close()
    found = [
        {**vars(one), "approved": picks(rules.approve, type=one.kind, name=one.name, engine=name)} for one in wanted
    ]
    return {"engine": name, "found": found, "faults": faults}


def _enter(settings: Settings, name: str) -> dict[str, Any]:
    from nms_workers.fleet.docker_watch import containers, engines
    from nms_workers.services.docker.client import DockerClient
    from nms_workers.services.docker.target import DockerTarget

    target = DockerTarget.model_validate(engines(settings)[name].settings)
    client = DockerClient(target)
    try:
        result = _discovery(settings, told=False).take(name, target, containers(client))
    finally:
        client.close()
    return {"engine": name, **vars(result)}


def _discovery(settings: Settings, *, told: bool) -> "Discovery":
    """Args:
    told: whether events are written, which a process that goes on does.
    """
    from nms_workers.fleet.docker_watch import Discovery
    from nms_workers.runtime import runtime

    here = runtime()
    if told:
        here.writer.start()
        return Discovery(here.engine, here.inventory, here.settings_now, here.writer, here.worker)
    return Discovery(here.engine, here.inventory, lambda: settings)


def _watch(settings: Settings, metrics: int) -> None:
    """Until SIGTERM or Ctrl-C."""
    import signal
    import threading

    from nms_workers.fleet.docker_watch import Watches
    from nms_workers.heartbeat import folder
    from nms_workers.queues import host_name
    from nms_workers.runtime import runtime

    serve(metrics, settings)
    heartbeat = folder(settings) / f"discovery@{host_name()}.heartbeat"
    heartbeat.parent.mkdir(parents=True, exist_ok=True)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    watches = Watches(_discovery(settings, told=True))
    try:
        while not stopped.is_set():
            if watches.look():
                heartbeat.touch()
            stopped.wait(_LOOK_SECONDS)
    finally:
        watches.stop()
        runtime().close()
    typer.echo(f"stopped at {datetime.now(UTC):%H:%M:%S} UTC", err=True)
