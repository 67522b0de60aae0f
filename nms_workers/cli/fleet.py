"""The processes of the fleet: workers by class, beat, Flower. `up` runs them all; a deployment runs each by itself."""

import os
from typing import Annotated

import typer

from nms_workers.cli.metrics import serve
from nms_workers.queues import CLASSES, queues_of
from nms_workers.settings import Settings, config_path

POOLS = {"polls": "threads", "control": "threads", "actions": "prefork", "edge": "prefork"}


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(worker)
    app.command()(beat)
    app.command()(flower)


def worker(
    worker_class: Annotated[str, typer.Argument(metavar="CLASS", help="polls, actions, control, or edge")],
    name: Annotated[str, typer.Option(help="Unique on this host; default: the class.")] = "",
    concurrency: Annotated[int, typer.Option(help="Threads or processes; default: the settings'.")] = 0,
    queues: Annotated[str, typer.Option(help="Only these queues, comma separated; default: those of the class.")] = "",
    metrics: Annotated[int, typer.Option(help="Serve Prometheus metrics of this process on this port.")] = 0,
    loglevel: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING, ERROR.")] = "INFO",
) -> None:
    """Run one Celery worker of a class. `edge` polls and changes the targets whose setting `worker` names this host.

    Example: nms-workers worker polls --concurrency 50 --queues poll.snmp
    """
    if worker_class not in CLASSES:
        raise typer.BadParameter(f"{worker_class!r} is none of {', '.join(CLASSES)}", param_hint="CLASS")
    if worker_class in ("actions", "edge"):
        # a running action is given time to end and is put back if it does not (Celery's soft shutdown); Celery reads
        # this when it is imported
        os.environ.setdefault("REMAP_SIGTERM", "SIGQUIT")
    from nms_workers.app import create_app

    settings = Settings.load(config_path())
    serve(metrics, settings)
    sizes = settings.workers
    default = {
        "polls": sizes.poll_threads,
        "control": sizes.control_threads,
        "actions": sizes.action_processes,
        "edge": sizes.edge_processes,
    }[worker_class]
    arguments = ["worker", "--pool", POOLS[worker_class], "--concurrency", str(concurrency or default)]
    arguments += ["--hostname", f"{name or worker_class}@%h", "--loglevel", loglevel, "--task-events"]
    arguments += ["--queues", queues or ",".join(queues_of(worker_class, settings))]
    arguments += [
        "--without-mingle",
        "--without-gossip",
    ]  # what they synchronise is not used, and they slow reconnecting
    create_app(settings).worker_main(arguments)


def beat(
    loglevel: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING, ERROR.")] = "INFO",
) -> None:
    """Run the scheduler. Run two on two hosts: one leads, the other stands by."""
    from nms_workers.app import create_app

    app = create_app(Settings.load(config_path()))
    app.start(["beat", "--loglevel", loglevel, "--pidfile", ""])


def flower() -> None:
    """Run Flower, read only, on the address that the settings' section `web` names."""
    from nms_workers.app import create_app

    settings = Settings.load(config_path())
    web = settings.web
    arguments = ["flower", f"--address={web.host}", f"--port={web.flower_port}", "--read-only=True"]
    if web.flower_auth:
        os.environ["FLOWER_BASIC_AUTH"] = web.flower_auth.reveal()  # not on the command line, where everybody reads it
    create_app(settings).start(arguments)
