"""What goes wrong on the way to an agent and inside it, and how it is told."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from nms_workers.errors import AuthError, ParseError, Refused, Timeout, Unreachable
from nms_workers.services.netdata.client import NetdataClient
from nms_workers.services.netdata.service import Netdata
from nms_workers.transport.deadline import deadline
from tests.conftest import StartServer
from tests.servers import NetdataServer
from tests.services.netdata.conftest import Connect
from tests.services.netdata.support import charts, read
from tests.services.records import value
from tests.stubs.netdata import CHILD, NetdataStub
from tests.transport.sites import Call, Site


def test_an_agent_that_comes_back_as_another_version(start_server: StartServer, connect: Connect) -> None:
    server = start_server("netdata")
    client = connect(server.url, retry={"attempts": 1})
    assert client.get_info().api == 1
    read(client, "charts")
    server.stop()
    with pytest.raises(Unreachable, match="nothing listens on that port"):
        read(client, "charts")

    newer = b'{"agents": [{"mg": "7a", "nm": "web"}], "nodes": [{"mg": "7a", "nm": "web", "state": "reachable"}]}'
    bodies = {"/api/v3/info": newer, "/api/v3/nodes": newer, "/api/v3/allmetrics": b"{}"}
    routes = {path: partial(Call.answer, body=body, Connection="close") for path, body in bodies.items()}
    with Site(routes, port=server.port) as site:
        assert value(read(client, "charts"), "netdata_charts", node="web") == 0
        assert value(read(client, "charts"), "netdata_charts", node="web") == 0
    assert [one.path for one in site.seen].count("/api/v3/info") == 1

    server.start()  # and between these two nobody asked
    with pytest.raises(Refused, match=r"is of another version than it was \(the next reading asks it anew"):
        read(client, "charts")
    assert charts(read(client, "charts"))


def test_bearer_token_protection(stub: NetdataStub, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    stub.bearer = "a-token-of-the-cloud"
    without = connect(stub.url)
    assert value(read(without, "info"), "netdata_feature_enabled", feature="bearer_protection") == 1
    for poll in [name for name in Netdata.polls() if name != "info"]:
        with pytest.raises(AuthError, match=r"bearer token protection is on there: set token .*Netdata Cloud"):
            read(without, poll)

    monkeypatch.setenv("TEST_TOKEN", stub.bearer)
    assert charts(read(connect(stub.url, token="env:TEST_TOKEN"), "charts"))
    monkeypatch.setenv("TEST_TOKEN", "an-old-token")
    with pytest.raises(AuthError) as error:
        read(connect(stub.url, token="env:TEST_TOKEN"), "charts")
    assert "an-old-token" not in str(error.value)


def test_an_address_that_may_not_ask(stub: NetdataStub, start_server: StartServer, connect: Connect) -> None:
    stub.forbidden = True
    with pytest.raises(Refused, match=r"allow dashboard from in netdata\.conf"):
        read(connect(stub.url), "info")
    server = start_server("netdata", conf={"web.allow dashboard from": "192.0.2.1"})
    with pytest.raises(Refused, match=r"403: we may not ask \(let the worker's address in"):
        read(connect(server.url), "info")


@contextmanager
def stalled(server: NetdataServer) -> Iterator[None]:
    """The agent takes connections and answers nothing."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def test_an_agent_that_stalls(agent: NetdataServer, connect: Connect) -> None:
    client = connect(agent.url, timeout={"read": 0.5, "total": 1}, retry={"attempts": 1})
    read(client, "charts")
    began = time.monotonic()
    with stalled(agent), pytest.raises(Timeout):
        read(client, "charts")
    patient = connect(agent.url)
    with stalled(agent), deadline(0.5), pytest.raises(Timeout):
        read(patient, "charts")
    assert time.monotonic() - began < 10
    assert read(patient, "charts")


def test_a_node_that_goes_between_two_questions(stub: NetdataStub, connect: Connect) -> None:
    client, gone = connect(stub.url), stub.nodes[1]
    run = Netdata.polls()["charts"].run(client)
    first = next(run)
    stub.nodes.remove(gone)
    assert {node for node, _, _ in charts([first, *run])} == {"parent"}
    assert [node.guid for node in client.get_nodes()] != [CHILD]


def test_an_answer_that_is_too_large(agent: NetdataServer, connect: Connect) -> None:
    client = connect(agent.url, max_body=20_000)
    with pytest.raises(ParseError, match=r"more than 20000 bytes \(raise max_body, or ask for less"):
        read(client, "charts")
    narrow = connect(agent.url, max_body=20_000, charts=["system.load"])
    assert charts(read(narrow, "charts"))


@pytest.mark.parametrize("answer", [b"{}", b"[]", b'{"agents": []}', b'{"agents": [{"name": "x"}]}', b'"agents"', b"7"])
def test_json_that_is_no_agents(connect: Connect, answer: bytes) -> None:
    with Site({"*": partial(Call.answer, body=answer)}) as site, pytest.raises(ParseError, match="is no Netdata agent"):
        read(connect(site.url), "info")


def test_something_that_is_no_netdata(
    session_server: StartServer, connect: Connect, free_port: Callable[[], int]
) -> None:
    with pytest.raises((ParseError, Unreachable)):
        read(connect(session_server("redis-7.0").url.replace("redis://:", "http://").partition("@")[0]), "info")
    with pytest.raises(Unreachable, match="nothing listens"):
        read(connect(f"http://127.0.0.1:{free_port()}"), "info")
    with Site({}) as site, pytest.raises(ParseError, match="is no Netdata agent"):
        read(connect(site.url), "info")


def test_a_path_that_leads_elsewhere(agent: NetdataServer, connect: Connect) -> None:
    with pytest.raises(ParseError, match="is no Netdata agent"):
        read(connect(f"{agent.url}/elsewhere"), "charts")


def test_the_client_is_used_again_after_close(client: NetdataClient) -> None:
    assert read(client, "charts")
    client.close()
    assert read(client, "charts")
