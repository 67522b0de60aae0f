"""Addresses as datagrams carry them: whose is what came in?"""

import ipaddress
import logging
import socket

from nms_workers.transport.datagrams import Address

log = logging.getLogger(__name__)


def addresses_of(host: str) -> list[Address]:
    """The addresses of a host, by its address or name; none while its name cannot be looked up, which is logged.

    A name server may take seconds: not for a thread that receives.
    """
    try:
        return [packed(host)]
    except ValueError:
        pass
    try:
        told = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as exc:
        log.warning("the address of %s cannot be found, so what it sends is of no target now: %s", host, exc)
        return []
    return sorted({packed(str(one[4][0]).partition("%")[0]) for one in told})


def packed(address: str) -> Address:
    """One form for each address: an IPv4-mapped one is IPv4.

    Raises:
        ValueError: it is no address.
    """
    found = ipaddress.ip_address(address)
    return (getattr(found, "ipv4_mapped", None) or found).packed
