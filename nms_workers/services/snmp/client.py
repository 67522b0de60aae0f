"""A client for one SNMP agent, of any version."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nms_workers.errors import Refused
from nms_workers.records import Record
from nms_workers.services.snmp import exact, ports, topology
from nms_workers.services.snmp.fast import FastSession, Learned, Row
from nms_workers.services.snmp.lines import lines_of, written
from nms_workers.services.snmp.mibs import symbols
from nms_workers.services.snmp.neighbors import TABLES, Neighbor, neighbors
from nms_workers.services.snmp.oid import Value, oid
from nms_workers.services.snmp.profile import chosen, ours
from nms_workers.services.snmp.reading import OBJECT_ID, Reading, Session
from nms_workers.services.snmp.slow import SlowSession
from nms_workers.services.snmp.tables import Tables
from nms_workers.services.snmp.target import SnmpTarget

_FRESH = ("inventory", "topology")  # polls of facts
_SYSTEM = {
    "description": "1.3.6.1.2.1.1.1.0",
    "object_id": OBJECT_ID,
    "uptime": "1.3.6.1.2.1.1.3.0",
    "contact": "1.3.6.1.2.1.1.4.0",
    "name": "1.3.6.1.2.1.1.5.0",
    "location": "1.3.6.1.2.1.1.6.0",
    "services": "1.3.6.1.2.1.1.7.0",
}
_INTERFACE = {
    "description": ("1.3.6.1.2.1.2.2.1.2", "text"),
    "type": ("1.3.6.1.2.1.2.2.1.3", "number"),
    "mac": ("1.3.6.1.2.1.2.2.1.6", "mac"),
    "admin_status": ("1.3.6.1.2.1.2.2.1.7", "number"),
    "oper_status": ("1.3.6.1.2.1.2.2.1.8", "number"),
    "name": ("1.3.6.1.2.1.31.1.1.1.1", "text"),
    "speed_mbps": ("1.3.6.1.2.1.31.1.1.1.15", "number"),
    "alias": ("1.3.6.1.2.1.31.1.1.1.18", "text"),
}


class SnmpClient:
    """Speaks SNMP to one agent. What it learns of the agent it keeps; sockets are open only while it reads.

    Args:
        target: the agent and our credentials.

    Every method raises, beside what is written there:
        Timeout: no answer; to a wrong community agents say nothing either.
        Unreachable: no such name, no route, nothing listens at the port.
        AuthError: version 3 does not accept the user or a key.
        Refused: the agent says no.
        ParseError: the answer is no SNMP, a walk does not go forward, or it is more than `max_varbinds`.
        ConfigError: a secret cannot be read.
    """

    def __init__(self, target: SnmpTarget) -> None:
        self.target = target
        self._learned = Learned(target.max_repetitions)
        self._readings: dict[str, Reading] = {}
        self._object_id: str | None = None

    def close(self) -> None:
        """Forget what was planned; the next poll plans anew."""
        self._readings.clear()
        self._object_id = None

    def get(self, of: str) -> Value:
        """One instance.

        Raises:
            Refused: the agent has no such instance; ValueError: no object identifier.
        """
        found = self.get_many([of])
        if not found:
            raise Refused(f"{self.target.address} has no {of}", hint="an instance ends in its index, .0 for a scalar")
        return next(iter(found.values()))

    def get_many(self, oids: Sequence[str]) -> dict[str, Value]:
        """These instances; those that the agent does not have are left out."""
        wanted = [oid(one) for one in oids]
        return self._session().get_many(wanted)

    def walk(self, base: str) -> Iterator[Row]:
        """Everything below an object, one row at a time."""
        for rows in self.bulk_walk(base):
            yield from rows

    def bulk_walk(self, base: str) -> Iterator[list[Row]]:
        """Everything below an object, answer by answer."""
        return self._session().walk(oid(base))

    def set(self, values: Mapping[str, tuple[exact.Kind, int | str]]) -> None:
        """Set instances: all of them or none.

        Args:
            values: object identifier to (kind, value): `{"1.3.6.1.2.1.1.4.0": ("text", "me")}`.
        """
        exact.set_many(self.target, {oid(one): value for one, value in values.items()})

    def get_system_info(self) -> dict[str, Any]:
        """The system group (RFC 3418): `name`, `description`, `object_id`, `uptime` in seconds, `contact`,
        `location`, `services`.
        """
        found = self.get_many(list(_SYSTEM.values()))
        told = {name: written(found.get(of), "text") for name, of in _SYSTEM.items()}
        uptime = found.get(_SYSTEM["uptime"])
        return told | {"uptime": uptime / 100 if isinstance(uptime, int) else None}

    def get_interface_list(self) -> list[dict[str, Any]]:
        """Each interface: `interface` (its lasting name), `index`, `name`, `description`, `alias`, `type` (IANAifType),
        `mac`, `admin_status` and `oper_status` (1 up, 2 down, ...), `speed_mbps`.
        """
        rows: dict[str, dict[str, Any]] = {}
        for name, (column, how) in _INTERFACE.items():
            for at, value in self.walk(column):
                index = at.removeprefix(f"{column}.")
                rows.setdefault(index, {})[name] = written(value, how)  # type: ignore[arg-type]
        called = ports.identities(rows)
        return [{"interface": called[index], "index": int(index), **row} for index, row in rows.items()]

    def discover_neighbors(self) -> list[Neighbor]:
        """The devices at the other ends of its ports, by LLDP and CDP; of those it has, if any."""
        tables = [table for one in ours() if one.poll == "topology" for table in one.table if table.object in TABLES]
        columns = [table.oid_of(column) for table in tables for column in table.column]
        rows = [row for column in columns for row in self.walk(column)]
        return neighbors(Tables(lines_of(tables, [of for of, _ in rows], [value for _, value in rows])))

    def translate(self, of: str) -> str:
        """`MODULE::name` of an OID, with the index behind; the OID itself where no MIB file names it.

        Raises:
            ConfigError: a MIB file cannot be used; ValueError: no object identifier.
        """
        return symbols(self.target.mibs).name(oid(of))

    def poll(self, name: str) -> Iterator[Record]:
        """The records of one poll, by the profiles that fit the device."""
        return self._reading(name).read(self._session(), entities=name == "inventory")

    def topology(self) -> Iterator[Record]:
        """What it is called by, and what its ports touch: neighbours, MAC addresses, the ARP table."""
        lines, error = self._reading("topology").lines(self._session())
        yield from topology.records(Tables(lines), self.target.host, self.target.max_learned)
        if error is not None:
            raise error

    def _reading(self, name: str) -> Reading:
        if self._object_id is None:
            found = self._session().get_many([OBJECT_ID])
            self._object_id = str(found.get(OBJECT_ID) or "")
        if name not in self._readings:
            profiles = chosen(name, self._object_id, self.target.profiles, self.target.mibs)
            self._readings[name] = Reading(profiles, self.target, fresh=name in _FRESH)
        return self._readings[name]

    def _session(self) -> Session:
        return (SlowSession if self.target.context else FastSession)(self.target, self._learned)
