"""The Suricata client: typed methods over the command socket, the event log and the rule files. Usable alone.

client = SuricataClient(SuricataTarget(eve_file="/var/log/suricata/eve.json"))
for alert in client.get_alerts(limit=10):
    print(alert.at, alert.signature, alert.src)
client.close()
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import msgspec

from nms_workers.errors import ParseError, Refused
from nms_workers.records import Record
from nms_workers.services.suricata import block, counters, eve, reading, rules, search
from nms_workers.services.suricata.command import CommandSocket
from nms_workers.services.suricata.listener import Listener
from nms_workers.services.suricata.logfile import LogFile
from nms_workers.services.suricata.loglist import LogList
from nms_workers.services.suricata.ruleset import Ruleset
from nms_workers.services.suricata.target import SuricataTarget
from nms_workers.transport.deadline import remaining


@dataclass(frozen=True, slots=True)
class Stats:
    """What the engine has counted since it started.

    Args:
        version: as it says, `7.0.10 RELEASE`.
        uptime: seconds.
        counters: by dotted name, summed over all threads.
    """

    version: str
    uptime: int
    counters: dict[str, float]


class SuricataClient:
    """One engine. Connects when first used; safe to share between threads.

    Every method raises `Unreachable`, `AuthError`, `Timeout`, `ParseError` or `Refused`.
    """

    def __init__(self, target: SuricataTarget) -> None:
        self.target = target
        self._commands = CommandSocket(target.socket, target.timeout)
        self.ruleset = Ruleset(target, self._commands)
        file = target.log_file
        self._file = LogFile(file, target.position) if file else None
        self._list = LogList(target.eve_list) if target.eve_list else None
        self._listener = Listener(target.eve_socket, file) if target.eve_socket and file else None

    def close(self) -> None:
        """Let go of connections, and stop listening."""
        self._commands.close()
        if self._list:
            self._list.close()
        if self._listener:
            self._listener.close()

    def ask(self, command: str, shape: Any = Any, **arguments: object) -> Any:
        """What the engine answers to one command of its socket.

        Args:
            command: as in its `command-list`.
            shape: the type of the answer.
            arguments: of the command.

        Raises:
            ParseError: the answer is of another shape.
            TargetError: as the class says.
        """
        answer = self._commands.ask(command, arguments)
        try:
            return msgspec.convert(answer, shape)
        except msgspec.ValidationError as exc:
            raise ParseError(f"Suricata answered {command} in a shape we do not know: {exc}") from None

    def listen(self) -> None:
        """Listen where Suricata writes its event log to, if it is a socket; other processes may do so already."""
        if self._listener:
            self._listener.ensure()

    def read_log(self) -> Iterator[Record]:
        """What the event log holds since the last run; see `reading.records`."""
        self.listen()
        if log := self._list or self._file:
            yield from reading.records(log)

    def get_stats(self) -> Stats:
        """What the engine has counted since it started."""
        dump = self.ask("dump-counters", dict[str, Any])
        numbers = dict(counters.flat(counters.total(dump)))
        return Stats(self.ask("version", str), self.ask("uptime", int), numbers)

    def get_alerts(self, limit: int = 100, severity: int | None = None) -> list[search.Alert]:
        """The newest alerts, newest first.

        Args:
            limit: at most this many.
            severity: only those at least as severe; 1 is the highest.
        """
        records = search.found(self._backwards(), search.Query("event_type=alert"), None, None)
        alerts = (search.alert(record) for record in records)
        return list(islice((one for one in alerts if severity is None or 0 < one.severity <= severity), limit))

    def search_events(
        self, query: str = "", start: datetime | None = None, end: datetime | None = None, limit: int = 100
    ) -> list[dict[str, Any]]:
        """Records of the event log that match, newest first, in the last `scan_bytes` of it.

        Args:
            query: terms as `search.Query` explains.
            start, end: they happened in `[start, end)`; with their time zone.
            limit: at most this many.

        Raises:
            Refused: a time has no zone, the query has too many terms, or there is no log to look back in.
        """
        if any(at and at.tzinfo is None for at in (start, end)):
            raise Refused("start and end must name their time zone")
        records = search.found(self._backwards(), search.Query(query), start, end)
        return [record.fields for record in islice(records, limit)]

    def find_alert(
        self, *, sid: int | None = None, source: block.Network | None = None, flow_id: int | None = None, within: float
    ) -> eve.Record:
        """The newest alert that all of what is given fits, as it stands in the event log.

        Args:
            sid: of its rule.
            source: its source lies in this network.
            flow_id: of its flow.
            within: seconds it may be old.

        Raises:
            Refused: there is none, or no log to look back in.
        """
        wanted = {"event_type": "alert", "alert.signature_id": sid, "flow_id": flow_id}
        query = " ".join(f"{name}={value}" for name, value in wanted.items() if value is not None)
        since = datetime.now(UTC) - timedelta(seconds=within)
        found = search.found(self._backwards(), search.Query(query), since, None)
        for alert in block.coming_from(found, source) if source else found:
            return alert
        hint = "see get_alerts; a larger within looks further back"
        raise Refused(f"no alert of the last {within:g} s fits", hint=hint)

    def get_rules(self) -> list[rules.Rule]:
        """The rules in the engine's rule files, those switched off as well."""
        found: list[rules.Rule] = []
        for path in self.ruleset.files():
            remaining(1.0)  # a large rule set ends with its run as well
            found += rules.parsed(rules.read(path), str(path))
        return found

    def _backwards(self) -> Iterator[bytes]:
        if self._file is None:
            hint = "a Redis list is emptied as it is read; what it held is in the store"
            raise Refused("this target has no event log to look back in", hint=hint if self._list else "set eve_file")
        for line in self._file.backwards(self.target.scan_bytes):
            remaining(1.0)  # a search over a large log ends with its run
            yield line
