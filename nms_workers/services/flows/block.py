"""From flows to a ban: what was seen of a source, and what fail2ban is asked for."""

from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network, IPv6Network

from nms_workers.change import FollowUp
from nms_workers.errors import Refused
from nms_workers.records import Attributes
from nms_workers.services.flows.client import FlowsClient
from nms_workers.services.flows.history import Row


def evidence(client: FlowsClient, source: IPv4Network | IPv6Network, within: int) -> Attributes:
    """What was seen of a source in the last `within` seconds, as the audit of a ban keeps it.

    Raises:
        Refused: nothing was.
    """
    since = datetime.now(UTC) - timedelta(seconds=within)
    named = str(source.network_address) if source.num_addresses == 1 else str(source)
    flows, found = client.flows_of(str(source), since), client.found_of(named, since)
    if not flows and not found:
        raise Refused(
            f"no flow of {named} was seen in the last {within} s",
            hint="raise within, or look with: nms-workers flows top --by src",
        )
    return {
        "source": named,
        "country": client.country(str(source.network_address)),
        "found": [_plain(row) for row in found],
        "flows": [_plain(row) for row in flows],
    }


def ban(seen: Attributes, fail2ban: str, jail: str, seconds: int | None) -> FollowUp:
    """The job that bans a source.

    Args:
        seen: the evidence.
        fail2ban: the target.
        jail, seconds: arguments of `ban_ip`.
    """
    arguments: Attributes = {"jail": jail, "address": seen["source"]}
    if seconds is not None:
        arguments |= {"seconds": seconds}
    return FollowUp("fail2ban", "ban_ip", fail2ban, arguments, seen)


def _plain(row: Row) -> Attributes:
    """As JSON: times as text, sums as whole numbers."""
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        if value is None or isinstance(value, str | int | dict) else int(value)
        for name, value in row.items()
    }  # fmt: skip
