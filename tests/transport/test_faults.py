"""Everything that can go wrong with an answer, and the outcome it must have. Real sockets, no stand-ins."""

import gzip
import logging
import time
import traceback
from collections.abc import Callable
from typing import NamedTuple

import pytest

from nms_workers.errors import AuthError, NmsError, Outcome, ParseError, Refused, TargetError, Timeout, Unreachable
from nms_workers.transport.deadline import deadline
from nms_workers.transport.http import HttpClient, HttpSettings
from tests.transport.sites import Call, Route, Site

TOKEN = "s3cr3t-t0ken-value"
LOGIN = b'<!doctype html><title>Sign in</title><form><input name="p" type="password"></form>'


def raw(data: bytes, then: Callable[[Call], object] = Call.hang_up) -> Route:
    """Writes these bytes, and then does that."""

    def route(call: Call) -> None:
        call.wfile.write(data)
        then(call)

    return route


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
BOMB = gzip.compress(b" " * 3_000_000)


class Fault(NamedTuple):
    name: str
    route: Route
    outcome: Outcome
    words: str


FAULTS = (
    Fault("stall before headers", Call.stall, Outcome.TIMEOUT, "no whole answer"),
    Fault("stall in the body", raw(HEAD + b"{", Call.stall), Outcome.TIMEOUT, "no whole answer"),
    Fault(
        "drip of headers", lambda c: c.drip(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 900), Outcome.TIMEOUT, "no whole answer"
    ),
    Fault("drip of body", raw(HEAD, lambda c: c.drip(b" " * 900)), Outcome.TIMEOUT, "no whole answer"),
    Fault("drip of chunks", raw(CHUNKED, lambda c: c.drip(b"1\r\n \r\n" * 200)), Outcome.TIMEOUT, "no whole answer"),
    Fault("cut off", raw(HEAD + b'{"a":'), Outcome.PARSE, "cut off"),
    Fault("cut off chunks", raw(CHUNKED + b"5\r\n12"), Outcome.PARSE, "cut off"),
    Fault("no chunk size", raw(CHUNKED + b"zz\r\n12"), Outcome.PARSE, "cut off"),
    Fault("reset before headers", Call.reset, Outcome.UNREACHABLE, "closed the connection"),
    Fault("reset in the body", raw(HEAD, Call.reset), Outcome.UNREACHABLE, "closed the connection"),
    Fault("closed without a word", Call.hang_up, Outcome.UNREACHABLE, "closed the connection"),
    Fault("no HTTP", raw(b"220 mail.example ESMTP\r\n"), Outcome.PARSE, "no HTTP"),
    Fault("web page", lambda c: c.answer(body=b"\n <html>hello</html>"), Outcome.PARSE, "web page instead of JSON"),
    Fault("login page", lambda c: c.answer(body=LOGIN), Outcome.AUTH, "login page"),
    Fault("cut-off JSON", lambda c: c.answer(body=b'{"data": [1, 2'), Outcome.PARSE, "no JSON"),
    Fault("empty", lambda c: c.answer(body=b""), Outcome.PARSE, "0 bytes of no JSON"),
    Fault("broken gzip", lambda c: c.answer(body=b"nozip", Content_Encoding="gzip"), Outcome.PARSE, "decompressed"),
    Fault("too large", lambda c: c.answer(body=b" " * 2_000_001), Outcome.PARSE, "more than 2000000 bytes"),
    Fault(
        "gzip bomb", lambda c: c.answer(body=BOMB, Content_Encoding="gzip"), Outcome.PARSE, "more than 2000000 bytes"
    ),
    Fault("400", lambda c: c.answer(400, b'{"error": "bad query"}'), Outcome.REFUSED, "bad query"),
    Fault("401", lambda c: c.answer(401, b"who are you"), Outcome.AUTH, "check username"),
    Fault("403", lambda c: c.answer(403), Outcome.REFUSED, "lack the permission"),
    Fault("404", lambda c: c.answer(404), Outcome.REFUSED, "version of the target"),
    Fault("408", lambda c: c.answer(408), Outcome.TIMEOUT, "408"),
    Fault("429 alone", lambda c: c.answer(429), Outcome.REFUSED, "poll less often"),
    Fault("429 for an hour", lambda c: c.answer(429, Retry_After="3600"), Outcome.REFUSED, "again in 3600 s"),
    Fault("500", lambda c: c.answer(500, b"<h1>oops</h1>"), Outcome.REFUSED, "own log"),
    Fault("502", lambda c: c.answer(502), Outcome.UNREACHABLE, "behind it"),
    Fault("503", lambda c: c.answer(503), Outcome.UNREACHABLE, "overloaded"),
    Fault("503 for an hour", lambda c: c.answer(503, Retry_After="3600"), Outcome.UNREACHABLE, "back in 3600 s"),
    Fault("504", lambda c: c.answer(504), Outcome.TIMEOUT, "504"),
    Fault("599", lambda c: c.answer(599), Outcome.REFUSED, "no standard status"),
    Fault("to the login", lambda c: c.answer(302, Location="/login?next=%2F"), Outcome.AUTH, "login page"),
    Fault("moved", lambda c: c.answer(301, Location="https://elsewhere/x?token=1"), Outcome.REFUSED, "elsewhere/x "),
    Fault("endless redirect", lambda c: c.answer(307, Location="/?"), Outcome.REFUSED, "has moved"),
    Fault("redirect nowhere", lambda c: c.answer(302), Outcome.REFUSED, "302"),
)


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TEST_TOKEN", TOKEN)
    return "env:TEST_TOKEN"


def settings(url: str, token: str, **more: object) -> HttpSettings:
    quick = {"connect": 1, "read": 0.4, "total": 0.8}
    options = {"url": url, "token": token, "timeout": quick, "retry": {"attempts": 1}, "max_body": 2_000_000}
    return HttpSettings.model_validate(options | more)


