"""The devices whose configuration can be had: a table, `drivers.toml`."""

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec


class DriverRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One row of the table, which explains its columns."""

    library: Literal["napalm", "netmiko"]
    masks: str
    show: str = ""
    options: Mapping[str, Any] = {}


@cache
def drivers() -> Mapping[str, DriverRow]:
    """Every driver by name."""
    table = tomllib.loads((Path(__file__).parent / "drivers.toml").read_text(encoding="utf-8"))
    return msgspec.convert(table, dict[str, DriverRow])
