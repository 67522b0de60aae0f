"""Gateways: what a service reads, over HTTP."""

import signal
import socket
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nms_workers.errors import ConfigError

if TYPE_CHECKING:
    from nms_workers.services.suricata.target import SuricataTarget

_TOKEN = "env:NMS_GATEWAY_TOKEN"  # noqa: S105 - a reference


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    gateway = typer.Typer(help="Serve what a service reads to those who cannot reach it.", no_args_is_help=True)
    gateway.command("suricata")(suricata)
    app.add_typer(gateway, name="gateway")


def suricata(
    target: Annotated[str, typer.Option("--target", "-t", help="Needed when the settings name several.")] = "",
    token: Annotated[str, typer.Option(help="Where the token is: env:NAME or file:PATH.")] = _TOKEN,
    host: Annotated[str, typer.Option(help="An address of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0: any that is free.")] = 9871,
    cert: Annotated[Path | None, typer.Option(help="PEM file of the certificate, for HTTPS.")] = None,
    key: Annotated[Path | None, typer.Option(help="PEM file of its key.")] = None,
) -> None:
    """Serve alerts, rules and statistics of a Suricata on this host: /eve/alerts, /rules, /stats, /health.

    Example: nms-workers gateway suricata --target ids1 --token file:/etc/nms/gateway-token
    """
    try:
        from nms_workers.services.suricata.gateway import Certificate, application, server
    except ImportError as exc:
        raise ConfigError(f"the gateway needs {exc.name}", hint="pip install 'nms-workers[gateway]'") from None
    from nms_workers.services.suricata.client import SuricataClient
    from nms_workers.transport.secret import Secret

    if (cert is None) != (key is None):
        raise ConfigError("--cert and --key go together")
    certificate = Certificate(cert, key) if cert and key else None
    name, settings = _target(target)
    client = SuricataClient(settings)
    app = application(client, Secret(token))
    with _listener(host, port, encrypted=certificate is not None) as listener:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        bound = listener.getsockname()[1]
        where = f"{'https' if certificate else 'http'}://{f'[{host}]' if ':' in host else host}:{bound}"
        typer.echo(f"the gateway of {name} listens at {where}", err=True)
        try:
            server(app, certificate).run(sockets=[listener])
        except OSError as exc:  # ssl's errors are some
            raise ConfigError(f"the certificate cannot be used: {exc.strerror or exc}") from None
        finally:
            client.close()


def _target(name: str) -> "tuple[str, SuricataTarget]":
    from nms_workers.services.suricata.target import SuricataTarget
    from nms_workers.settings import Settings, config_path

    path = config_path()
    every = {one.name: one for one in Settings.load(path).targets if one.service == "suricata"}
    found = [one for one in every.values() if name in ("", one.name)]
    if len(found) != 1:
        hint = f"name one with --target: {', '.join(every)}" if every else "add one to the settings"
        raise ConfigError(f"{len(found)} suricata targets of {path or 'no settings'} are meant, not one", hint=hint)
    return found[0].name, SuricataTarget.model_validate(found[0].settings)


def _listener(host: str, port: int, *, encrypted: bool) -> socket.socket:
    try:
        address = ip_address(host)
    except ValueError:
        raise ConfigError(f"{host!r} is no address", hint="127.0.0.1, or another of this machine") from None
    if not (address.is_loopback or encrypted):
        hint = "give --cert and --key, or let a proxy on this host speak HTTPS"
        raise ConfigError(f"at {host} the token would pass the network in clear", hint=hint)
    try:
        family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as exc:
        raise ConfigError(
            f"nothing can listen at {host}:{port}: {exc.strerror}", hint="see --host and --port"
        ) from None