def failure(call: Callable[[], object]) -> tuple[TargetError, float]:
    """What it raised, and after how many seconds."""
    started = time.monotonic()
    with pytest.raises(TargetError) as caught:
        call()
    return caught.value, time.monotonic() - started


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_outcome(fault: Fault, token: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with Site({"/": fault.route}) as site, HttpClient(settings(site.url, token, follow_redirects=True)) as client:
        error, seconds = failure(lambda: client.json("/"))
    assert error.outcome == fault.outcome
    assert fault.words in str(error)
    assert "127.0.0.1" in str(error)
    assert seconds < 2
    assert TOKEN not in caplog.text + "".join(traceback.format_exception(error))


def test_closed_port(token: str, free_port: Callable[[], int]) -> None:
    client = HttpClient(settings(f"http://127.0.0.1:{free_port()}", token))
    error, _ = failure(lambda: client.get(params={"q": TOKEN[::-1]}))
    assert isinstance(error, Unreachable)
    assert "nothing listens on that port" in str(error)
    assert TOKEN[::-1] not in "".join(traceback.format_exception(error))


def test_unknown_name(token: str) -> None:
    error, _ = failure(HttpClient(settings("http://no-such-host.invalid", token)).get)
    assert isinstance(error, Unreachable)
    assert "no such name" in str(error)


def test_no_connection_in_time(token: str) -> None:
    """A listener whose queue is full lets the next connection wait: the kernel drops its SYN."""
    import socket  # noqa: PLC0415 - nobody else here touches raw sockets

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        quick = {"connect": 0.3, "read": 5, "total": 5}
        error, seconds = failure(HttpClient(settings(url, token, timeout=quick)).get)
        for one in waiting:
            one.close()
    assert isinstance(error, Unreachable)
    assert "no connection in time" in str(error)
    assert seconds < 1


def test_an_echoed_secret_is_not_shown(token: str) -> None:
    with Site({"/": lambda c: c.answer(403, f"no {c.headers['Authorization']}".encode())}) as site:
        error, _ = failure(HttpClient(settings(site.url, token)).get)
    assert TOKEN not in str(error)
    assert "***" in str(error)


@pytest.mark.parametrize("route", [lambda c: c.answer(500), Call.reset], ids=["500", "reset"])
def test_query_is_not_shown(route: Route, token: str) -> None:
    """Neither in the message nor in what led to it, which a traceback would show."""
    word = TOKEN[::-1]
    with Site({"/": route}) as site:
        error, _ = failure(lambda: HttpClient(settings(site.url, token)).get("/", params={"q": word}))
        assert f"q={word}" in site.seen[0].path
    assert word not in "".join(traceback.format_exception(error))


@pytest.mark.parametrize("where", ["headers", "body"])
def test_the_deadline_of_the_run_ends_a_drip(where: str, token: str) -> None:
    """The client alone would wait a minute; the run around it has 0.5 s, across several requests."""
    slow: Route = raw(HEAD if where == "body" else b"HTTP/1.1 200 OK\r\nX: ", lambda c: c.drip(b"x" * 900))
    patient = {"connect": 1, "read": 30, "total": 60}
    with Site({"/": Call.answer, "/slow": slow}) as site:
        client = HttpClient(settings(site.url, token, timeout=patient, retry={"attempts": 5}))
        with deadline(0.5):
            assert client.get().status == 200
            error, seconds = failure(lambda: client.get("slow"))
        assert isinstance(error, Timeout)
        assert 0.2 < seconds < 1
        assert client.get().status == 200  # a broken connection was not put back


def test_a_fault_does_not_spoil_the_next_request(token: str) -> None:
    """After each fault, the same client reads a good answer."""
    good = {"/good": lambda c: c.answer(body=b'{"n": 1}')}
    with Site(good | {f"/{i}": fault.route for i, fault in enumerate(FAULTS)}) as site:
        client = HttpClient(settings(site.url, token))
        for i in range(len(FAULTS)):
            if FAULTS[i].outcome is not Outcome.TIMEOUT:  # those are slow, and have a test of their own
                failure(lambda i=i: client.json(f"/{i}"))
                assert client.json("/good") == {"n": 1}


@pytest.mark.parametrize(
    ("body", "shape", "error"),
    [
        (b'{"n": 1}', dict[str, int], None),
        (b'{"n": "x"}', dict[str, int], ParseError),
        (b"[1, 2]", dict, ParseError),
        (b'{"n": NaN}', dict, ParseError),
        (b"\xff\xfe{}", dict, ParseError),
    ],
)
def test_shape_of_json(body: bytes, shape: type, error: type[NmsError] | None, token: str) -> None:
    with Site({"/": lambda c: c.answer(body=body)}) as site:
        response = HttpClient(settings(site.url, token)).get()
    if error is None:
        assert response.json(shape) == {"n": 1}
    else:
        with pytest.raises(error):
            response.json(shape)


def test_expected_statuses_are_returned(token: str) -> None:
    with Site({}) as site:
        client = HttpClient(settings(site.url, token))
        assert client.get("/gone", expect={404}).status == 404
        with pytest.raises(Refused):
            client.get("/gone", expect={410})


def test_broken_secret_never_shown(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_TOKEN", f"{TOKEN}\ninjected: 1")
    with Site({"/": Call.answer}) as site, pytest.raises(NmsError) as caught:
        HttpClient(settings(site.url, token)).get()
    assert "no header can carry" in str(caught.value)
    assert TOKEN not in "".join(traceback.format_exception(caught.value))
    assert not isinstance(caught.value, AuthError)
    assert site.seen == []
