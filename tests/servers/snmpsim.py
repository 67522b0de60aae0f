"""snmpsim with the recordings of real devices that come with snmpsim-data: a device for each community."""

import bz2
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from gufo.snmp import SnmpError
from gufo.snmp.sync import SnmpSession

from tests.servers.server import Conf, Server


class SnmpsimServer(Server):
    """A recording is asked for by the community that is its path without ending: `network/switch/cisco-c3560`.

    Args:
        recordings: those of snmpsim-data that it has.
        keep: recording to the beginnings of what is kept of it; one that is not named is kept whole.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        program: Path,
        conf: Conf,
        *,
        recordings: Sequence[str] = (),
        keep: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.user, self.password, self.dbname = "", "", ""
        self._recordings, self._keep = recordings, keep or {}
        super().__init__(name, folder, program, conf)
        self.url = f"udp://{self.host}:{self.port}"

    def prepare(self) -> None:
        for part in ("cache", "home"):
            (self.folder / part).mkdir(exist_ok=True)
        (library,) = self.program.parents[1].glob("lib/python*/site-packages/snmpsim_data/data")
        for one in self._recordings:
            kept = tuple(f"{base}." for base in self._keep.get(one, ()))
            rows = recorded(library, one)
            path = self.folder / "data" / f"{one}.snmprec"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{'|'.join(row)}\n" for row in rows if not kept or row[0].startswith(kept)))

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
            for community in self._recordings:
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
