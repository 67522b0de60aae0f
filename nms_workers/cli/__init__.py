"""`nms-workers`: everything a person does with the fleet in a shell."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from nms_workers import __version__
from nms_workers.cli import admin, bench, change, discover, fleet, flows, gateway, logs, read, traps, up
from nms_workers.errors import NmsError

app = typer.Typer(
    name="nms-workers",
    help="A Celery worker fleet that polls, stores and acts on a whole network-management stack.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def settings_file(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="The settings file; default: $NMS_CONFIG, ./nms.toml.")
    ] = None,
) -> None:
    """Options that come before the command."""
    if config is not None:
        os.environ["NMS_CONFIG"] = str(config.absolute())


for module in (up, fleet, traps, flows, logs, read, discover, change, admin, bench, gateway):
    module.add_to(app)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def main() -> None:
    """The console script. An error is a line for people and exit code 2; NMS_DEBUG=1 shows where it came from."""
    try:
        app()
    except NmsError as exc:
        typer.echo(f"nms-workers: {exc}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as exc:
        if os.environ.get("NMS_DEBUG") == "1":
            raise
        typer.echo(f"nms-workers: {_cause(exc)}", err=True)
        sys.exit(2)


def _cause(exc: Exception) -> str:
    """What failed, for people. The libraries' own words may hold a URL with a password: they are left out."""
    library = type(exc).__module__.partition(".")[0]
    away = {"sqlalchemy": "PostgreSQL", "psycopg": "PostgreSQL", "redis": "Redis", "kombu": "the broker"}.get(library)
    if away:
        return f"{away} cannot be used: {type(exc).__name__} (is it running, and is its schema up to date?)"
    return f"this is a fault of ours: {type(exc).__name__} (NMS_DEBUG=1 shows where)"
