"""From an alert to a ban: which alert is meant, whom it names, and what fail2ban is asked for."""

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network

from pydantic import TypeAdapter, ValidationError

from nms_workers.arguments import AddressToCutOff
from nms_workers.change import FollowUp
from nms_workers.errors import Refused
from nms_workers.records import Attributes
from nms_workers.services.suricata import eve

Network = IPv4Network | IPv6Network

_ADDRESS: TypeAdapter[Network] = TypeAdapter(AddressToCutOff)


def source(alert: eve.Record) -> Network:
    """The address that an alert came from, in the one form in which guards look at it.

    Raises:
        Refused: it names none.
    """
    try:
        return _ADDRESS.validate_python(alert.fields.get("src_ip"))
    except ValidationError:
        raise Refused(
            "the alert names no source address", hint="it may be one of a packet that is none of IP"
        ) from None


def coming_from(alerts: Iterator[eve.Record], network: Network) -> Iterator[eve.Record]:
    """The alerts whose source lies in a network."""
    for alert in alerts:
        try:
            found = source(alert)
        except Refused:
            continue
        if found.version == network.version and found.network_address in network:
            yield alert


def evidence(alert: eve.Record) -> Attributes:
    """An alert as the audit of a ban keeps it; `fingerprint` is that of its event."""
    return eve.told(alert) | {"timestamp": alert.at.isoformat(), "fingerprint": alert.fingerprint}


def ban(alert: eve.Record, fail2ban: str, jail: str, seconds: int | None) -> FollowUp:
    """The job that bans the source of an alert.

    Args:
        alert: the evidence.
        fail2ban: the target.
        jail, seconds: arguments of `ban_ip`.

    Raises:
        Refused: the alert names no source address.
    """
    arguments: Attributes = {"jail": jail, "address": str(source(alert).network_address)}
    if seconds is not None:
        arguments |= {"seconds": seconds}
    return FollowUp("fail2ban", "ban_ip", fail2ban, arguments, evidence(alert))
