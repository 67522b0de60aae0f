"""Where an address is, and whose: databases in MaxMind's format (https://maxmind.github.io/MaxMind-DB/).

They are files of one's own choice: GeoLite2, DB-IP Lite, IPinfo Lite and others come in this format. The package
`maxminddb` reads them (`pip install nms-workers[geoip]`).
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nms_workers.errors import ConfigError
from nms_workers.services.flows.addresses import text
from nms_workers.services.flows.record import Flows

REMEMBERED = 100_000  # addresses


class GeoIp:
    """Looks addresses up; what was looked up lately is remembered.

    Args:
        country, autonomous_systems: files; None: nothing is known of that.

    Raises:
        ConfigError: a file cannot be read, or the package is not there.
    """

    def __init__(self, country: Path | None, autonomous_systems: Path | None) -> None:
        self._countries, self._systems = _reader(country), _reader(autonomous_systems)
        self.country = lru_cache(REMEMBERED)(self._country)
        self.autonomous_system = lru_cache(REMEMBERED)(self._autonomous_system)

    def fill(self, flows: Flows) -> None:
        """Enter the AS numbers that exporters did not tell."""
        if self._systems is None:
            return
        for number, address in (("source_as", "source_address"), ("destination_as", "destination_address")):
            missing = np.flatnonzero(flows[number] == 0)
            if len(missing):
                flows[number][missing] = self._numbers(flows[address][missing])

    def _numbers(self, addresses: NDArray[np.uint64]) -> NDArray[np.uint32]:
        """The AS of each address; each distinct one is looked up once."""
        whole = np.ascontiguousarray(addresses).view("V16").reshape(-1)
        distinct, where = np.unique(whole, return_inverse=True)
        halves = distinct.view(">u8").reshape(-1, 2)
        numbers = np.array([self.autonomous_system(text(one))[0] for one in halves], np.uint32)
        return numbers[where]

    def _country(self, address: str) -> str:
        """The two letters of ISO 3166; empty: it is not known."""
        found = _get(self._countries, address)
        country = found.get("country", found.get("country_code", ""))
        return str(country.get("iso_code", "") if isinstance(country, Mapping) else country)[:2]

    def _autonomous_system(self, address: str) -> tuple[int, str]:
        """Number and name; 0 and nothing: it is not known."""
        found = _get(self._systems, address)
        number = str(found.get("autonomous_system_number", found.get("asn", "")) or "0").removeprefix("AS")
        name = str(found.get("autonomous_system_organization", found.get("as_name", "")) or "")
        return (int(number) if number.isascii() and number.isdecimal() and len(number) <= 9 + 1 else 0), name[:200]


def _reader(path: Path | None) -> Any:
    if path is None:
        return None
    try:
        import maxminddb  # noqa: PLC0415 - of the extra `geoip`
    except ImportError:
        raise ConfigError(f"{path} cannot be read without maxminddb", hint="pip install nms-workers[geoip]") from None
    try:
        return maxminddb.open_database(path, maxminddb.MODE_MMAP)
    except (OSError, ValueError, maxminddb.InvalidDatabaseError) as exc:
        raise ConfigError(f"{path} is no database in MaxMind's format, or cannot be read: {exc}") from None


def _get(reader: Any, address: str) -> Mapping[str, Any]:
    try:
        found = reader.get(address) if reader is not None else None
    except ValueError:  # an IPv6 address, and the database is one of IPv4
        return {}
    return found if isinstance(found, Mapping) else {}
