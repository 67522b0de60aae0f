"""An agent of our own that lies, stalls, loses packets, takes SET: version 2c over a real socket, by pysnmp's codec."""

import random
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from pyasn1.codec.ber import decoder, encoder
from pysnmp.proto import api
from pysnmp.proto.rfc1905 import EndOfMibView, GetBulkRequestPDU, GetNextRequestPDU, NoSuchInstance, SetRequestPDU

_V2C = api.PROTOCOL_MODULES[api.SNMP_VERSION_2C]
_TOO_BIG, _GEN_ERR, _NOT_WRITABLE = 1, 5, 17

Oid = tuple[int, ...]


@dataclass
class Behaviour:
    """How an agent answers. Counts are of requests; `lie` is one of the methods `_lie_*` below."""

    lose: float = 0.0  # share of requests that are not answered
    delay: float = 0.0  # seconds before each answer
    slow_at: Oid = ()  # takes 5 s for each answer at or after this object
    too_big_above: int = 0  # answers tooBig to more repetitions than these
    gen_err_at: Oid = ()  # answers genErr to requests at or after this object,
    gen_err_until: Oid = ()  # and before this one
    stall_after: int | None = None  # answers no more after so many requests
    lie: str = ""
    twice: bool = False  # every answer comes two times
    late: bool = False  # each answer comes only with the next request
    forgets: bool = False  # says yes to SET, and goes on as before


@dataclass
class Agent:
    """Answers on 127.0.0.1 as long as it is open.

    Args:
        rows: object identifiers to integers or bytes.
        writable: those of them that SET may change.
    """

    rows: Mapping[Oid, int | bytes]
    how: Behaviour = field(default_factory=Behaviour)
    seed: int = 7
    writable: frozenset[Oid] = frozenset()

    def __post_init__(self) -> None:
        self.requests = 0
        self.rows = dict(self.rows)
        self.was_set: list[tuple[Oid, int | bytes]] = []
        self.repetitions: list[int] = []
        self._order = sorted(self.rows)
        self._chance = random.Random(self.seed)  # noqa: S311 - no secret
        self._over = threading.Event()
        self._kept: bytes | None = None
        self._is_slow = False
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.1)
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while not self._over.is_set():
            try:
                data, address = self._socket.recvfrom(65_535)
            except TimeoutError:
                continue
            self.requests += 1
            silent = self.how.stall_after is not None and self.requests > self.how.stall_after
            if silent or self._chance.random() < self.how.lose or self._over.wait(self.how.delay):
                continue
            answer: bytes | None = self._answer(data)
            if self._is_slow and self._over.wait(5):
                continue
            if self.how.late:
                answer, self._kept = self._kept, answer
            for _ in range(1 + self.how.twice):
                if answer is not None:
                    self._socket.sendto(answer, address)

    def _answer(self, data: bytes) -> bytes:
        message, _ = decoder.decode(data, asn1Spec=_V2C.Message())
        request = _V2C.apiMessage.get_pdu(message)
        response = _V2C.apiMessage.get_response(message)
        pdu = _V2C.apiMessage.get_pdu(response)
        asked = [tuple(row[0]) for row in request[3]]
        self._is_slow = bool(self.how.slow_at) and asked[0] >= self.how.slow_at
        bulk = isinstance(request, GetBulkRequestPDU)
        repetitions = int(request[2]) if bulk else 1
        self.repetitions += [repetitions] if bulk else []
        rows: list[Any] = []
        if self.how.too_big_above and bulk and repetitions > self.how.too_big_above:
            _V2C.apiPDU.set_error_status(pdu, _TOO_BIG)
        elif self.how.gen_err_at and self.how.gen_err_at <= asked[0] < (self.how.gen_err_until or (9,)):
            _V2C.apiPDU.set_error_status(pdu, _GEN_ERR)
            _V2C.apiPDU.set_error_index(pdu, 1)
            rows = [(asked[0], _V2C.Null(""))]
        elif isinstance(request, SetRequestPDU):
            rows = self._set(pdu, request)
        elif bulk or isinstance(request, GetNextRequestPDU):
            rows = self._after(asked[0], repetitions)
        else:
            rows = [(oid, self._value(oid)) for oid in asked]
        if self.how.lie:
            rows = getattr(self, f"_lie_{self.how.lie}")(pdu, rows, repetitions)
        _V2C.apiPDU.set_varbinds(pdu, rows)
        return bytes(encoder.encode(response))

    def _set(self, pdu: Any, request: Any) -> list[Any]:
        """All of them or none (RFC 3416 section 4.2.5)."""
        asked = [(tuple(row[0]), _V2C.apiVarBind.get_oid_value(row)[1]) for row in request[3]]
        for place, (oid, _) in enumerate(asked, start=1):
            if oid not in self.writable:
                _V2C.apiPDU.set_error_status(pdu, _NOT_WRITABLE)
                _V2C.apiPDU.set_error_index(pdu, place)
                return asked
        for oid, value in asked:
            new = bytes(value) if isinstance(value, _V2C.OctetString) else int(value)
            self.was_set.append((oid, new))
            if not self.how.forgets:
                self.rows = {**self.rows, oid: new}
        return asked

    def _after(self, oid: Oid, count: int) -> list[Any]:
        rows = [(one, self._value(one)) for one in self._order if one > oid][:count]
        return rows or [(oid, EndOfMibView())]

    def _value(self, oid: Oid) -> Any:
        value = self.rows.get(oid)
        if value is None:
            return NoSuchInstance()
        return _V2C.OctetString(value) if isinstance(value, bytes) else _V2C.Counter64(value)

    @staticmethod
    def _lie_wrong_id(pdu: Any, rows: list[Any], _: int) -> list[Any]:
        _V2C.apiPDU.set_request_id(pdu, int(_V2C.apiPDU.get_request_id(pdu)) + 1)
        return rows

    @staticmethod
    def _lie_backwards(_: Any, rows: list[Any], __: int) -> list[Any]:
        return rows[::-1]

    @staticmethod
    def _lie_same_row(_: Any, rows: list[Any], count: int) -> list[Any]:
        return rows[:1] * count

    @staticmethod
    def _lie_empty(_: Any, __: list[Any], ___: int) -> list[Any]:
        return []

    def _lie_endless(self, _: Any, rows: list[Any], count: int) -> list[Any]:
        """Ever new rows of the same column."""
        start = self.requests * 1000
        column = rows[0][0][:-1]
        return [((*column, start + at), _V2C.Counter64(at)) for at in range(count)] if count > 1 else rows

    def _lie_loop(self, _: Any, rows: list[Any], count: int) -> list[Any]:
        """After the last row the first one again."""
        again = [(one, self._value(one)) for one in self._order][:count]
        return again if isinstance(rows[0][1], EndOfMibView) else rows
