"""A thousand agents, a hundred of them dead and a few that lie: the others do not wait for these, every slot ends in
its interval, and what a liar told before it lied is kept.
"""

import json
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime

import pytest

from nms_workers.bench.snmp import agents
from nms_workers.fleet.slots import phase
from nms_workers.service import service
from tests.real.conftest import POSTGRES, REDIS
from tests.real.fleet import Fleet, until
from tests.real.ledger import Ledger
from tests.services.snmp.faulty import Agent, Behaviour
from tests.services.snmp.test_faulty import COLUMN, ROWS, UPTIME

pytestmark = pytest.mark.real(POSTGRES, REDIS)

POLL, EVERY, LIVING, DEAD = "interfaces", 30.0, 896, 100

_ENDED = """
SELECT t.name, (extract(epoch FROM r.due) * 1000)::bigint, r.outcome, extract(epoch FROM r.finished - r.due)::float8,
       r.samples
FROM poll_runs r JOIN targets t ON t.id = r.target_id WHERE r.due >= %s AND r.due < %s
"""


@pytest.fixture
def dead() -> Iterator[list[int]]:
    """Ports at which nothing answers, and nothing says so: what a device that is switched off is like."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(DEAD)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        yield [one.getsockname()[1] for one in sockets]


@pytest.fixture
def liars() -> Iterator[list[int]]:
    """Agents whose answers have no end, go backwards, come after 5 s, or say at a table that they cannot."""
    behaviours = [
        Behaviour(lie="endless"),
        Behaviour(lie="backwards"),
        Behaviour(slow_at=COLUMN),
        Behaviour(gen_err_at=(*COLUMN, 50)),
    ]
    with ExitStack() as held:
        yield [held.enter_context(Agent(ROWS | UPTIME, how)).port for how in behaviours]


def target(name: str, port: int) -> str:
    skip = [poll for poll in service("snmp").polls() if poll != POLL]
    return (
        f'[[targets]]\nservice = "snmp"\nname = "{name}"\nhost = "127.0.0.1"\nport = {port}\n'
        f'community = "env:PROBE_PASSWORD"\nevery = {{ {POLL} = "{EVERY:g}s" }}\nskip = {json.dumps(skip)}\n'
        "timeout = 1.0\nretries = 1\nmax_varbinds = 2000\n"
    )


def slots_of(name: str, begin: float) -> set[tuple[str, int]]:
    """The slot of a target that is due in the interval from `begin`, computed from the clock alone."""
    every, start = int(EVERY * 1000), int(begin * 1000)
    return {(name, start + (phase("snmp", name, POLL, every) - start) % every)}


def test_a_hundred_dead_agents_hold_up_none_of_the_others(
    fleet: Fleet, ledger: Ledger, dead: list[int], liars: list[int]
) -> None:
    with agents(LIVING, 4, 26) as living:
        ports = {f"on-{port}": port for port in living} | {f"off-{port}": port for port in dead}
        ports |= {f"liar-{port}": port for port in liars}
        fleet.configure(*(target(name, port) for name, port in ports.items()))
        fleet.crew("control", "polls", "beat")
        until(lambda: ledger.rows("SELECT 1 FROM poll_runs LIMIT 1"), "the first poll has ended")
        begin = float(int(time.time()) + 1)  # a whole second: slots are whole milliseconds
        wanted = set().union(*(slots_of(name, begin) for name in ports))
        span = [datetime.fromtimestamp(at, UTC) for at in (begin, begin + EVERY)]
        until(lambda: len(ledger.rows(_ENDED, *span)) >= len(ports), "every slot of one interval has ended", 4 * EVERY)
        rows = ledger.rows(_ENDED, *span)
    assert {(name, due) for name, due, *_ in rows} == wanted
    assert len(rows) == len(ports), "a slot has one row"
    assert Counter((name.partition("-")[0], outcome) for name, _, outcome, *_ in rows) == {
        ("on", "ok"): LIVING,
        ("off", "timeout"): DEAD,
        ("liar", "partial"): len(liars),
    }
    assert max(after for *_, after, _ in rows) < EVERY, "it ended before the next one was due"
    values = {samples for name, *_, samples in rows if name.startswith("on")}
    assert len(values) == 1, "they are alike, and each was read whole"
    assert min(values) > 80
