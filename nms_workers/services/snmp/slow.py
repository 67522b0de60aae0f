"""Reading an agent by pysnmp, as `fast.py` reads it: for contexts of version 3, which gufo-snmp does not have."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from nms_workers.errors import ParseError, Refused
from nms_workers.services.snmp import exact
from nms_workers.services.snmp.fast import Budget, Learned, Row
from nms_workers.services.snmp.oid import Value, arcs_of
from nms_workers.services.snmp.target import SnmpTarget

_GET_AT_ONCE = 60


class SlowSession:
    """One read of one agent: the methods of `FastSession`, at a fiftieth of its speed.

    Every method raises Timeout, AuthError, Refused and ParseError as the functions of `exact.py` do.
    """

    def __init__(self, target: SnmpTarget, learned: Learned) -> None:
        self._target, self._learned = target, learned
        self._budget = Budget(target)

    def get_many(self, oids: Sequence[str]) -> dict[str, Value]:
        """The values of these instances; those that the agent does not have are left out."""
        found: dict[str, Value] = {}
        for at in range(0, len(oids), _GET_AT_ONCE):
            found |= exact.get(self._target, list(oids[at : at + _GET_AT_ONCE]))
        self._budget.spend(len(oids))
        return found

    def walk(self, base: str) -> Iterator[list[Row]]:
        """Everything below an object, in the agent's order, answer by answer.

        Raises:
            ParseError: the agent repeats itself or goes backwards: what came before it is good.
        """
        last, ended = base, False
        while not ended:
            answer = exact.get_bulk(self._target, last, self._learned.repetitions)
            if answer is None:
                if self._learned.repetitions == 1:
                    raise Refused(f"{self._target.address} says no at {last}: one row is too big for an answer")
                self._learned.repetitions //= 2
                continue
            rows, ended = answer
            self._budget.spend(len(rows))
            self._check(last, rows, ended=ended)
            below = [row for row in rows if row[0].startswith(f"{base}.")]
            ended |= len(below) < len(rows)
            if below:
                last = below[-1][0]
                yield below

    def _check(self, last: str, rows: Sequence[Row], *, ended: bool) -> None:
        """It goes forward from row to row: such a walk ends."""
        arcs = [arcs_of(last), *(arcs_of(name) for name, _ in rows)]
        if any(one >= other for one, other in pairwise(arcs)) or not (rows or ended):
            hint = "its SNMP agent is at fault"
            raise ParseError(f"{self._target.address} does not go forward in a walk at {last}", hint=hint)
