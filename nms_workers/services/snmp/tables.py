"""The rows of the topology's tables, and what the ports of the device are called."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from nms_workers.services.snmp import ports
from nms_workers.services.snmp.lines import Line, written
from nms_workers.services.snmp.oid import Value
from nms_workers.services.snmp.profile import Format

Cells = Mapping[str, Value]

_PORT_FACTS: Mapping[str, Sequence[tuple[str, str, Format]]] = {
    "IF-MIB::ifEntry": (("description", "ifDescr", "text"), ("mac", "ifPhysAddress", "mac")),
    "IF-MIB::ifXEntry": (("name", "ifName", "text"), ("alias", "ifAlias", "text")),
}


class Tables:
    """What a device answered, by table, index and column."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._rows: dict[str, dict[str, dict[str, Value]]] = {}
        for line in lines:
            cells = {name: value for name, (_, value) in line.cells.items()}
            self._rows.setdefault(line.table.object, {}).setdefault(line.index, {}).update(cells)
        self._facts: dict[str, dict[str, Any]] = {}
        for table, columns in _PORT_FACTS.items():
            for index, row in self.rows(table).items():
                told = {name: written(row.get(column), how) for name, column, how in columns}
                self._facts.setdefault(index, {}).update(told)
        self._called = ports.identities(self._facts)

    def rows(self, table: str) -> Mapping[str, Cells]:
        """The rows of a table by index; none where the device does not have it."""
        return self._rows.get(table, {})

    def one(self, table: str, column: str) -> Value:
        """A single value."""
        return self.rows(table).get("", {}).get(column)

    def port(self, index: str) -> str:
        """What the port of an ifIndex is called."""
        return self._called.get(index, f"ifIndex {index}")

    def bridge_port(self, number: Value) -> str:
        """What the port of a bridge's number is called. Empty: it is no port (RFC 4188: 0 is one that is not known)."""
        if not isinstance(number, int) or not number:
            return ""
        index = self.rows("BRIDGE-MIB::dot1dBasePortEntry").get(str(number), {}).get("dot1dBasePortIfIndex")
        return self.port(str(index)) if isinstance(index, int) else f"bridge port {number}"

    def port_of(self, texts: Sequence[str]) -> str:
        """The port that one of these texts is the name of, or the description, MAC address or alias. Empty: none."""
        return next((self._by_text[text] for text in texts if text in self._by_text), "")

    def is_port(self, index: str) -> bool:
        """Whether there is a port of this ifIndex."""
        return index in self._called

    @cached_property
    def _by_text(self) -> Mapping[str, str]:
        """What only one port says of itself; the last kind is the surest."""
        found: dict[str, str] = {}
        for field in ("alias", "mac", "description", "name"):
            said = {index: str(facts.get(field) or "") for index, facts in self._facts.items()}
            times = Counter(said.values())
            found |= {text: self._called[index] for index, text in said.items() if text and times[text] == 1}
        return found
