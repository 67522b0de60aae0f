"""Addresses as `record.FLOW` has them, as 16 bytes, as text."""

import ipaddress

import numpy as np
from numpy.typing import NDArray

MAPPED = bytes(10) + b"\xff\xff"  # RFC 4291 section 2.5.5.2


def text(halves: NDArray[np.uint64]) -> str:
    """One address: IPv4 with dots, IPv6 with colons."""
    packed = halves.astype(">u8").tobytes()
    return str(ipaddress.ip_address(packed[12:] if packed.startswith(MAPPED) else packed))


def halves(address: str | bytes) -> tuple[int, int]:
    """The two halves of an address: text, or packed in 4 or 16 bytes."""
    packed = ipaddress.ip_address(address).packed
    number = int.from_bytes(packed if len(packed) == 16 else MAPPED + packed)
    return number >> 64, number & 0xFFFF_FFFF_FFFF_FFFF
