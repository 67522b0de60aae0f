"""Datagrams that mean harm, by name: each found a way that must stay closed.

`python -m tests.services.flows.evil` writes them into the corpus anew.
"""

import struct
import sys

from tests.services.flows import encode
from tests.services.flows.encode import REVERSED_OCTETS, Spec
from tests.services.flows.exporters import CORPUS, pack

_SPECS = [Spec(8, 4), Spec(1, 4)]
_LARGEST = 65_507  # bytes of a datagram over IPv4


def _filled(head: bytes) -> bytes:
    return head + bytes(_LARGEST - len(head))


def _v9(*sets: bytes) -> bytes:
    return encode.message(9, *sets)


def _ipfix(*sets: bytes) -> bytes:
    return encode.message(10, *sets)


EVIL: dict[str, list[bytes]] = {
    "empty": [b"", b"\0", b"\0\5", b"\0\x09", b"\0\x0a", b"\0\0\0\5"],
    "v5-many-records-in-none": [struct.pack(">HHIIIIBBH", 5, 65_535, 0, 0, 0, 0, 0, 0, 0)],
    "v5-all-ones": [b"\0\5" + b"\xff" * 1462],
    "v9-templates-of-nothing": [_v9(encode.template(9, 256 + index, [Spec(1, 0)] * 40)) for index in range(20)],
    "v9-records-of-one-byte": [_v9(encode.template(9, 256, [Spec(1, 1)]), encode.a_set(256, b"\1" * 60_000))],
    "v9-sets-of-four-bytes": [_filled(_v9())[:20] + struct.pack(">HH", 256, 4) * 16_000],
    "v9-widths-that-do-not-fit": [
        _v9(encode.template(9, 256, [Spec(number, 9) for number in range(1, 129)]), encode.a_set(256, bytes(9 * 128)))
    ],
    "v9-longest-record": [
        _v9(encode.template(9, 256, [Spec(1, 8), Spec(210, 65_527)]), encode.a_set(256, bytes(60_000)))
    ],
    "v9-option-scopes": [_v9(encode.a_set(1, struct.pack(">HHH", 256, 65_532, 65_532) + bytes(4000)))],
    "v9-every-field": [
        _v9(encode.template(9, 256, [Spec(number, 4) for number in range(1, 400)]), encode.a_set(256, b"\xff" * 16_000))
    ],
    "ipfix-withdraws-everything": [_ipfix(encode.template(10, 256, _SPECS), encode.a_set(2, b"\0\2\0\0" * 10_000))],
    "ipfix-variable-everywhere": [
        _ipfix(encode.template(10, 256, [Spec(371, 65_535)] * 512), encode.a_set(256, bytes(60_000)))
    ],
    "ipfix-variable-that-leads-out": [
        _ipfix(
            encode.template(10, 256, [*_SPECS, Spec(371, 65_535)]), encode.a_set(256, bytes(8) + b"\xff\xff\xff" * 50)
        )
    ],
    "ipfix-options-of-one-byte": [
        _ipfix(encode.options_template(10, 256, [Spec(10, 1)], [Spec(82, 65_535)]), encode.a_set(256, bytes(60_000)))
    ],
    "ipfix-both-ways-of-nothing": [
        _ipfix(encode.template(10, 256, [REVERSED_OCTETS]), encode.a_set(256, b"\1" * 30_000))
    ],
    "ipfix-domains": [encode.message(10, encode.a_set(256, bytes(40)), domain=domain) for domain in range(600)],
    "ipfix-times": [
        _ipfix(
            encode.template(
                10, 256, [Spec(1, 4), *(Spec(number, 8) for number in (150, 151, 152, 153, 154, 155, 161, 160))]
            ),
            encode.a_set(256, b"\xff" * 68 * 4),
            encode.a_set(256, bytes(3) + b"\1" + bytes(64)),
        )
    ],
    "sflow-many-samples-in-none": [encode.sflow()[:-4] + b"\xff" * 4],
    "sflow-samples-of-nothing": [_filled(encode.sflow()[:-4] + b"\xff" * 4)],
    "sflow-structures-of-nothing": [
        encode.sflow(
            encode.structure(1, struct.pack(">8I", 1, 1, 1, 1, 1, 1, 1, 0xFFFFFFFF) + struct.pack(">II", 7, 0) * 8000)
        )
    ],
    "sflow-path-without-end": [
        encode.sflow(
            encode.flow_sample(
                encode.header(bytes(64)),
                encode.structure(1003, bytes(16) + b"\xff" * 4 + struct.pack(">II", 2, 0) * 3000),
            )
        )
    ],
    "sflow-header-longer-than-it": [
        encode.sflow(
            encode.flow_sample(encode.structure(1, struct.pack(">IIII", 1, 9, 0, 0xFFFFFFFF) + b"\x81\0" * 60))
        )
    ],
    "sflow-tags-and-labels-without-end": [
        encode.sflow(
            encode.flow_sample(encode.header(bytes(12) + b"\x81\0\0\1" * 99, most=500)),
            encode.flow_sample(encode.header(bytes(12) + b"\x88\x47" + b"\0\0\0\1" * 99, most=500)),
            encode.flow_sample(encode.header(b"\x60" + bytes(39) + b"\0\0\0\0\0\0\0\0" * 99, protocol=12, most=900)),
        )
    ],
}


def main() -> None:
    """Write them into the corpus."""
    for name, datagrams in EVIL.items():
        (CORPUS / f"evil-{name}.bin").write_bytes(pack(datagrams))
        sys.stdout.write(f"{name}\n")


if __name__ == "__main__":
    main()
