"""snmpsim with the recordings of real devices that come with snmpsim-data: a device for each community."""

import bz2
import os
from collections.abc import Mapping
from pathlib import Path

from gufo.snmp import SnmpError
from gufo.snmp.sync import SnmpSession

from tests.servers.server import Conf, Server

_GROUPS = (
    "1 2 4.20 4.22 4.34 4.35 10.7 14.10 15.3 17.1 17.4 17.7.1.2.2 17.7.1.4.3 25.1 25.2 25.3.3 31.1.1 33 47.1.1.1 99 105"
)
_MIB_2 = tuple(f"1.3.6.1.2.1.{group}" for group in _GROUPS.split())
_SYSTEM = tuple(f"1.3.6.1.2.1.{group}" for group in ("1", "25", "47.1.1.1", "99"))
_LLDP, _LAG, _CISCO = "1.0.8802.1.1.2.1", "1.2.840.10006.300.43.1", "1.3.6.1.4.1.9.9"

SWITCH, ROUTER = "network/switch/cisco-c3560", "network/router/juniper-mx960-16-1r6-7-a"
UPS = "UPS/eaton-93e-80"

RECORDINGS: Mapping[str, tuple[str, ...]] = {
    SWITCH: (_LLDP, _LAG, *_MIB_2, *(f"{_CISCO}.{group}" for group in ("13", "23", "46", "48", "91", "109.1.1.1"))),
    ROUTER: (_LLDP, _LAG, *_MIB_2, "1.3.6.1.4.1.2636.3.1.13"),
    "network/switch/hpe-procurve-516733-b21": (_LLDP, _LAG, *_MIB_2, "1.3.6.1.4.1.11.2.14.11"),
    "network/router/huawei-s5720": (*_SYSTEM, *(f"1.3.6.1.4.1.2011.5.25.31.1.1.1.1.{column}" for column in (5, 7, 11))),
    "network/firewall/fortinet-xcu": (*_SYSTEM, "1.3.6.1.4.1.12356.101.4"),
    "network/firewall/paloalto-pa-5000": (*_SYSTEM, "1.3.6.1.4.1.25461.2.1.2.3"),
    "cloud/arista-dcs-7150s-52-cl": (*_SYSTEM, "1.3.6.1.4.1.2021"),
    UPS: (*_SYSTEM, "1.3.6.1.2.1.2", "1.3.6.1.2.1.33"),
}
"""Recordings, and what is kept of each: some are long."""

_LAST = ("1.3.9.1.0", "2", "1")  # behind all tables, so that none is the last of all


class SnmpsimServer(Server):
    """A recording is asked for by the community that is its path without ending: `network/switch/cisco-c3560`.
    It has those of `RECORDINGS`.
    """

    def __init__(self, name: str, folder: Path, program: Path, conf: Conf) -> None:
        self.user, self.password, self.dbname = "", "", ""
        super().__init__(name, folder, program, conf)
        self.url = f"udp://{self.host}:{self.port}"

    def prepare(self) -> None:
        for part in ("cache", "home"):
            (self.folder / part).mkdir(exist_ok=True)
        (library,) = self.program.parents[1].glob("lib/python*/site-packages/snmpsim_data/data")
        for one, bases in RECORDINGS.items():
            kept = tuple(f"{base}." for base in bases)
            rows = recorded(library, one)
            path = self.folder / "data" / f"{one}.snmprec"
            path.parent.mkdir(parents=True, exist_ok=True)
            told = [row for row in rows if row[0].startswith(kept)]
            path.write_text("".join(f"{'|'.join(row)}\n" for row in [*told, _LAST]))

    def argv(self) -> list[str]:
        return [
            str(self.program),
            f"--data-dir={self.folder}/data",
            f"--cache-dir={self.folder}/cache",
            f"--agent-udpv4-endpoint={self.host}:{self.port}",
            "--logging-method=null",
        ]

    def env(self) -> dict[str, str]:
        return super().env() | ({"SNMPSIM_ALLOW_ROOT": "true"} if os.getuid() == 0 else {})

    def ready(self) -> bool:
        """Every recording answers: each is indexed before."""
        try:
            for community in RECORDINGS:
                session = SnmpSession(self.host, self.port, community=community, timeout=2.0)
                next(iter(session.getnext("1.3.6.1.2.1.1")))
        except (OSError, SnmpError):
            return False
        return True

    def rows(self, recording: str) -> list[tuple[str, str, str]]:
        """The rows of a recording as the server has them: object identifier, tag, value."""
        return recorded(self.folder / "data", recording)


def recorded(folder: Path, recording: str) -> list[tuple[str, str, str]]:
    """The rows of a file: https://docs.lextudio.com/snmpsim/documentation/simulating-agents"""
    plain = folder / f"{recording}.snmprec"
    if plain.exists():
        text = plain.read_text(encoding="utf-8", errors="replace")
    else:
        text = bz2.decompress(plain.with_suffix(".snmprec.bz2").read_bytes()).decode("utf-8", errors="replace")
    rows = (line.split("|", 2) for line in text.splitlines() if line.count("|") >= 2)
    return [(oid, tag, value) for oid, tag, value in rows]
