"""Whose notification it is: addresses to targets, and the communities that are believed."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from nms_workers.errors import ConfigError
from nms_workers.fleet.inventory import Target
from nms_workers.settings import Traps
from nms_workers.transport.datagrams import Address
from nms_workers.transport.secret import Secret
from nms_workers.transport.senders import addresses_of, packed
from nms_workers.traps import ber

log = logging.getLogger(__name__)

KIND = "snmp"
_TRAP_ADDRESS = "1.3.6.1.6.3.18.1.3.0"  # snmpTrapAddress, RFC 3584 section 3.1


@dataclass(frozen=True)
class Sources:
    """What is known of senders at one moment.

    Args:
        targets: by packed address.
        communities: believed from everybody.
        own: the community of a target's own settings, by its id.
    """

    targets: Mapping[Address, Target] = field(default_factory=dict)
    communities: frozenset[bytes] = frozenset()
    own: Mapping[int, bytes] = field(default_factory=dict)

    def target_of(self, address: Address, message: ber.Message) -> Target | None:
        """The target that a notification is about, which a forwarder may have sent on.

        That is snmpTrapAddress, else agent-addr of version 1, where it is the address of a target; else the sender.
        """
        for name, tag, contents in message.varbinds:
            if name == _TRAP_ADDRESS and tag == ber.ADDRESS and (found := self._elsewhere(contents)):
                return found
        return (message.agent and self._elsewhere(message.agent)) or self.targets.get(address)

    def believes(self, target: Target | None, community: bytes) -> bool:
        """Whether a notification with this community is taken."""
        return community in self.communities or (target is not None and self.own.get(target.id) == community)

    def _elsewhere(self, address: bytes) -> Target | None:
        """Agents that do not know their address write 0.0.0.0, or 127.0.0.1."""
        return self.targets.get(address) if any(address) and address[0] != 127 else None


def sources(targets: Iterable[Target], settings: Traps) -> Sources:
    """The senders of these targets. Names are looked up, which may take seconds: not for the thread that receives."""
    found: dict[Address, Target] = {}
    own: dict[int, bytes] = {}
    by_name = {target.name: target for target in targets if target.service == KIND}
    for target in by_name.values():
        for address in addresses_of(str(target.settings.get("host", ""))):
            if (other := found.setdefault(address, target)) is not target:
                log.warning("%s and %s have one address: its traps are taken to be of %s", other, target, other)
        if (community := target.settings.get("community")) and (said := _said(Secret(str(community)))):
            own[target.id] = said
    for text, name in settings.sources.items():
        if name in by_name:
            found[packed(text)] = by_name[name]
        else:
            log.warning("traps.sources: there is no %s target named %s", KIND, name)
    return Sources(found, frozenset(filter(None, map(_said, settings.communities))), own)


def _said(secret: Secret) -> bytes:
    try:
        return secret.reveal().encode()
    except ConfigError as exc:
        log.error("a community cannot be used: %s", exc)  # noqa: TRY400 - the message says it all
        return b""
