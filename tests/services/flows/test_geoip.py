"""Databases in MaxMind's format, made here byte by byte (https://maxmind.github.io/MaxMind-DB/)."""

import ipaddress
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from nms_workers.errors import ConfigError
from nms_workers.services.flows.addresses import halves
from nms_workers.services.flows.geoip import GeoIp
from nms_workers.services.flows.record import FLOW

Value = str | int | Mapping[str, "Value"]


def written(value: Value) -> bytes:
    """A value of the data section: text, a number of 32 bits, a map of less than 29."""
    if isinstance(value, str):
        size = bytes((2 << 5 | len(value),)) if len(value) < 29 else bytes((2 << 5 | 29, len(value) - 29))
        return size + value.encode()
    if isinstance(value, int):
        body = value.to_bytes((value.bit_length() + 7) // 8)
        return bytes((6 << 5 | len(body),)) + body
    return bytes((7 << 5 | len(value),)) + b"".join(written(name) + written(one) for name, one in value.items())


def database(path: Path, network: str, value: Value) -> Path:
    """A database with one network of IPv4."""
    wanted = ipaddress.ip_network(network)
    bits = f"{int(wanted.network_address):032b}"[: wanted.prefixlen]
    nothing, found = len(bits), len(bits) + 16
    tree = b""
    for depth, bit in enumerate(bits):
        onwards = depth + 1 if depth + 1 < len(bits) else found
        records = (onwards, nothing) if bit == "0" else (nothing, onwards)
        tree += b"".join(record.to_bytes(3) for record in records)
    about: dict[str, Value] = {
        "node_count": len(bits), "record_size": 24, "ip_version": 4, "database_type": "test",
        "binary_format_major_version": 2, "binary_format_minor_version": 0, "build_epoch": 1,
        "description": {},
    }  # fmt: skip
    languages = written("languages") + b"\x00\x04"  # an array of nothing
    said = bytes((7 << 5 | len(about) + 1,)) + written(about)[1:] + languages
    path.write_bytes(tree + bytes(16) + written(value) + b"\xab\xcd\xefMaxMind.com" + said)
    return path


SYSTEM = {"autonomous_system_number": 64_500, "autonomous_system_organization": "Example"}


@pytest.mark.parametrize(
    "value",
    [SYSTEM, {"asn": "AS64500", "as_name": "Example"}],
    ids=["maxmind", "ipinfo"],
)
def test_as_numbers_that_exporters_did_not_tell_are_entered(tmp_path: Path, value: Value) -> None:
    places = GeoIp(None, database(tmp_path / "asn.mmdb", "10.0.0.0/8", value))
    flows = np.zeros(4, FLOW)
    flows["source_address"] = [halves(one) for one in ("10.1.2.3", "10.1.2.3", "192.0.2.1", "2001:db8::1")]
    flows["destination_address"] = halves("10.9.9.9")
    flows["source_as"] = [0, 7, 0, 0]

    places.fill(flows)

    assert flows["source_as"].tolist() == [64_500, 7, 0, 0]
    assert flows["destination_as"].tolist() == [64_500] * 4
    assert places.autonomous_system("10.0.0.1") == (64_500, "Example")


@pytest.mark.parametrize("value", [{"country": {"iso_code": "NO"}}, {"country": "NO"}, {"country_code": "NO"}])
def test_countries_are_told_in_two_letters(tmp_path: Path, value: Value) -> None:
    places = GeoIp(database(tmp_path / "country.mmdb", "10.0.0.0/8", value), None)

    assert [places.country(one) for one in ("10.1.2.3", "192.0.2.1", "2001:db8::1")] == ["NO", "", ""]


def test_without_a_database_nothing_is_known_and_nothing_changed() -> None:
    places = GeoIp(None, None)
    flows = np.zeros(1, FLOW)

    places.fill(flows)

    assert (flows["source_as"][0], places.country("10.0.0.1"), places.autonomous_system("10.0.0.1")) == (0, "", (0, ""))


@pytest.mark.parametrize("content", [b"", b"nothing", b"\xab\xcd\xefMaxMind.com"], ids=["empty", "text", "cut-off"])
def test_a_file_that_is_none_is_said(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "asn.mmdb"
    path.write_bytes(content)

    with pytest.raises(ConfigError, match=r"asn\.mmdb is no database in MaxMind's format"):
        GeoIp(None, path)
    with pytest.raises(ConfigError, match=r"missing\.mmdb"):
        GeoIp(None, tmp_path / "missing.mmdb")
