"""Finding devices, and approving of what was found."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nms_workers.cli.discover_docker import discover_docker
from nms_workers.cli.discover_ports import discover_ports
from nms_workers.cli.output import as_json, table
from nms_workers.cli.read import Json, list_targets
from nms_workers.cli.sweeping import Progress, check_allowed, network
from nms_workers.errors import ConfigError
from nms_workers.settings import Settings, config_path

if TYPE_CHECKING:
    from nms_workers.change import Proposal
    from nms_workers.fleet.proposals import Proposed
    from nms_workers.services.snmp.discovery import Credential


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    found = typer.Typer(help="Find devices, services and containers.", no_args_is_help=True)
    found.command("snmp")(discover_snmp)
    found.command("ports")(discover_ports)
    found.command("docker")(discover_docker)
    app.add_typer(found, name="discover")
    known = typer.Typer(help="List the targets; approve of those that were found.", invoke_without_command=True)
    known.callback()(targets)
    known.command("approve")(approve)
    app.add_typer(known, name="targets")


def discover_snmp(
    networks: Annotated[list[str], typer.Argument(metavar="CIDR...", help="What is swept.")],
    credentials: Annotated[
        list[str] | None,
        typer.Option(help="A TOML file of credentials, or an SNMP target whose are tried; repeat it."),
    ] = None,
    rate: Annotated[float, typer.Option(min=0.1, max=10_000, help="Requests a second.")] = 100.0,
    limit: Annotated[int, typer.Option(min=1, max=65_536, help="More addresses than these are refused.")] = 4096,
    even: Annotated[
        list[str] | None,
        typer.Option(metavar="CIDR", help="A network that is not private, or protected, and is swept all the same."),
    ] = None,
    approved: Annotated[bool, typer.Option("--approve", help="They become targets at once.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show them; needs no database.")] = False,
    json: Json = False,
) -> None:
    """Find SNMP agents and propose them as targets; credentials are tried in order.

    Example: nms-workers discover snmp 10.1.0.0/24 --credentials credentials.toml
    """
    from nms_workers.services.snmp.discovery import addresses_of, sweep

    settings = Settings.load(config_path())
    wanted = [network(text) for text in networks]
    check_allowed(settings, wanted, [network(text) for text in even or ()])
    tried = list(_credentials(settings, credentials or []))
    addresses = addresses_of(wanted, limit)
    with Progress(len(addresses)) as progress:
        swept = sweep(addresses, tried, rate, progress.show)
    proposals = [device.proposal(approved=approved) for device in swept.devices]
    entered = None if dry_run else _enter(proposals)
    if json:
        as_json({"asked": swept.asked, "found": proposals, "entered": entered and vars(entered)})
        return
    rows = (
        {"name": one.name, "addresses": " ".join(one.addresses), **one.about, "identity": one.identity}
        for one in proposals
    )
    table(("name", "addresses", "credential", "object_id", "identity", "description"), rows, title=str(swept))
    if entered is not None:
        typer.echo(str(entered))


def targets(context: typer.Context, json: Json = False) -> None:
    """List the targets with their state and when each poll last went well; or approve of those that were found."""
    if context.invoked_subcommand is None:
        list_targets(json)


def approve(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Targets in the state `proposed`.")],
    service: Annotated[str | None, typer.Option(help="Their service, where two have the same name.")] = None,
) -> None:
    """Poll targets that were proposed, from now on."""
    from nms_workers.fleet.proposals import approve as accept
    from nms_workers.runtime import runtime

    here = runtime()
    with here.engine.begin() as connection:
        done = accept(connection, service, names, datetime.now(UTC))
    if done:
        here.inventory.outdate()
    typer.echo(f"active now: {', '.join(done)}" if done else "they were active already")


def _enter(proposals: "Sequence[Proposal]") -> "Proposed":
    from nms_workers.fleet.proposals import propose
    from nms_workers.runtime import runtime

    here = runtime()
    with here.engine.begin() as connection:
        entered = propose(connection, "snmp", "discovery", proposals)
    if entered.active:
        here.inventory.outdate()
    return entered


def _credentials(settings: Settings, named: Sequence[str]) -> "Iterator[Credential]":
    """Those of files and targets, in the order they are named; none named: of all SNMP targets, each once.

    Raises:
        ConfigError: a name is neither.
    """
    from nms_workers.services.snmp.discovery import Credential
    from nms_workers.services.snmp.discovery import credentials as of_file
    from nms_workers.services.snmp.target import SnmpTarget

    known = {one.name: one.validated() for one in settings.targets if one.service == "snmp"}
    made = {name: Credential.of(name, target) for name, target in known.items() if isinstance(target, SnmpTarget)}
    if not named:
        once = {repr(sorted(one.settings.items())): one for one in reversed(made.values())}
        yield from reversed(once.values())
    for name in named:
        if name in made:
            yield made[name]
        elif (path := Path(name)).is_file():
            yield from of_file(path)
        else:
            raise ConfigError(
                f"{name!r} is neither a file nor an SNMP target of the settings", hint="see --credentials"
            )
