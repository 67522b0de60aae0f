"""Where no Elasticsearch is: lines become events in PostgreSQL, through the store's spool, and last as long as events.

What is delivered at once is one row of the ledger, named by the time it is due: the same again is written once.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from nms_workers.errors import NmsError, Outcome
from nms_workers.logs import metrics
from nms_workers.logs.batch import Line
from nms_workers.logs.meaning import moment_of, severity_of
from nms_workers.records import MAX_TEXT, Event
from nms_workers.store.slot import SlotResult
from nms_workers.store.writer import Writer

SERVICE = POLL = "logs"  # what the target and the poll are called
KIND = "log_line"

# Not of the settings file, and of no service that is polled: the fleet leaves it alone.
_TARGET = text("""
    INSERT INTO targets AS old (service, name, source, state) VALUES (:service, :host, 'logs', 'active')
    ON CONFLICT (service, name) DO UPDATE SET state = 'active' RETURNING id
""")


class NoHistoryError(NmsError):
    """PostgreSQL is away."""


class EventsOutlet:
    """Events of the target `logs/<host>`.

    Args:
        worker: this process' name in the ledger.
    """

    name = "PostgreSQL"

    def __init__(self, engine: Engine, writer: Writer, host: str, worker: str) -> None:
        self._engine, self._writer, self._host, self._worker = engine, writer, host, worker
        self._target = 0

    def prepare(self) -> None:
        """Make the target whose events they are.

        Raises:
            NoHistoryError: PostgreSQL is away.
        """
        try:
            with self._engine.begin() as connection:
                self._target = connection.execute(_TARGET, {"service": SERVICE, "host": self._host}).scalar_one()
        except SQLAlchemyError as exc:
            raise NoHistoryError(f"PostgreSQL does not answer: {type(exc).__name__}") from None

    def deliver(self, due: datetime, lines: Sequence[Line], *, again: bool) -> Sequence[Line]:
        """Into the spool, from where they are written once PostgreSQL takes them.

        Raises:
            NoHistoryError: the spool is half full. What is over its bound would be dropped, and the polls need it more.
            SpoolError: the disk does not take it.
        """
        if self._writer.backlog().bytes > self._writer.spool.max_bytes // 2:
            raise NoHistoryError("PostgreSQL is behind, and the spool is half full", hint="see why it is slow or away")
        now = datetime.now(UTC)
        self._writer.put(
            SlotResult(
                target_id=self._target,
                service=SERVICE,
                target=self._host,
                poll=POLL,
                due=due,
                started=now,
                finished=now,
                outcome=Outcome.OK,
                worker=self._worker,
                events=tuple(map(_event, lines)),
            )
        )
        for line in lines:
            metrics.SHIPPED.labels(line.stream).inc(line.document["message"].count("\n") + 1)
        return ()

    def close(self) -> None:
        """Nothing: the connections are the runtime's."""


def _event(line: Line) -> Event:
    about = {name: value for name, value in line.document.items() if name not in ("@timestamp", "message")}
    message = line.document["message"] or " "  # an event has words
    if len(message) > MAX_TEXT:
        message = message[:MAX_TEXT]
        log = about.get("log", {})
        about["log"] = log | {"flags": [*log.get("flags", ()), "truncated"]}
    return Event(
        KIND,
        message,
        severity=severity_of(about.get("log", {}).get("level")),
        fingerprint=line.id,
        attributes={"stream_name": line.stream, **about},
        ts=moment_of(line.document["@timestamp"]),
    )
