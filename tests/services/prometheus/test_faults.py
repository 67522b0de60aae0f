"""What goes wrong on the way to a real server; the faults that all HTTP services share are in `test_http_faults.py`."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from nms_workers.errors import ParseError, Timeout, Unreachable
from nms_workers.transport.deadline import deadline
from tests.conftest import StartServer
from tests.servers import Server
from tests.services.prometheus.conftest import Connect
from tests.services.prometheus.support import Plain, read
from tests.services.records import value
from tests.transport.sites import Call, Site

SECRET = "s3cr3t-t0ken-value"


def test_a_server_that_stops_and_comes_back(start_server: StartServer, connect: Connect) -> None:
    server = start_server("prometheus")
    client = connect(server.url, retry={"attempts": 1})
    assert value(read(client, "server"), "prometheus_server_ready") == 1
    server.kill()
    with pytest.raises(Unreachable, match="nothing listens on that port"):
        read(client, "server")
    server.start()
    assert value(read(client, "server"), "prometheus_server_ready") == 1


@contextmanager
def stalled(server: Server) -> Iterator[None]:
    """The server takes connections and answers nothing."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def test_a_server_that_stalls(changed_server: Server, connect: Connect) -> None:
    client = connect(changed_server.url, timeout={"read": 0.5, "total": 1}, retry={"attempts": 1})
    patient = connect(changed_server.url)
    began = time.monotonic()
    with stalled(changed_server):
        with pytest.raises(Timeout):
            read(client, "targets")
        with deadline(0.5), pytest.raises(Timeout):
            patient.query("up")
    assert time.monotonic() - began < 10
    assert patient.query("up").rows


def test_a_query_that_takes_longer_than_it_may(server: Server, connect: Connect, plain: Plain) -> None:
    """The server ends it, and says so."""
    client = connect(server.url, retry={"attempts": 1})
    heavy = "sum(" + " + ".join(["rate(prometheus_http_requests_total[5m:1s])"] * 200) + ")"
    with pytest.raises(Timeout, match=r"timed out.*raise --query\.timeout"):
        client.query_range(heavy, start=time.time() - 10_000, end=time.time(), step=1, timeout=0.05)
    assert plain.value("count(up)") == 2


def huge(call: Call) -> None:
    """An answer of 50 MB."""
    part = b'{"labels":{"job":"a"},"scrapePool":"a","scrapeUrl":"http://a","health":"up"},' * 10_000
    call.send_response(200)
    call.send_header("Content-Type", "application/json")
    call.end_headers()
    call.wfile.write(b'{"status":"success","data":{"activeTargets":[')
    for _ in range(50_000_000 // len(part)):
        call.wfile.write(part)
    call.close_connection = True


def test_an_answer_that_is_too_large(connect: Connect) -> None:
    with Site({"*": huge}) as site:
        client = connect(site.url, max_body=5_000_000, retry={"attempts": 1})
        with pytest.raises(ParseError, match=r"more than 5000000 bytes \(raise max_body, or ask for less\)"):
            read(client, "targets")


def test_no_secret_in_what_is_told(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_SECRET", SECRET)
    said = b'{"status": "error", "errorType": "bad_data", "error": "who is Bearer?"}'
    with Site({"*": lambda call: call.answer(400, said)}) as site:
        client = connect(site.url, token="env:TEST_SECRET")
        with pytest.raises(Exception, match="who is Bearer") as error:
            read(client, "targets")
        assert site.seen[0].headers["Authorization"] == f"Bearer {SECRET}"
    for told in (str(error.value), repr(client), repr(client.target), client.target.model_dump_json()):
        assert SECRET not in told
