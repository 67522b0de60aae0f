"""`nms-workers flows`: who talks to whom. Without a command it is the collector itself."""

import ipaddress
import socket
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
import typer

from nms_workers.cli.collect_flows import collect
from nms_workers.cli.output import as_json, table
from nms_workers.cli.read import Json, Since
from nms_workers.errors import ConfigError
from nms_workers.service import seconds

group = typer.Typer(help="Flows: NetFlow, IPFIX and sFlow, who talks to whom. Without a command: receive them.")

Limit = Annotated[int, typer.Option(min=1, max=10_000, help="How many rows.")]
Until = Annotated[str, typer.Option(help="How far back it ends: 5m; default: now.")]
Exporter = Annotated[str, typer.Option(metavar="ADDRESS", help="Only flows of this exporter.")]
Source = Annotated[str, typer.Option("--src", metavar="NETWORK", help="Only flows from this address or network.")]
Destination = Annotated[str, typer.Option("--dst", metavar="NETWORK", help="Only flows to this address or network.")]
Host = Annotated[str, typer.Option(metavar="NETWORK", help="Only flows from or to this address or network.")]
Protocol = Annotated[str, typer.Option(metavar="PROTOCOL", help="Only this protocol: tcp, udp, icmp, or its number.")]
Port = Annotated[int | None, typer.Option(min=0, max=65_535, help="Only flows about this port (the lower of the two).")]
Interface = Annotated[int | None, typer.Option(min=0, max=4_294_967_295, help="Only through this ifIndex, in or out.")]
As = Annotated[int | None, typer.Option(min=0, max=4_294_967_295, help="Only of this autonomous system.")]

_BAR = 20
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_PREFIXES = ("", "k", "M", "G", "T", "P", "E")


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(group, name="flows")


group.command("run")(collect)


@group.callback(invoke_without_command=True)
def flows(context: typer.Context) -> None:
    """Flows: who talks to whom. Without a command: receive them (`run`)."""
    if context.invoked_subcommand is None:
        collect()


@group.command("top")
def show_top(
    by: Annotated[str, typer.Option(help="What to sum by, one or several with commas.")] = "src",
    since: Since = "10m",
    until: Until = "",
    limit: Limit = 20,
    exporter: Exporter = "",
    src: Source = "",
    dst: Destination = "",
    host: Host = "",
    protocol: Protocol = "",
    port: Port = None,
    interface: Interface = None,
    src_as: As = None,
    dst_as: As = None,
    json: Json = False,
) -> None:
    """Show the largest by octets, sampling counted in.

    By: src, dst, conversation, port, protocol, as, src_as, dst_as, interface, exporter.

    Example: nms-workers flows top --by src,dst --since 1h --host 10.1.0.0/16
    """
    from nms_workers.runtime import runtime
    from nms_workers.store.flow_query import Filter, top

    where = Filter(
        exporter=_address(exporter),
        src=_network(src, "--src"),
        dst=_network(dst, "--dst"),
        host=_network(host, "--host"),
        protocol=_protocol(protocol),
        port=port,
        interface=interface,
        src_as=src_as,
        dst_as=dst_as,
    )
    here, wanted = runtime(), [one.strip() for one in by.split(",") if one.strip()]
    begins, ends = _times(since, until)
    kept = here.settings.retention.by_table()
    _show(top(here.engine, wanted, since=begins, until=ends, limit=limit, where=where, retention=kept), json)


@group.command("matrix")
def show_matrix(
    since: Since = "10m",
    until: Until = "",
    ipv4: Annotated[int, typer.Option(min=0, max=32, help="Prefix length of networks of IPv4.")] = 24,
    ipv6: Annotated[int, typer.Option(min=0, max=128, help="Prefix length of networks of IPv6.")] = 48,
    limit: Limit = 20,
    exporter: Exporter = "",
    json: Json = False,
) -> None:
    """Show which networks talk to which, the largest pairs first.

    Example: nms-workers flows matrix --since 1h --ipv4 16
    """
    from nms_workers.runtime import runtime
    from nms_workers.store.flow_query import Filter, matrix

    here, where = runtime(), Filter(exporter=_address(exporter))
    begins, ends = _times(since, until)
    kept = here.settings.retention.by_table()
    _show(
        matrix(here.engine, since=begins, until=ends, ipv4=ipv4, ipv6=ipv6, limit=limit, where=where, retention=kept),
        json,
    )


