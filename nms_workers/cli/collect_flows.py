"""`nms-workers flows`: the collector. `up` runs it where settings name an address to listen at."""

from typing import Annotated

import typer


def collect(
    listen: Annotated[
        list[str] | None, typer.Option(metavar="ADDRESS:PORT", help="Listen here, not where the settings say.")
    ] = None,
    number: Annotated[int, typer.Option(min=1, max=32, help="Which of flows.processes this is.")] = 1,
    metrics: Annotated[int, typer.Option(help="Serve Prometheus metrics of this process on this port.")] = 0,
    loglevel: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING, ERROR.")] = "INFO",
) -> None:
    """Receive NetFlow v5, v7, v9, IPFIX and sFlow v5, and keep the flows.

    Example: nms-workers flows run --listen 0.0.0.0:2055 --listen 0.0.0.0:6343
    """
    import logging
    import os
    import signal

    from pydantic import ValidationError

    from nms_workers.cli.metrics import serve
    from nms_workers.flows.enrichment import known
    from nms_workers.flows.keeping import Keeper
    from nms_workers.flows.receiver import Collector
    from nms_workers.flows.telling import Teller
    from nms_workers.heartbeat import folder
    from nms_workers.queues import host_name
    from nms_workers.runtime import Runtime
    from nms_workers.services.flows.detection import Thresholds
    from nms_workers.settings import Flows, Settings, config_path
    from nms_workers.store.flow_writer import FlowWriter

    if loglevel not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise typer.BadParameter(f"{loglevel!r} is none of DEBUG, INFO, WARNING, ERROR", param_hint="--loglevel")
    logging.basicConfig(level=loglevel, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    settings = Settings.load(config_path())
    wanted = settings.flows
    if listen:
        try:
            wanted = Flows.model_validate({**dict(wanted), "listen": tuple(listen)})
        except ValidationError as exc:
            raise typer.BadParameter(exc.errors(include_input=False)[0]["msg"], param_hint="--listen") from None
    here = Runtime(settings)
    os.nice(wanted.nice)
    heartbeat = folder(settings) / f"flows-{number:02}@{host_name()}.heartbeat"
    heartbeat.parent.mkdir(parents=True, exist_ok=True)
    thresholds = Thresholds(wanted.scan_ports, wanted.fan_out, wanted.detection_window)
    store = FlowWriter(
        settings.data / "flows" / "spool",
        settings.database_url(),
        max_bytes=wanted.spool_bytes,
        keep=wanted.conversations,
        retention=settings.retention.by_table(),
    )
    collector = Collector(
        wanted,
        lambda: known(here.inventory.all().values(), here.engine),
        Keeper(wanted, store, Teller(here.writer, here.worker, number, thresholds)),
        settings.data / "flows",
        number,
        heartbeat.touch,
    )
    serve(metrics, settings)
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_number, lambda *_: collector.stop())
    for one in collector.sockets:
        typer.echo(f"flows are received at {one.address}", err=True)
    store.start()
    try:
        collector.run()
    finally:
        store.close(10)
        here.close()
