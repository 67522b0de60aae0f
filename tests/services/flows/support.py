"""Reading, in tests: datagrams in, flows as people write them."""

from collections.abc import Iterable
from ipaddress import IPv6Address
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings

from nms_workers.services.flows.decode import decode
from nms_workers.services.flows.decoded import Datagram, Decoded
from nms_workers.services.flows.templates import Templates

NOW = 1_700_000_000  # seconds since 1970
EXPORTER = bytes([192, 0, 2, 1])

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""Of a property: the machine may be busy with other tests."""


def read(
    datagrams: Iterable[bytes], templates: Templates | None = None, *, port: int = 2055, address: bytes = EXPORTER,
    received: int = NOW * 1_000_000,
) -> Decoded:  # fmt: skip
    """Datagrams of one exporter that come at one moment."""
    some = [Datagram(data, address, port, received) for data in datagrams]
    return decode(some, Templates() if templates is None else templates)


def address(pair: Any) -> str:
    """An address of a flow."""
    found = IPv6Address(int(pair[0]) << 64 | int(pair[1]))
    return str(found.ipv4_mapped or found)


def values(flow: np.void) -> dict[str, Any]:
    """The fields of a flow that are not 0 (`::`), addresses as text."""
    told: dict[str, Any] = {}
    for name in flow.dtype.names or ():
        value = flow[name]
        if np.any(value):
            told[name] = address(value) if value.shape else int(value)
    return told
