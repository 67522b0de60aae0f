"""Settings and the database."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nms_workers.cli.output import as_json, table
from nms_workers.errors import ConfigError
from nms_workers.settings import Settings, config_path

if TYPE_CHECKING:
    from nms_workers.store.spool import Spool

EXAMPLE = Path(__file__).parent.parent / "nms.example.toml"


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    config = typer.Typer(help="Look at the settings.", no_args_is_help=True)
    config.command("check")(check)
    config.command("show")(show)
    config.command("example")(example)
    app.add_typer(config, name="config")
    db = typer.Typer(help="The database's schema.", no_args_is_help=True)
    db.command("upgrade")(upgrade)
    db.command("status")(status)
    app.add_typer(db, name="db")
    spool = typer.Typer(help="What waits on this host for PostgreSQL.", no_args_is_help=True)
    spool.command("status")(spool_status)
    spool.command("retry")(spool_retry)
    app.add_typer(spool, name="spool")
    app.command()(health)
    app.command()(pages)


def check() -> None:
    """Check the settings file; each fault with its line and the reason."""
    path = config_path()
    settings = Settings.load(path)
    typer.echo(f"{path or 'built-in defaults'}: good, {len(settings.targets)} targets")


def show() -> None:
    """Print the settings in force, defaults and environment included. Secrets are shown as references."""
    as_json(Settings.load(config_path()).model_dump(mode="json"))


def example() -> None:
    """Print a settings file with every section explained."""
    typer.echo(EXAMPLE.read_text(encoding="utf-8"), nl=False)


def upgrade() -> None:
    """Bring the schema of the configured database to this version."""
    from nms_workers.store.migrations import upgrade as migrate

    migrate(Settings.load(config_path()).database_url())
    status()


def status() -> None:
    """Print the schema's version and the one this program needs."""
    from nms_workers.store.migrations import status as look

    typer.echo(str(look(Settings.load(config_path()).database_url())))


def spool_status(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show how many polls wait to be written, and those that PostgreSQL refused."""
    spool = _spool()
    backlog = spool.backlog()
    refused = [{"id": key, "reason": reason} for key, reason in spool.refused()]
    if json:
        as_json({**backlog._asdict(), "refused": refused})
        return
    typer.echo(
        f"{backlog.rows} polls wait, the oldest for {backlog.oldest_seconds:.0f} s; {backlog.bytes:,} bytes in use"
    )
    if refused:
        table(("id", "reason"), refused, title=f"{len(refused)} were refused")


def spool_retry() -> None:
    """Give PostgreSQL once more what it refused, after the cause is gone."""
    typer.echo(f"{_spool().retry_refused()} polls are in line again")


def _spool() -> "Spool":
    from nms_workers.store.spool import Spool

    settings = Settings.load(config_path())
    return Spool(settings.spool_folder, settings.spool.max_bytes)


def health(
    name: Annotated[
        str, typer.Argument(metavar="[PROCESS]", help="polls, actions, control, beat, ...: the --name of a process.")
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show how every target is; exit 1 when one is unhealthy. With PROCESS: whether that process here does its work.

    The second is what a container's health check calls: `nms-workers health polls`.
    """
    if name:
        _process_health(name)
        return
    from nms_workers.fleet.health import overview
    from nms_workers.runtime import runtime

    rows = overview(runtime().engine)
    if json:
        as_json(rows)
    else:
        columns = ("service", "target", "state", "since", "checked_at", "failures", "restarts", "held", "detail")
        table(columns, rows)
    if any(row["state"] == "unhealthy" for row in rows):
        raise typer.Exit(1)


def _process_health(name: str) -> None:
    from nms_workers.heartbeat import folder, stale

    files = sorted(folder(Settings.load(config_path())).glob(f"{name}*.heartbeat"))
    if not files:
        raise ConfigError(f"no process {name!r} ever ran on this host")
    silent = [path.stem for path in files if stale(path)]
    if len(silent) == len(files):
        typer.echo(f"{', '.join(silent)} stopped consuming", err=True)
        raise typer.Exit(1)
    typer.echo("healthy")


def pages(folder_of_pages: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the pages go.")]) -> None:
    """Write the documentation page of every service."""
    from nms_workers.pages import page
    from nms_workers.service import services

    folder_of_pages.mkdir(parents=True, exist_ok=True)
    for kind, one in services().items():
        (folder_of_pages / f"{kind}.md").write_text(page(one), encoding="utf-8")
