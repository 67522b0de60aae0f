"""One run of a poll: lock, breaker, client, records, outcome, store. A target that fails costs only itself."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime

import redis
from pydantic import ValidationError

from nms_workers.errors import NmsError, Outcome, TargetError
from nms_workers.fleet.clients import Clients
from nms_workers.fleet.flight import Flights, Running
from nms_workers.fleet.harvest import Harvest
from nms_workers.fleet.inventory import Target
from nms_workers.records import Record
from nms_workers.service import Client, Poll, Service, service
from nms_workers.store.slot import SlotResult
from nms_workers.store.writer import Writer
from nms_workers.transport.breaker import Breakers
from nms_workers.transport.deadline import deadline, remaining

log = logging.getLogger(__name__)

_DOWN = (Outcome.UNREACHABLE, Outcome.TIMEOUT)
LOCK_MARGIN = 5.0  # seconds the lock outlives the deadline: a client may overrun by one read timeout


@dataclass
class _Flight:
    """A slot on its way: what it brought in and how it ended so far."""

    target: Target
    due_ms: int
    harvest: Harvest
    started: datetime
    error: NmsError | None = None
    fault: str = ""

    def fail(self, exc: Exception) -> None:
        """End with this error; a fault of ours is logged with its traceback, here only."""
        if isinstance(exc, NmsError):
            self.error = exc
        elif isinstance(exc, ValidationError):
            self.fault = "its settings do not fit the service any more: run `nms-workers config check`"
        elif isinstance(exc, redis.RedisError):
            self.fault = f"Redis went away: {type(exc).__name__}"
        else:
            self.fault = f"a fault in the poll: {type(exc).__name__}"
            log.error("%s: a fault in the poll", self.target, exc_info=exc)

    def outcome(self) -> tuple[Outcome, str]:
        """The outcome and one line about it."""
        if self.fault:
            own, detail = Outcome.ERROR, self.fault
        elif self.error:
            own = self.error.outcome if isinstance(self.error, TargetError) else Outcome.ERROR
            detail = str(self.error)
        elif self.harvest.faults:
            return Outcome.PARTIAL, self.harvest.faults
        else:
            return Outcome.OK, ""
        if self.harvest and own not in (Outcome.UNCHANGED, Outcome.SKIPPED):
            return Outcome.PARTIAL, f"{own}: {detail}"
        return own, detail


class Runner:
    """Runs slots and hands what they brought in to the writer.

    Args:
        worker: this worker's name, `host:pid`.
    """

    def __init__(self, flights: Flights, breakers: Breakers, clients: Clients, writer: Writer, worker: str) -> None:
        self._flights, self._breakers, self._clients = flights, breakers, clients
        self._writer, self._worker = writer, worker
        self._failing: dict[tuple[int, str], Outcome] = {}

    def run(self, kind: str, poll: str, slots: Sequence[tuple[Target, int]], *, manual: bool = False) -> dict[str, str]:
        """Poll these slots and store how each ended.

        Returns:
            the outcome by target name, for whoever watches the task.
        """
        of = service(kind)
        declared = of.polls()[poll]
        read = self._read_shard if declared.shard > 1 else self._read_each
        return {
            flight.target.name: str(self._store(declared, flight, manual=manual))
            for flight in read(of, declared, slots)
        }

    def _read_each(self, of: type[Service], poll: Poll, slots: Sequence[tuple[Target, int]]) -> Iterator[_Flight]:
        for target, due_ms in slots:
            flight = _begin(poll, target, due_ms)
            with ExitStack() as held:
                client = self._board(held, of, poll, flight)
                if client:
                    try:
                        with deadline(_limit(poll, target)):
                            for record in poll.run(client):
                                flight.harvest.add(record)
                                remaining(1.0)
                    except Exception as exc:  # noqa: BLE001 - whatever a service does costs only this slot
                        flight.fail(exc)
                    self._tell_breaker(of, flight)
                yield flight

    def _read_shard(self, of: type[Service], poll: Poll, slots: Sequence[tuple[Target, int]]) -> Iterator[_Flight]:
        flights = {target.name: _begin(poll, target, due_ms) for target, due_ms in slots}
        with ExitStack() as held:
            clients = self._board_all(held, of, poll, list(flights.values()))
            if clients:
                limit = min(_limit(poll, flights[name].target) for name in clients)
                self._read_together(poll, clients, flights, limit)
            self._tell_breaker(of, *(flights[name] for name in clients))
            yield from flights.values()

    @staticmethod
    def _read_together(poll: Poll, clients: Mapping[str, Client], flights: Mapping[str, _Flight], limit: float) -> None:
        try:
            with deadline(limit):
                for name, item in poll.run(clients):
                    if isinstance(item, NmsError):
                        flights[name].fail(item)
                    else:
                        _add(flights[name], item)
                    remaining(1.0)
        except Exception as exc:  # noqa: BLE001 - what ends the whole read ends each target that had not failed yet
            for name in clients:
                if not flights[name].error:
                    flights[name].fail(exc)

    def _board(self, held: ExitStack, of: type[Service], poll: Poll, flight: _Flight) -> Client | None:
        """Take the lock and the client; None, with the reason in the flight, when this slot must not be polled."""
        target = flight.target
        try:
            limit = _limit(poll, target)
            held.enter_context(self._flights.flight(target.id, poll.name, flight.due_ms, limit + LOCK_MARGIN))
            client = self._clients.get(target)
            self._breakers.allow(str(target), of.breaker)
        except Exception as exc:  # noqa: BLE001 - a client that cannot be built costs only this slot
            flight.fail(exc)
            return None
        return client

    def _board_all(
        self, held: ExitStack, of: type[Service], poll: Poll, flights: Sequence[_Flight]
    ) -> dict[str, Client]:
        """`_board` for a whole shard, by target: two round trips to Redis instead of two for each."""
        slots = [(one.target.id, one.due_ms, _limit(poll, one.target) + LOCK_MARGIN) for one in flights]
        try:
            locked = held.enter_context(self._flights.flights(poll.name, slots))
        except redis.RedisError as exc:
            for flight in flights:
                flight.fail(exc)
            return {}
        boarded: dict[str, tuple[_Flight, Client]] = {}
        for flight, refused in zip(flights, locked, strict=True):
            if refused:
                flight.fail(refused)
                continue
            try:
                boarded[str(flight.target)] = flight, self._clients.get(flight.target)
            except Exception as exc:  # noqa: BLE001 - a client that cannot be built costs only this slot
                flight.fail(exc)
        clients: dict[str, Client] = {}
        allowed = self._breakers.allow_all(list(boarded), of.breaker)
        for (flight, client), refused in zip(boarded.values(), allowed, strict=True):
            if refused:
                flight.fail(refused)
            else:
                clients[flight.target.name] = client
        return clients

    def _tell_breaker(self, of: type[Service], *flights: _Flight) -> None:
        """What says nothing about the target, a fault of ours or a skip, leaves its breaker as it is."""
        well: list[str] = []
        for flight in flights:
            outcome = flight.error.outcome if isinstance(flight.error, TargetError) else None
            if outcome in _DOWN:
                self._breakers.failure(str(flight.target), of.breaker)
            elif outcome is not Outcome.SKIPPED and not flight.fault and (outcome or not flight.error):
                well.append(str(flight.target))
        self._breakers.success_all(well)

    def _store(self, poll: Poll, flight: _Flight, *, manual: bool) -> Outcome:
        outcome, detail = flight.outcome()
        if isinstance(flight.error, Running):
            return outcome  # a row of ours would keep the real one out of the ledger
        read_at = flight.started
        blocks, layouts = flight.harvest.blocks(read_at)
        result = SlotResult(
            target_id=flight.target.id,
            service=flight.target.service,
            target=flight.target.name,
            poll=poll.name,
            due=datetime.fromtimestamp(flight.due_ms / 1000, UTC),
            started=None if outcome is Outcome.SKIPPED else flight.started,
            finished=datetime.now(UTC),
            outcome=outcome,
            detail=detail[:1000],
            worker=self._worker,
            manual=manual,
            blocks=tuple(blocks),
            events=tuple(flight.harvest.events),
            entities=tuple(flight.harvest.entities),
            links=tuple(flight.harvest.links),
            enumerated=tuple(sorted(poll.enumerates)),
            complete=outcome is Outcome.OK,
        )
        self._writer.put(result, layouts)
        self._log_change(result)
        return outcome

    def _log_change(self, result: SlotResult) -> None:
        """Once when a poll begins to fail and once when it goes well again, as this worker sees it."""
        if result.outcome is Outcome.SKIPPED:
            return
        key, what = (result.target_id, result.poll), f"{result.service}/{result.target} {result.poll}"
        before = self._failing.pop(key, Outcome.OK)
        if not result.outcome.good:
            self._failing[key] = result.outcome
        if before.good and not result.outcome.good:
            log.warning("%s: %s: %s", what, result.outcome, result.detail)
        elif result.outcome.good and not before.good:
            log.info("%s: well again, it was %s", what, before)


def _begin(poll: Poll, target: Target, due_ms: int) -> _Flight:
    return _Flight(target, due_ms, Harvest(poll.volatile, target.max_series), datetime.now(UTC))


def _limit(poll: Poll, target: Target) -> float:
    """Seconds one run may take: what the poll declares, scaled down where a target is polled more often."""
    return min(poll.deadline, target.every.get(poll.name, poll.every) * 0.8)


def _add(flight: _Flight, record: Record) -> None:
    try:
        flight.harvest.add(record)
    except TargetError as exc:
        flight.fail(exc)
