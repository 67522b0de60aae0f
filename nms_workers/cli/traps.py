"""`nms-workers traps`: receives SNMP traps and informs. `up` runs it where settings name an address to listen at."""

from typing import Annotated

import typer


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(traps)


def traps(
    listen: Annotated[
        list[str] | None, typer.Option(metavar="ADDRESS:PORT", help="Listen here, not where the settings say.")
    ] = None,
    metrics: Annotated[int, typer.Option(help="Serve Prometheus metrics of this process on this port.")] = 0,
    loglevel: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING, ERROR.")] = "INFO",
) -> None:
    """Receive SNMP traps and informs of versions 1, 2c and 3, and keep them as events of their targets.

    Example: nms-workers traps --listen 0.0.0.0:1162
    """
    import logging
    import os
    import signal

    from pydantic import ValidationError

    from nms_workers.cli.metrics import serve
    from nms_workers.heartbeat import folder
    from nms_workers.queues import host_name
    from nms_workers.runtime import Runtime
    from nms_workers.settings import Settings, Traps, config_path
    from nms_workers.traps.keeping import Keeper
    from nms_workers.traps.receiver import Receiver
    from nms_workers.traps.sources import sources

    if loglevel not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise typer.BadParameter(f"{loglevel!r} is none of DEBUG, INFO, WARNING, ERROR", param_hint="--loglevel")
    logging.basicConfig(level=loglevel, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    settings = Settings.load(config_path())
    wanted = settings.traps
    if listen:
        try:
            wanted = Traps.model_validate({**dict(wanted), "listen": tuple(listen)})
        except ValidationError as exc:
            raise typer.BadParameter(exc.errors(include_input=False)[0]["msg"], param_hint="--listen") from None
    here = Runtime(settings)
    os.nice(wanted.nice)
    heartbeat = folder(settings) / f"traps@{host_name()}.heartbeat"
    heartbeat.parent.mkdir(parents=True, exist_ok=True)
    receiver = Receiver(
        wanted,
        lambda: sources(here.inventory.all().values(), here.settings_now().traps),
        Keeper(here.writer, here.worker),
        settings.data / "traps",
        heartbeat.touch,
    )
    serve(metrics, settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: receiver.stop())
    for one in receiver.sockets:
        typer.echo(f"traps are received at {one.address}", err=True)
    try:
        receiver.run()
    finally:
        here.close()
