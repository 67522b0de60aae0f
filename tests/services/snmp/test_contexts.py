"""Contexts of version 3: one agent that shows another device in each, read by the slower library."""

from typing import Any

import pytest

from nms_workers.errors import ParseError, TargetError, Timeout
from nms_workers.services.snmp.client import SnmpClient
from nms_workers.services.snmp.fast import Learned
from nms_workers.services.snmp.slow import SlowSession
from nms_workers.services.snmp.target import SnmpTarget
from tests.servers.snmpsim import SWITCH, UPS, SnmpsimServer
from tests.services.snmp.faulty import Agent, Behaviour
from tests.services.snmp.test_faulty import AFTER, BASE, COLUMN, ROWS, WHOLE
from tests.services.snmp.test_profiles import Device, client, measured

SYSTEM, SYS_NAME, UPTIME = "1.3.6.1.2.1.1", "1.3.6.1.2.1.1.5.0", "1.3.6.1.2.1.1.3.0"
UPS_OUTPUT, NOWHERE = "1.3.6.1.2.1.33.1.4", "1.3.6.1.2.1.99.9"


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_AUTH", "auctoritas")
    monkeypatch.setenv("TEST_PRIV", "privatus")


def in_context(snmpsim: SnmpsimServer, context: str, **settings: Any) -> SnmpClient:
    """A client of the device that snmpsim shows its user in a context."""
    keys = {"auth_protocol": "md5", "auth_key": "env:TEST_AUTH", "priv_protocol": "des", "priv_key": "env:TEST_PRIV"}
    user = {"version": "3", "username": "simulator", "context": context, **keys}
    place = {"host": snmpsim.host, "port": snmpsim.port, "timeout": 10}
    return SnmpClient(SnmpTarget.model_validate(place | user | settings))


@pytest.mark.parametrize("repetitions", [50, 3])
def test_each_context_is_a_device(snmpsim: SnmpsimServer, device: Device, repetitions: int) -> None:
    ups, switch = (in_context(snmpsim, one, max_repetitions=repetitions) for one in (UPS, SWITCH))
    assert ups.get_many([SYS_NAME, UPTIME]).keys() == {SYS_NAME, UPTIME}
    for base in (SYSTEM, UPS_OUTPUT, NOWHERE):
        assert list(ups.walk(base)) == list(device(UPS).walk(base))
    assert switch.get(SYS_NAME) == device(SWITCH).get(SYS_NAME) != ups.get(SYS_NAME)
    assert measured(ups.poll("health")) == measured(device(UPS).poll("health"))


def test_the_bound_holds(snmpsim: SnmpsimServer) -> None:
    with pytest.raises(ParseError, match="more than 5 rows"):
        list(in_context(snmpsim, UPS, max_varbinds=5).walk(SYSTEM))


@pytest.mark.parametrize(
    ("how", "kept", "error", "words"),
    [
        (Behaviour(too_big_above=10), 100, type(None), ""),
        (Behaviour(lie="backwards"), 0, ParseError, "does not go forward"),
        (Behaviour(lie="loop"), 100, ParseError, "does not go forward"),
        (Behaviour(lie="empty"), 0, ParseError, "does not go forward"),
        (Behaviour(lie="endless"), 1000, ParseError, "more than 1000 rows"),
        (Behaviour(gen_err_at=(*COLUMN, 50)), 50, TargetError, "it failed (genErr)"),
        (Behaviour(stall_after=1), 50, Timeout, "no answer"),
    ],
    ids=["tooBig", "backwards", "loop", "empty", "endless", "genErr", "stall"],
)
def test_faulty_agents(how: Behaviour, kept: int, error: type, words: str) -> None:
    found: list[Any] = []
    ended: TargetError | None = None
    with Agent(ROWS if how.lie else ROWS | AFTER, how) as agent:
        target = client(agent, max_varbinds=1000, retries=0, timeout=0.3).target
        try:
            for some in SlowSession(target, Learned(50)).walk(BASE):
                found += [value for _, value in some]
        except TargetError as exc:
            ended = exc
    assert isinstance(ended, error)
    assert words in str(ended)
    assert len(found) == kept
    assert found[:50] == WHOLE[: min(50, kept)] or how.lie == "endless"
