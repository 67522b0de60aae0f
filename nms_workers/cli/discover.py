"""Finding devices, and approving of what was found."""

import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from nms_workers.cli.output import as_json, table
from nms_workers.cli.read import Json, list_targets
from nms_workers.errors import ConfigError, Refused
from nms_workers.service import Address
from nms_workers.settings import Settings, config_path

if TYPE_CHECKING:
    from nms_workers.fleet.proposals import Proposed
    from nms_workers.service import Proposal
    from nms_workers.services.snmp.discovery import Credential

Network = IPv4Network | IPv6Network


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    found = typer.Typer(help="Find devices in a network.", no_args_is_help=True)
    found.command("snmp")(discover_snmp)
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
    wanted = [_network(text) for text in networks]
    _check(settings, wanted, [_network(text) for text in even or ()])
    tried = list(_credentials(settings, credentials or []))
    addresses = addresses_of(wanted, limit)
    with _Progress(len(addresses)) as progress:
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


def _network(text: str) -> Network:
    try:
        network: Network = TypeAdapter(Address).validate_python(text)
    except ValidationError as exc:
        raise ConfigError(f"{text[:60]!r}: {exc.errors()[0]['msg'].removeprefix('Value error, ')}") from None
    return network


def _check(settings: Settings, wanted: Sequence[Network], even: Sequence[Network]) -> None:
    """What belongs to others, or is protected, is swept only when it is named twice.

    Raises:
        Refused: a network is not.
    """
    from nms_workers.services.snmp.discovery import within

    for network in wanted:
        hit = next(
            (one for one in settings.guards.protected if one.version == network.version and one.overlaps(network)), None
        )
        why = f"touches {hit}, which is protected by the settings" if hit else ""
        why = why or ("" if network.is_private else "is not a private network")
        if why and not any(within(network, one) for one in even):
            raise Refused(f"{network} is not swept: it {why}", hint=f"if it is yours, add --even {network}")


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


class _Progress:
    """A bar for people, where somebody looks; a line every now and then in a log."""

    def __init__(self, addresses: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        console = Console(stderr=True)
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task("0 found", total=addresses)
        self._step, self._addresses = max(1, addresses // 10), addresses

    def __enter__(self) -> "_Progress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, asked: int, found: int) -> None:
        """So far."""
        self._bar.update(self._task, completed=asked, description=f"{found} found")
        if self._bar.disable and asked % self._step == 0:
            sys.stderr.write(f"{asked} of {self._addresses} addresses asked, {found} answered\n")
