"""Silencing at a real agent of 1.37 and at a stub of 2.9: done once, looked at by other means, and taken back."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import requests

from nms_workers.errors import AuthError, Refused
from nms_workers.services.netdata.client import NetdataClient
from nms_workers.services.netdata.service import Netdata
from tests.conftest import StartServer
from tests.servers import NetdataServer
from tests.services.netdata.conftest import Connect
from tests.services.netdata.support import SECONDS, act
from tests.services.records import await_true
from tests.stubs.netdata import NetdataStub

NOTHING = {"all": False, "type": "None", "silencers": []}


class Managed(NamedTuple):
    """An agent, and how to manage it without our code."""

    url: str
    key: str

    def ask(self, **query: str) -> Any:
        """What a command is answered with."""
        headers = {"X-Auth-Token": self.key}
        answer = requests.get(f"{self.url}/api/v1/manage/health", query, headers=headers, timeout=SECONDS)
        assert answer.ok, answer.text
        return answer.json() if query["cmd"] == "LIST" else answer.text

    def state(self) -> Any:
        """What is held back."""
        return self.ask(cmd="LIST")


@pytest.fixture
def real(agent: NetdataServer) -> Iterator[Managed]:
    """A real agent that holds nothing back, neither before nor after a test."""
    one = Managed(agent.url, agent.api_key.read_text())
    one.ask(cmd="RESET")
    yield one
    one.ask(cmd="RESET")


@pytest.fixture(params=["1.37", "2.9"])
def managed(request: pytest.FixtureRequest) -> Managed:
    """An agent of each version that holds nothing back."""
    if request.param == "1.37":
        found: Managed = request.getfixturevalue("real")
        return found
    stub: NetdataStub = request.getfixturevalue("stub")
    return Managed(stub.url, stub.key)


@pytest.fixture
def manager(managed: Managed, connect: Connect) -> NetdataClient:
    """Our client of it."""
    return connect(managed.url, managed.key)


def undo(client: NetdataClient, action: str, before: dict[str, Any]) -> Any:
    """What the fleet does to take an action back."""
    name = Netdata.actions()[action].undo
    assert name is not None
    return act(client, name, before=before)


def test_all_alarms_are_silenced_and_not_any_more(manager: NetdataClient, managed: Managed) -> None:
    change = act(manager, "silence_alarms")
    assert (change.changed, change.before) == (True, NOTHING)
    assert managed.state() == change.after == {"all": True, "type": "SILENCE", "silencers": []}
    assert not act(manager, "silence_alarms").changed
    assert not act(manager, "silence_alarms", alarm="nms*").changed, "of any is of these too"

    back = undo(manager, "silence_alarms", change.before)
    assert (back.changed, back.after, managed.state()) == (True, NOTHING, NOTHING)
    assert not undo(manager, "silence_alarms", change.before).changed


def test_alarms_are_silenced_by_patterns(manager: NetdataClient, managed: Managed) -> None:
    first = act(manager, "silence_alarms", alarm="nms_*", hosts="own*")
    second = act(manager, "silence_alarms", context="disk.space")
    assert not act(manager, "silence_alarms", hosts="own*", alarm="nms_*").changed
    held = [{"context": "disk.space"}, {"alarm": "nms_*", "hosts": "own*"}]
    assert managed.state() == {"all": False, "type": "SILENCE", "silencers": held}
    assert second.before == first.after

    assert undo(manager, "silence_alarms", second.before).changed
    assert managed.state() == first.after
    reset = act(manager, "reset_alarms")
    assert (reset.changed, reset.after) == (True, NOTHING)
    assert not act(manager, "reset_alarms").changed
    undo(manager, "reset_alarms", second.after)
    assert managed.state() == second.after, "several come back in their order"


def test_the_agent_itself_says_that_an_alarm_is_silenced(real: Managed, agent: NetdataServer, connect: Connect) -> None:
    client = connect(real.url, real.key)
    agent.level(60)
    await_true(lambda: [one.silenced for one in client.get_alarms()] == [False])
    change = act(client, "silence_alarms", alarm="nms_level")
    await_true(lambda: [one.silenced for one in client.get_alarms()] == [True])
    undo(client, "silence_alarms", change.before)
    await_true(lambda: [one.silenced for one in client.get_alarms()] == [False])


@pytest.mark.parametrize("disabled", [{"cmd": "DISABLE ALL"}, {"cmd": "DISABLE", "alarm": "x"}])
def test_what_is_disabled_is_not_weakened(manager: NetdataClient, managed: Managed, disabled: dict[str, str]) -> None:
    managed.ask(**disabled)
    before = managed.state()
    with pytest.raises(Refused, match=r"would let them be evaluated again \(reset_alarms"):
        act(manager, "silence_alarms", alarm="nms_*")
    assert managed.state() == before

    change = act(manager, "reset_alarms")
    assert managed.state() == NOTHING
    undo(manager, "reset_alarms", change.before)
    assert managed.state() == before


@pytest.mark.parametrize(
    "bad", ["!nms*", "nms level", "nms&cmd=RESET", "a|b", "a,b", "", "-x", "nms\n", "na\u00efve", "\u0661", "x" * 201]
)
@pytest.mark.parametrize("argument", ["alarm", "chart", "context", "hosts"])
def test_a_pattern_is_one_word(connect: Connect, free_port: Callable[[], int], argument: str, bad: str) -> None:
    client = connect(f"http://127.0.0.1:{free_port()}", "key")
    with pytest.raises(Refused, match=argument):
        act(client, "silence_alarms", **{argument: bad})


@pytest.mark.parametrize("before", [{}, {"all": True}, {"all": False, "type": "BAN", "silencers": []}])
def test_what_is_no_state_is_not_restored(manager: NetdataClient, managed: Managed, before: dict[str, Any]) -> None:
    act(manager, "silence_alarms")
    with pytest.raises(Refused, match="not what an agent held back"):
        act(manager, "restore_silencers", before=before)
    assert managed.state()["all"]


def test_the_key_is_needed(managed: Managed, connect: Connect) -> None:
    wrong = "2b7c1f9e-0000-4000-8000-000000000000"
    for client in (connect(managed.url), connect(managed.url, wrong)):
        with pytest.raises(AuthError, match=r"netdata\.api\.key of the agent's lib directory") as error:
            act(client, "silence_alarms")
        assert wrong not in f"{error.value} {client.target!r}"
    assert managed.state() == NOTHING


def test_an_address_that_may_not_manage(start_server: StartServer, connect: Connect) -> None:
    server: Any = start_server("netdata", conf={"web.allow management from": "192.0.2.1"})
    with pytest.raises(Refused, match="allow management from"):
        act(connect(server.url, server.api_key.read_text()), "reset_alarms")


def test_the_key_goes_nowhere_else(stub: NetdataStub, connect: Connect) -> None:
    client = connect(stub.url, stub.key)
    client.get_info()
    act(client, "silence_alarms")
    with_key = {one.path for one in stub.seen if "X-Auth-Token" in one.headers}
    assert with_key == {"/api/v1/manage/health"}
