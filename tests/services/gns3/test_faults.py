"""What goes wrong on the way to a server and inside it, and how it is told."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from requests import PreparedRequest

from nms_workers.change import Change, kept_by
from nms_workers.errors import AuthError, ParseError, Timeout, Underway, Unreachable
from nms_workers.services.gns3 import waiting
from nms_workers.services.gns3.client import Gns3Client
from nms_workers.transport.deadline import deadline
from tests.conftest import StartServer
from tests.servers import GNS3, Server
from tests.services.gns3.conftest import Connect
from tests.services.gns3.support import Plain, act, read
from tests.services.records import await_true


def logins(sent: list[PreparedRequest]) -> int:
    """How often a token was asked for."""
    return sum(str(one.url).endswith("/v3/access/users/authenticate") for one in sent)


@pytest.mark.parametrize("login", [{"password": "env:TEST_WRONG"}, {"username": "nobody"}])
def test_credentials_that_are_not_accepted(
    server: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch, login: dict[str, str]
) -> None:
    monkeypatch.setenv("TEST_WRONG", "not-the-password")
    client = connect(server, **login)
    with pytest.raises(AuthError, match="check username and password") as error:
        read(client, "nodes")
    assert "not-the-password" not in str(error.value)
    assert server.password not in str(error.value)


def test_no_credentials_at_all(server: Server, connect: Connect) -> None:
    with pytest.raises(AuthError, match="check username and password"):
        read(connect(url=server.url), "projects")


def test_a_token_that_somebody_else_keeps(
    session_server: StartServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = session_server("gns3-3.0", "gns3")
    monkeypatch.setenv("TEST_TOKEN", Plain(server).token())
    assert read(connect(server, token="env:TEST_TOKEN"), "templates")
    monkeypatch.setenv("TEST_TOKEN", "eyJ.not.valid")
    with pytest.raises(AuthError) as error:
        read(connect(server, token="env:TEST_TOKEN"), "templates")
    assert "eyJ" not in str(error.value)


def test_one_token_serves_many_requests(
    session_server: StartServer, connect: Connect, sent: list[PreparedRequest]
) -> None:
    client = connect(session_server("gns3-3.0", "gns3"))
    for poll in ("projects", "nodes", "templates", "statistics"):
        read(client, poll)
    assert logins(sent) == 1


def test_a_token_is_renewed_when_refused_and_before_it_ends(
    start_server: StartServer, connect: Connect, sent: list[PreparedRequest]
) -> None:
    server = start_server("gns3-3.0")
    client = connect(server)
    assert read(client, "templates")
    (server.folder / "secrets" / "gns3_jwt_secret_key").unlink()
    server.conf = {"Controller.jwt_access_token_expire_minutes": "0"}
    server.prepare()
    server.restart()
    assert read(client, "templates")
    assert logins(sent) == 2, "the token we held was signed with another key"
    await_true(lambda: client.get_projects() == [] and logins(sent) >= 4)  # it is told in whole seconds when one ends


@pytest.mark.parametrize("name", GNS3)
def test_a_server_that_stops_and_comes_back(name: str, start_server: StartServer, connect: Connect) -> None:
    server = start_server(name)
    client = connect(server, retry={"attempts": 1})
    act(client, "create_project", project="lab")
    server.kill()
    with pytest.raises(Unreachable, match="nothing listens on that port"):
        read(client, "projects")
    server.start()
    assert [one.name for one in client.get_projects()] == ["lab"]


@contextmanager
def stalled(server: Server) -> Iterator[None]:
    """The server takes connections and answers nothing."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def test_a_server_that_stalls(server: Server, connect: Connect) -> None:
    client = connect(server, timeout={"read": 0.5, "total": 1})
    client.get_version()
    began = time.monotonic()
    with stalled(server), pytest.raises(Timeout):
        read(client, "projects")
    assert time.monotonic() - began < 3
    patient = connect(server)
    with stalled(server), deadline(0.5), pytest.raises(Timeout):
        read(patient, "projects")
    assert time.monotonic() - began < 6
    assert read(patient, "projects")


def slow_node(client: Gns3Client) -> None:
    """A lab whose PC1 takes 6 seconds to start."""
    act(client, "create_project", project="lab")
    slow = {"startup_script": "# slow 6\n"}
    act(client, "create_node", project="lab", node="PC1", node_type="vpcs", properties=slow)


def test_a_start_that_takes_longer_than_an_answer_may(server: Server, connect: Connect, plain: Plain) -> None:
    slow_node(connect(server))
    client = connect(server, timeout={"read": 3, "total": 3})
    client.get_projects()
    change = act(client, "start_node", project="lab", nodes=["PC1"])
    assert change.after == {"PC1": "started"}
    assert plain.states("lab") == {"PC1": "started"}


def test_a_start_that_takes_long_gives_the_worker_back_and_is_asked_for_once(
    server: Server,
    connect: Connect,
    plain: Plain,
    monkeypatch: pytest.MonkeyPatch,
    sent: list[PreparedRequest],
) -> None:
    slow_node(connect(server))
    monkeypatch.setattr(waiting, "_PATIENCE", 0.5)
    client = connect(server, timeout={"read": 3, "total": 3})
    client.get_projects()
    asked: set[str] = set()

    def one_run() -> Change:
        with kept_by(lambda _: None, asked):
            return act(client, "start_node", project="lab", nodes=["PC1"])

    with pytest.raises(Underway, match=r"^it is not yet so that PC1 is started$"):
        one_run()
    monkeypatch.setattr(waiting, "_PATIENCE", 30.0)
    assert one_run().after == {"PC1": "started"}
    assert plain.states("lab") == {"PC1": "started"}
    assert len([one for one in sent if one.method == "POST" and str(one.url).endswith("/start")]) == 1


def test_a_job_that_runs_out_of_time_can_be_run_again(server: Server, connect: Connect, plain: Plain) -> None:
    client = connect(server)
    slow_node(client)
    began = time.monotonic()
    with deadline(1.5), pytest.raises(Timeout):
        act(client, "start_node", project="lab", nodes=["PC1"])
    assert time.monotonic() - began < 2.5
    act(client, "start_node", project="lab", nodes=["PC1"])  # it may have come up meanwhile
    assert plain.states("lab") == {"PC1": "started"}


def test_something_that_is_no_gns3(session_server: StartServer, connect: Connect, free_port: Callable[[], int]) -> None:
    with pytest.raises((ParseError, Unreachable)):
        read(connect(url=session_server("redis-7.0").url.replace("redis://:", "http://").partition("@")[0]), "projects")
    with pytest.raises(Unreachable, match="nothing listens"):
        read(connect(url=f"http://127.0.0.1:{free_port()}"), "projects")


def test_a_path_that_leads_elsewhere(session_server: StartServer, connect: Connect) -> None:
    server = session_server("gns3-2.2", "gns3")
    with pytest.raises(ParseError, match=r"is no GNS3 server \(check host and port"):
        read(connect(url=f"{server.url}/elsewhere"), "projects")


def test_a_password_is_never_shown(server: Server, connect: Connect) -> None:
    client = connect(server)
    client.get_projects()
    assert server.password not in f"{client.target!r} {client.target.model_dump_json()} {client!r}"
