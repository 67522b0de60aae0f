"""`nms-workers logs`: ships the logs of containers and files. `up` runs it where settings name any."""

from typing import Annotated

import typer


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(logs)


def logs(
    metrics: Annotated[int, typer.Option(help="Serve Prometheus metrics of this process on this port.")] = 0,
    loglevel: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING, ERROR.")] = "INFO",
) -> None:
    """Ship the logs of containers and files to Elasticsearch, or keep them as events where there is none.

    Example: nms-workers logs --metrics 9105
    """
    import logging
    import signal

    from nms_workers.cli.metrics import serve
    from nms_workers.errors import ConfigError
    from nms_workers.heartbeat import folder
    from nms_workers.logs.assembly import assemble
    from nms_workers.queues import host_name
    from nms_workers.runtime import Runtime
    from nms_workers.settings import Settings, config_path

    if loglevel not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise typer.BadParameter(f"{loglevel!r} is none of DEBUG, INFO, WARNING, ERROR", param_hint="--loglevel")
    logging.basicConfig(level=loglevel, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # a full pool is told for each container
    settings = Settings.load(config_path())
    if not settings.logs.any:
        raise ConfigError("no logs are named", hint="set logs.docker, logs.own, or [[logs.files]]: docs/logs.md")
    here = Runtime(settings)
    heartbeat = folder(settings) / f"logs@{host_name()}.heartbeat"
    heartbeat.parent.mkdir(parents=True, exist_ok=True)
    shipper, where = assemble(settings, here, heartbeat.touch)
    serve(metrics, settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: shipper.stop())
    typer.echo(f"logs are shipped to {where}", err=True)
    try:
        shipper.run()
    finally:
        here.close()
