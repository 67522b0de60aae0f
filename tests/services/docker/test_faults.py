"""What goes wrong on the way to an engine and inside it, and how it is told."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from pydantic import ValidationError

from nms_workers.errors import AuthError, Outcome, ParseError, Refused, TargetError, Timeout, Unreachable
from nms_workers.records import Record
from nms_workers.services.docker.service import Docker
from nms_workers.services.docker.target import DockerTarget
from nms_workers.transport.deadline import deadline
from tests.conftest import StartServer
from tests.servers import DockerServer
from tests.services.docker.conftest import Connect
from tests.services.docker.support import make, read
from tests.services.records import await_true, value
from tests.services.test_http_faults import FAULTS, Fault
from tests.transport.sites import Call, Site

OTHERWISE = {"403": Outcome.AUTH, "to the login": Outcome.PARSE, "login page": Outcome.PARSE}  # no one logs in here


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_what_else_may_be_on_that_port(connect: Connect, fault: Fault) -> None:
    with Site({"*": fault.route}) as site:
        client = connect(url=site.url.replace("http://", "tcp://"), timeout=0.5)
        with pytest.raises(TargetError) as error:
            read(client, "engine")
    assert error.value.outcome == OTHERWISE.get(fault.name, fault.outcome), error.value
    if error.value.outcome == Outcome.PARSE and "cut off" not in fault.name:
        assert "is no Docker engine" in error.value.message


def test_nobody_listens(connect: Connect, free_port: Callable[[], int], tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="nothing listens on that port"):
        read(connect(url=f"tcp://127.0.0.1:{free_port()}"), "engine")
    with pytest.raises(Unreachable, match=r"there is no such socket \(does the engine run"):
        read(connect(url=f"unix://{tmp_path}/docker.sock"), "engine")
    (tmp_path / "file").touch()
    with pytest.raises(Unreachable, match="nobody listens at that socket"):
        read(connect(url=f"unix://{tmp_path}/file"), "engine")


def test_an_engine_that_is_stopped_and_comes_back(start_server: StartServer, connect: Connect) -> None:
    server = start_server("docker")
    client = connect(url=server.url)
    assert read(client, "engine")
    server.stop()
    with pytest.raises(Unreachable, match=r"socket"):
        read(client, "engine")
    server.start()
    assert read(client, "engine")


def test_a_socket_we_may_not_open(engine: DockerServer, connect: Connect) -> None:
    engine.socket.chmod(0o600)
    client = connect(url=engine.url)
    os.seteuid(65_534)
    try:
        with pytest.raises(AuthError, match=r"we may not open that socket \(put the worker's user into the group"):
            read(client, "containers")
    finally:
        os.seteuid(0)
        engine.socket.chmod(0o660)


@contextmanager
def stalled(server: DockerServer) -> Iterator[None]:
    """Inside, the engine takes connections and answers nothing."""
    processes = psutil.Process(server.pid).children()
    for one in processes:
        one.send_signal(signal.SIGSTOP)
    await_true(lambda: all(one.status() == psutil.STATUS_STOPPED for one in processes))
    try:
        yield
    finally:
        for one in processes:
            one.send_signal(signal.SIGCONT)


def test_an_engine_that_answers_nothing(engine: DockerServer, connect: Connect) -> None:
    client = connect(url=engine.url, timeout=0.5)
    read(client, "engine")
    began = time.monotonic()
    with stalled(engine), pytest.raises(Timeout):
        read(client, "containers")
    patient = connect(url=engine.url)
    with stalled(engine), deadline(0.5), pytest.raises(Timeout):
        read(patient, "containers")
    assert time.monotonic() - began < 10
    assert read(patient, "engine")


def _drip(call: Call) -> None:
    call.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9000\r\n\r\n")
    call.drip(b'{"name": "' + b"x" * 8000)


@pytest.mark.parametrize("fault", [Call.stall, _drip], ids=["it says nothing", "it never ends"])
def test_one_container_that_hangs_costs_itself_only(
    engine: DockerServer, connect: Connect, fault: Callable[[Call], None]
) -> None:
    """A real engine, behind something that keeps the answers about one container to itself."""
    with engine.plain() as api:
        keys = {name: make(api, name) for name in ("first", "second", "third")}

        def pass_on(call: Call) -> None:
            if f"{keys['second']}/stats" in call.path:
                fault(call)
            else:
                answer = api.get(f"{api.base_url}{call.path}", timeout=30)
                call.answer(answer.status_code, answer.content)

        told: list[Record] = []
        with Site({"*": pass_on}) as site:
            client = connect(url=site.url.replace("http://", "tcp://"), stats_timeout=3.0)
            run = Docker.polls()["stats"].run(client)
            with pytest.raises(Refused, match=r"1 of 3 containers could not be read \(second\)"):
                told.extend(run)
    for name in ("first", "third"):
        assert value(told, "docker_container_processes", container=name) >= 1


def test_an_answer_that_is_too_big(engine: DockerServer, connect: Connect) -> None:
    with pytest.raises(ParseError, match=r"answered with more than 100 bytes \(raise max_body"):
        read(connect(url=engine.url, max_body=100), "engine")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:2375", "unix://docker.sock", "tcp://127.0.0.1", "tcp://user@127.0.0.1:2375", "tcp://a b:2375",
        "ssh://-oProxyCommand=x", "ssh://user:secret-word@host", "ssh://host/path", "tcp://127.0.0.1:2375/?a=b",
    ],
)  # fmt: skip
def test_urls_that_cannot_be(url: str) -> None:
    with pytest.raises(ValidationError) as error:
        DockerTarget(url=url)
    assert "secret-word" not in str(error.value)
