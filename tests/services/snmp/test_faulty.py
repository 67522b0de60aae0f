"""Agents that lose, delay, repeat and lie: how the walk ends, what is kept of it, and how long it takes."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from nms_workers.errors import NmsError, ParseError, Refused, TargetError, Timeout
from nms_workers.records import SampleBlock
from nms_workers.services.snmp.client import SnmpClient
from nms_workers.services.snmp.target import SnmpTarget
from nms_workers.services.snmp.together import together
from nms_workers.transport.deadline import deadline
from tests.real.fleet import until
from tests.services.snmp.faulty import Agent, Behaviour

Rows = dict[tuple[int, ...], int | bytes]
COLUMN = (1, 3, 6, 1, 2, 1, 2, 2, 1, 10)
BASE = ".".join(map(str, COLUMN))
ROWS: Rows = {(*COLUMN, index): index * 10 for index in range(1, 101)}
AFTER: Rows = {(*COLUMN[:-1], 11, 1): 7}  # something of another column follows
UPTIME: Rows = {(1, 3, 6, 1, 2, 1, 1, 3, 0): 100, (1, 3, 6, 1, 2, 1, 1, 2, 0): 0}


def client(agent: Agent, **settings: Any) -> SnmpClient:
    given = {"host": "127.0.0.1", "port": agent.port, "community": "env:TEST_PUBLIC", "timeout": 0.3, **settings}
    return SnmpClient(SnmpTarget.model_validate(given))


def walked(of: SnmpClient) -> tuple[list[int], NmsError | None]:
    """The values that were had, and the error that ended it."""
    found: list[int] = []
    try:
        for rows in of.bulk_walk(BASE):
            found += [value for _, value in rows if isinstance(value, int)]
    except NmsError as exc:
        return found, exc
    return found, None


WHOLE = [index * 10 for index in range(1, 101)]


@pytest.mark.parametrize("rest", [AFTER, {}], ids=["more follows", "end of view"])
@pytest.mark.parametrize(
    "how",
    [
        Behaviour(),
        Behaviour(lose=0.3),
        Behaviour(twice=True),
        Behaviour(too_big_above=10),
        Behaviour(too_big_above=1),
        Behaviour(delay=0.05),
    ],
    ids=["well", "30 % lost", "answers twice", "tooBig above 10", "tooBig above 1", "slow"],
)
def test_it_is_read_whole(how: Behaviour, rest: Rows) -> None:
    with Agent(ROWS | rest, how) as agent:
        assert walked(client(agent, retries=8)) == (WHOLE, None)


def test_repetitions_are_learned_and_grow_again() -> None:
    with Agent(ROWS | AFTER, Behaviour(too_big_above=10)) as agent:
        one = client(agent)
        walked(one)
        learned = agent.repetitions[-1]
        assert learned <= 10
        agent.repetitions.clear()
        walked(one)
        assert agent.repetitions[0] <= 10 + 10 // 4 + 1, "it is not asked for 50 again"
        agent.how = Behaviour()
        for _ in range(12):
            walked(one)
        assert agent.repetitions[-1] == 50


@pytest.mark.parametrize(
    ("how", "kept", "error", "words"),
    [
        (Behaviour(lie="backwards"), 0, ParseError, "does not go forward"),
        (Behaviour(lie="same_row"), 0, ParseError, "does not go forward"),
        (Behaviour(lie="empty"), 0, ParseError, "answers 0 rows"),
        (Behaviour(lie="loop"), 100, ParseError, "does not go forward"),
        (Behaviour(lie="endless"), 1000, ParseError, "more than 1000 rows"),
        (Behaviour(lie="wrong_id"), 0, Timeout, "no answer"),
        (Behaviour(late=True), 0, Timeout, "no answer"),
        (Behaviour(stall_after=1), 50, Timeout, "no answer"),
        (Behaviour(gen_err_at=(*COLUMN, 50)), 50, Refused, "it failed (genErr)"),
        (Behaviour(lose=1.0), 0, Timeout, "no answer"),
        (Behaviour(delay=5.0), 0, Timeout, "no answer"),
    ],
    ids=["backwards", "same row", "empty", "loop", "endless", "wrong id", "late", "stall", "genErr", "dead", "5 s"],
)
def test_it_ends_and_what_came_before_is_kept(how: Behaviour, kept: int, error: type[TargetError], words: str) -> None:
    with Agent(ROWS, how) as agent:
        started = time.monotonic()
        values, ended = walked(client(agent, max_varbinds=1000, retries=1))
        taken = time.monotonic() - started
    assert isinstance(ended, error), ended
    assert words in str(ended)
    assert len(values) == kept
    assert values[:50] == WHOLE[: min(50, kept)] or how.lie == "endless"
    assert taken < 15


def test_who_allows_5_seconds_gets_the_answer() -> None:
    with Agent(ROWS, Behaviour(delay=5.0)) as agent:
        assert client(agent, timeout=20, retries=0).get(f"{BASE}.7") == 70


def test_the_deadline_ends_it() -> None:
    with Agent(ROWS, Behaviour(delay=0.2)) as agent:
        one = client(agent, max_repetitions=1, timeout=1)
        started = time.monotonic()
        with deadline(1.0):
            values, ended = walked(one)
        assert isinstance(ended, Timeout)
        assert time.monotonic() - started < 2
        assert values == WHOLE[: len(values)] != []


_ASK = """
import sys
from nms_workers.services.snmp.client import SnmpClient
from nms_workers.services.snmp.target import SnmpTarget
target = SnmpTarget.model_validate({"host": "127.0.0.1", "port": sys.argv[1], "community": "env:TEST_PUBLIC"})
print(SnmpClient(target).get(sys.argv[2]))
"""


def test_a_process_that_was_stopped_and_goes_on_asks_again() -> None:
    """Linux ends the wait of a socket with a time limit when a process goes on (signal(7)): nobody is unreachable."""
    with Agent(ROWS, Behaviour(delay=1.0)) as agent:
        argv = [sys.executable, "-c", _ASK, str(agent.port), f"{BASE}.1"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as asking:
            until(lambda: agent.requests, "it was asked")
            asking.send_signal(signal.SIGSTOP)
            until(lambda: psutil.Process(asking.pid).status() == psutil.STATUS_STOPPED, "it was stopped")
            asking.send_signal(signal.SIGCONT)
            out, err = asking.communicate(timeout=30)
    assert (out, asking.returncode) == ("10\n", 0), err


def test_answers_longer_than_a_buffer_are_asked_for_in_parts() -> None:
    rows: Rows = {(*COLUMN, index): bytes([index]) * 900 for index in range(1, 61)}
    with Agent(rows | AFTER) as agent:
        found = [value for _, value in client(agent).walk(BASE)]
    assert found == list(rows.values())


def test_a_table_at_fault_is_told_at_every_poll_and_all_else_is_read() -> None:
    names: Rows = {(1, 3, 6, 1, 2, 1, 31, 1, 1, 1, 1, index): b"Gi%d" % index for index in range(1, 101)}
    fast: Rows = {(1, 3, 6, 1, 2, 1, 31, 1, 1, 1, 15, index): 1000 for index in range(1, 101)}
    how = Behaviour(gen_err_at=(*COLUMN, 50), gen_err_until=(*COLUMN, 101))
    with Agent(ROWS | UPTIME | names | fast, how) as agent:
        one = client(agent)
        for _ in range(3):
            (_, block), (_, error) = together({"one": one}, lambda one: one.poll("interfaces"))
            assert isinstance(error, Refused)
            assert isinstance(block, SampleBlock)
            found = {(one.metric, dict(one.labels).get("interface")) for one in block.layout.members}
            assert ("snmp_interface_in_octets_total", "Gi50") in found
            assert ("snmp_interface_in_octets_total", "Gi51") not in found
            assert ("snmp_interface_speed_bits_per_second", "Gi100") in found
        agent.how = Behaviour()
        (block,) = one.poll("interfaces")
    assert isinstance(block, SampleBlock)
    assert sum(one.metric == "snmp_interface_in_octets_total" for one in block.layout.members) == 100


def test_a_stalled_agent_costs_only_itself() -> None:
    rows = ROWS | UPTIME
    with Agent(rows) as good, Agent(rows, Behaviour(stall_after=4)) as bad, Agent(rows, Behaviour(lose=1)) as dead:
        clients = {"good": client(good), "bad": client(bad, retries=1), "dead": client(dead, retries=1)}
        told: dict[str, list[Any]] = {name: [] for name in clients}
        for name, record in together(clients, lambda one: one.poll("interfaces")):
            told[name].append(record)
    (block,) = told["good"]
    assert isinstance(block, SampleBlock)
    assert sorted(block.values)[:100] == WHOLE[:100] or set(WHOLE) <= set(block.values)
    (error,) = told["dead"]
    assert isinstance(error, Timeout)
    assert isinstance(told["bad"][-1], Timeout)


@pytest.mark.parametrize("call", [lambda c: c.get("1.3.6.1.2.1.1.3.0"), lambda c: list(c.walk(BASE))])
def test_an_answer_that_is_no_snmp(call: Callable[[SnmpClient], object]) -> None:
    class Garbage(Agent):
        def _answer(self, _: bytes) -> bytes:
            return b"\x30\x82\xff\xff" + bytes(40)

    with Garbage(ROWS) as agent, pytest.raises((ParseError, Timeout)):
        call(client(agent, retries=0))
