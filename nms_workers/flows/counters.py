"""sFlow's counter samples as series: of the SNMP interface when the device is known, else of the exporter.

The names and labels are those of `services/snmp`. Where the fleet reads the interfaces of the device by SNMP itself,
the samples are kept as series of the exporter: an agent tells sFlow and SNMP the same counter of different moments, and
one series of both would fall again and again, which reads as a reset.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import ip_address
from typing import NamedTuple

import numpy as np

from nms_workers.fleet.inventory import Target
from nms_workers.flows import metrics
from nms_workers.flows.enrichment import Known
from nms_workers.records import Labels, Layout, SampleBlock, series
from nms_workers.services.flows.decoded import Decoded
from nms_workers.transport.datagrams import Address

_COUNTERS = (
    "in_octets",
    "in_unicast_packets",
    "in_multicast_packets",
    "in_broadcast_packets",
    "in_discards",
    "in_errors",
    "in_unknown_protocols",
    "out_octets",
    "out_unicast_packets",
    "out_multicast_packets",
    "out_broadcast_packets",
    "out_discards",
    "out_errors",
)
_METRICS = (*(f"{name}_total" for name in _COUNTERS), "speed_bits_per_second", "admin_status", "oper_status")
_UP, _DOWN = 1.0, 2.0  # of ifAdminStatus and ifOperStatus (RFC 2863)
POLLED = "interfaces"  # the poll of the SNMP service that reads the same counters


class Reading(NamedTuple):
    """The counters of one interface, and the target whose series they are."""

    target: Target
    block: SampleBlock


def readings(decoded: Decoded, addresses: list[Address], known: Known) -> Iterator[Reading]:
    """The counter samples of a batch; those of no target are counted and left out.

    Args:
        addresses: the exporter of each of `decoded.origins`.
    """
    for one in decoded.interface_counters:
        address = addresses[int(one["origin"])]
        named = known.interface(address, int(one["interface"]))
        device = known.devices.get(address)
        moment = datetime.fromtimestamp(int(one["received"]) / 1e6, UTC)
        if device is not None and POLLED not in device.every:
            yield Reading(device, SampleBlock(_layout("snmp", (("interface", named),)), _values(one), moment))
        elif (view := known.view(address)) is not None:
            labels = (("exporter", str(ip_address(address))), ("interface", named))
            yield Reading(view, SampleBlock(_layout("flows", labels), _values(one), moment))
        else:
            metrics.HOMELESS.labels("interface_counters").inc()


def _values(one: np.void) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    told = np.array([float(one[name]) for name in _COUNTERS] + [float(one["speed"]), 0.0, 0.0])
    for place, name in enumerate(_COUNTERS):
        if one[name] == np.iinfo(one[name].dtype).max:
            told[place] = np.nan  # the agent does not have it
    status = int(one["status"])
    told[-2:] = [_UP if status & bit else _DOWN for bit in (1, 2)]
    return told


@lru_cache(maxsize=65_536)
def _layout(prefix: str, labels: Labels) -> Layout:
    return Layout([series(f"{prefix}_interface_{name}", labels) for name in _METRICS])