@group.command("exporters")
def show_exporters(since: Since = "5m", json: Json = False) -> None:
    """Show who sends flows: rates since then, loss, templates, last seen."""
    from nms_workers.runtime import runtime
    from nms_workers.store.flow_query import exporters

    rows = exporters(runtime().engine, since=_times(since, "")[0])
    if json:
        as_json(rows)
        return
    columns = (
        "exporter",
        "target",
        "format",
        "flows/s",
        "bits/s",
        "datagrams",
        "flows",
        "lost",
        "templates",
        "last_seen",
    )
    table(
        columns,
        (
            row
            | {
                "format": ", ".join(_FORMATS.get(version, str(version)) for version in row["versions"]),
                "flows/s": round(row["flows_per_second"], 1),
                "bits/s": _scaled(8 * row["octets_per_second"]),
            }
            for row in rows
        ),
    )


_FORMATS = {5: "NetFlow 5", 7: "NetFlow 7", 9: "NetFlow 9", 10: "IPFIX", 105: "sFlow 5"}
_PROTOCOLS = {
    value: name.removeprefix("IPPROTO_").lower().replace("icmpv6", "ipv6-icmp")
    for name, value in sorted(vars(socket).items())
    if name.startswith("IPPROTO_") and isinstance(value, int) and 0 < value < 256
}


def _show(answer: Any, json: bool) -> None:
    if json:
        as_json(msgspec.to_builtins(answer, builtin_types=(datetime,)))
        return
    lasted = max(1.0, (answer.until - answer.since).total_seconds())
    total = answer.total["octets_scaled"]
    read = "the flows themselves" if answer.source == "raw" else f"roll-ups of {answer.source}"
    title = (
        f"{_scaled(total)}B in {answer.total['flows']:,} flows, {answer.since.astimezone():%Y-%m-%d %H:%M} to "
        f"{answer.until.astimezone():%H:%M}, read from {read}"
    )
    rows = [_cells(row, lasted) for row in answer.rows]
    if not rows:
        typer.echo(title)
        return
    table(tuple(rows[0]), rows, title=title)
    if others := answer.others["octets_scaled"]:
        typer.echo(f"{_scaled(others)}B ({others / total:.1%}) belong to others that the roll-ups do not name.")


def _cells(row: Mapping[str, Any], lasted: float) -> dict[str, Any]:
    measures = {"octets", "packets", "flows", "octets_scaled", "packets_scaled", "share"}
    told = {name: value for name, value in row.items() if name not in measures}
    if told.get("port") is not None:
        told["service"] = _service(told["port"], told.get("protocol"))
    if told.get("protocol") is not None:
        told["protocol"] = _PROTOCOLS.get(told["protocol"], str(told["protocol"]))
    return {
        **told,
        "share": _bar(row["share"]),
        "%": f"{row['share']:6.1%}",
        "bytes": _scaled(row["octets_scaled"]),
        "bits/s": _scaled(8 * row["octets_scaled"] / lasted),
        "packets": _scaled(row["packets_scaled"]),
        "flows": f"{row['flows']:,}",
    }


def _bar(share: float) -> str:
    """A bar of eighths of a character."""
    eighths = round(max(0.0, min(1.0, share)) * _BAR * 8)
    return "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")


def _scaled(number: float) -> str:
    """With a decimal prefix: 1.5 M."""
    value, prefixes = float(number), iter(_PREFIXES)
    prefix = next(prefixes)
    while abs(value) >= 999.5 and prefix != _PREFIXES[-1]:
        value, prefix = value / 1000, next(prefixes)
    return f"{value:.3g} {prefix}"


def _service(port: int, protocol: int | None) -> str:
    """What the system's table of services calls a port."""
    try:
        return socket.getservbyport(port, *([_PROTOCOLS[protocol]] if protocol in (6, 17) else []))
    except (OSError, OverflowError):
        return ""


def _times(since: str, until: str) -> tuple[datetime, datetime]:
    now = datetime.now(UTC)
    begins, ends = now - timedelta(seconds=seconds(since)), now - timedelta(seconds=seconds(until) if until else 0)
    if begins >= ends:
        raise ConfigError(f"--since {since} begins after --until {until} ends", hint="since is the longer one")
    return begins, ends


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text) if text else None
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not an address", param_hint="--exporter") from None


def _network(text: str, option: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False) if text else None
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither an address nor a network", param_hint=option) from None


def _protocol(text: str) -> int | None:
    if not text:
        return None
    if text.isascii() and text.isdecimal() and int(text) < 256:
        return int(text)
    found = {name: number for number, name in _PROTOCOLS.items()} | {"icmp6": 58, "icmpv6": 58}
    if text.lower() not in found:
        raise typer.BadParameter(f"{text!r} is no protocol: {_some(found)}, or a number", param_hint="--protocol")
    return found[text.lower()]


def _some(names: Iterable[str]) -> str:
    return ", ".join(one for one in ("tcp", "udp", "icmp", "gre", "esp", "sctp") if one in set(names))
