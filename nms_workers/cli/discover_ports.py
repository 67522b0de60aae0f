"""`nms-workers discover ports`: which of our kinds of service answer at hosts that say nothing about themselves."""

import re
import socket
from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nms_workers.cli.output import as_json, table
from nms_workers.cli.read import Json
from nms_workers.cli.sweeping import Network, Progress, check_allowed, network
from nms_workers.errors import ConfigError, Refused
from nms_workers.settings import Settings, config_path

if TYPE_CHECKING:
    from nms_workers.change import Proposal
    from nms_workers.fleet.proposals import Proposed

_NAME = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\Z"
)
_AT = re.compile(r"([a-z0-9_]+):([1-9][0-9]{0,4})\Z", re.ASCII)
_SETTING = re.compile(r"([a-z0-9_]+)\.([A-Za-z0-9_]+)=(.*)\Z", re.ASCII | re.DOTALL)


def discover_ports(
    hosts: Annotated[list[str], typer.Argument(metavar="HOST...", help="Names, addresses or networks.")],
    at: Annotated[
        list[str] | None, typer.Option(metavar="KIND:PORT", help="Ask at this port too, for this kind; repeat it.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(metavar="KIND", help="Only for this kind; repeat it.")] = None,
    with_setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KIND.KEY=VALUE", help="A setting of what is found; secrets by reference."),
    ] = None,
    rate: Annotated[float, typer.Option(min=0.1, max=10_000, help="Ports a second.")] = 100.0,
    limit: Annotated[int, typer.Option(min=1, max=65_536, help="More addresses than these are refused.")] = 1024,
    timeout: Annotated[float, typer.Option(min=0.1, max=30, help="Seconds of one exchange.")] = 2.0,
    even: Annotated[
        list[str] | None,
        typer.Option(metavar="CIDR", help="A network that is not private, or protected, and is swept all the same."),
    ] = None,
    approved: Annotated[bool, typer.Option("--approve", help="They become targets at once.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show them; needs no database.")] = False,
    json: Json = False,
) -> None:
    """Ask the well-known ports of hosts who is there, and propose as targets what says that it is one of our kinds.

    Example: nms-workers discover ports 10.1.0.5 nas.example.net --set postgresql.password=env:PGPASSWORD
    """
    from nms_workers.fleet.identify import needs, sweep

    settings = Settings.load(config_path())
    more = _settings(with_setting or ())
    ports = _ports(at or (), only or ())
    addresses = _addresses(settings, hosts, [network(text) for text in even or ()], limit)
    with Progress(len(addresses) * len(ports), "ports") as progress:
        seen = sweep(addresses, ports, rate=rate, timeout=timeout, progress=progress.show)
    rows: list[dict[str, Any]] = []
    proposals: dict[str, list[Proposal]] = {}
    for one in seen:
        proposal = one.proposal(more.get(one.kind, {})) if one.kind else None
        lacks = needs(proposal, one.kind) if proposal else ""
        if proposal and not lacks:
            proposals.setdefault(one.kind, []).append(_approved(proposal, yes=approved))
        rows.append({**vars(one), "name": proposal.name if proposal else "", "needs": lacks})
    entered = {} if dry_run else _enter(proposals)
    if json:
        as_json(
            {"asked": len(addresses) * len(ports), "found": rows, "entered": {k: vars(v) for k, v in entered.items()}}
        )
        return
    columns = ("host", "port", "kind", "version", "login", "proof", "name", "needs")
    table(columns, rows, title=f"{len(seen)} ports answer of {len(addresses) * len(ports)}")
    for kind, what in entered.items():
        typer.echo(f"{kind}: {what}")


def _approved(proposal: "Proposal", *, yes: bool) -> "Proposal":
    import msgspec

    return msgspec.structs.replace(proposal, approved=yes)


def _enter(proposals: "Mapping[str, Sequence[Proposal]]") -> "dict[str, Proposed]":
    from nms_workers.fleet.proposals import propose
    from nms_workers.runtime import runtime

    here = runtime()
    with here.engine.begin() as connection:
        entered = {kind: propose(connection, kind, "discovery", found) for kind, found in proposals.items()}
    if any(one.active for one in entered.values()):
        here.inventory.outdate()
    return entered


def _ports(at: Sequence[str], only: Sequence[str]) -> dict[int, tuple[str, ...]]:
    """The kinds to ask for at each port."""
    from nms_workers.fleet.identify import kinds, well_known

    ports = well_known()
    for text in at:
        match = _AT.match(text)
        if not match or match[1] not in kinds() or int(match[2]) > 65_535:
            raise ConfigError(f"{text[:60]!r} is no KIND:PORT", hint=f"kinds: {', '.join(kinds())}")
        ports[int(match[2])] = (match[1], *ports.get(int(match[2]), ()))
    if unknown := set(only) - set(kinds()):
        raise ConfigError(f"there is no kind {unknown.pop()[:60]!r} to ask for", hint=f"kinds: {', '.join(kinds())}")
    if only:
        ports = {port: tuple(kind for kind in of if kind in only) for port, of in ports.items()}
    return {port: of for port, of in sorted(ports.items()) if of}


def _settings(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Settings by kind. A secret in clear is refused when the target is made of them; here it is not shown."""
    from nms_workers.fleet.identify import kinds

    more: dict[str, dict[str, Any]] = {}
    for text in texts:
        match = _SETTING.match(text)
        if not match or match[1] not in kinds():
            raise ConfigError("--set wants KIND.KEY=VALUE", hint=f"kinds: {', '.join(kinds())}")
        more.setdefault(match[1], {})[match[2]] = match[3]
    return more


def _addresses(settings: Settings, hosts: Sequence[str], even: Sequence[Network], limit: int) -> list[str]:
    """Each host once: a name stays a name.

    Raises:
        ConfigError: one is neither a name nor an address, or is not known.
        Refused: there are too many, or one must not be swept.
    """
    from nms_workers.services.snmp.discovery import addresses_of

    named = [host for host in hosts if not _is_network(host)]
    networks = [network(host) for host in hosts if _is_network(host)]
    check_allowed(settings, [*networks, *(_looked_up(name) for name in named)], even)
    found = list(dict.fromkeys([*named, *addresses_of(networks, limit)]))
    if len(found) > limit:
        raise Refused(f"these are more than {limit} hosts", hint="name fewer, or raise the limit")
    return found


def _is_network(text: str) -> bool:
    return text.replace(".", "").replace("/", "").isdecimal() or ":" in text


def _looked_up(name: str) -> Network:
    if not _NAME.match(name):
        raise ConfigError(f"{name[:60]!r} is no name of a host")
    try:
        return ip_network(str(socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)[0][4][0]).partition("%")[0])
    except OSError:
        raise ConfigError(
            f"there is no host {name!r}", hint="is the name right, and does the resolver know it?"
        ) from None
