"""One flow record, as every decoder gives it: a numpy structured dtype, named as IPFIX names its information elements.

Addresses are 16 bytes as two big-endian halves, IPv4 in its IPv4-mapped form (RFC 4291 section 2.5.5.2), so that one
column holds both. MAC addresses are 48 bits in a `u8`. A field that the exporter did not send is 0; a next hop and a
post-NAT address that was not sent, or was sent as 0.0.0.0, is `::`. Times are microseconds since 1970, UTC.

What sFlow samples is a packet: its octets are the length of the frame, those of NetFlow and IPFIX begin with the IP
header.

Sources: RFC 7011, RFC 7012 and the IANA registry of IPFIX information elements; sFlow version 5.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Flows = NDArray[np.void]
"""An array of `FLOW`, one element a record."""

_ADDRESS: Any = (">u8", 2)

FLOW = np.dtype(
    [
        ("flow_start", "i8"),
        ("flow_end", "i8"),
        ("source_address", *_ADDRESS),
        ("destination_address", *_ADDRESS),
        ("next_hop", *_ADDRESS),
        ("bgp_next_hop", *_ADDRESS),
        ("post_nat_source_address", *_ADDRESS),
        ("post_nat_destination_address", *_ADDRESS),
        ("octets", "u8"),  # as reported
        ("packets", "u8"),
        ("octets_scaled", "u8"),  # multiplied by the sampling interval
        ("packets_scaled", "u8"),
        ("source_mac", "u8"),
        ("destination_mac", "u8"),
        ("sampling_interval", "u4"),  # one packet in so many; 1: every packet; 0: not known, and nothing is scaled
        ("ingress_interface", "u4"),  # ifIndex of the exporter
        ("egress_interface", "u4"),
        ("ingress_vrf", "u4"),
        ("source_as", "u4"),
        ("destination_as", "u4"),
        ("mpls_label_1", "u4"),  # 20 bits, without EXP and S
        ("mpls_label_2", "u4"),
        ("mpls_label_3", "u4"),
        ("flow_label", "u4"),
        ("observation_domain", "u4"),
        ("application_id", "u4"),
        ("source_port", "u2"),
        ("destination_port", "u2"),
        ("post_nat_source_port", "u2"),
        ("post_nat_destination_port", "u2"),
        ("vlan", "u2"),
        ("post_vlan", "u2"),
        ("tcp_control_bits", "u2"),
        ("icmp_type_code", "u2"),  # type * 256 + code
        ("ip_version", "u1"),
        ("protocol", "u1"),
        ("class_of_service", "u1"),  # the whole ToS byte
        ("source_prefix_length", "u1"),
        ("destination_prefix_length", "u1"),
        ("minimum_ttl", "u1"),
        ("maximum_ttl", "u1"),
        ("direction", "u1"),  # 0 ingress, 1 egress, 255 not said
        ("flow_end_reason", "u1"),
        ("forwarding_status", "u1"),
        ("export_version", "u1"),  # 5, 7, 9, 10 (IPFIX) or 105 (sFlow 5)
    ]
)
"""45 fields. What belongs to the datagram (who sent it, when it came) travels beside the array."""
