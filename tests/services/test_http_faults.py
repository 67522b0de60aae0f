"""Every service that is spoken to over HTTP, and everything that goes wrong with HTTP: each fault has one outcome.

A new service adds its line to `SERVICES`.
"""

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme

from nms_workers.errors import Outcome, TargetError
from nms_workers.service import service
from tests.transport.sites import Call, Route, Site

SECRET = "s3cr3t-t0ken-value"
LOGIN = b'<!doctype html><title>Sign in</title><form><input name="p" type="password"></form>'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"

# the first poll of each is run; settings beside the url
SERVICES: dict[str, dict[str, Any]] = {
    "elasticsearch": {"token": "env:TEST_SECRET"},
    "grafana": {"token": "env:TEST_SECRET"},
    "haproxy": {"username": "nms", "password": "env:TEST_SECRET"},
    "kibana": {"token": "env:TEST_SECRET"},
    "netdata": {"token": "env:TEST_SECRET"},
    "ntopng": {"token": "env:TEST_SECRET"},
    "prometheus": {"token": "env:TEST_SECRET"},
}


class Fault(NamedTuple):
    """`words` stand in the message: what to do about it."""

    name: str
    route: Route
    outcome: Outcome
    words: str


def _cut_off(call: Call) -> None:
    call.wfile.write(HEAD + b'{"data": {"a":')
    call.hang_up()


FAULTS = (
    Fault("401", lambda call: call.answer(401, b'{"message": "who are you"}'), Outcome.AUTH, "check"),
    Fault("403", lambda call: call.answer(403, b'{"message": "no"}'), Outcome.REFUSED, "lack the permission"),
    Fault("wrong product", lambda call: call.answer(body=b'{"made": "coffee"}'), Outcome.PARSE, ""),
    Fault("web page", lambda call: call.answer(body=b"<html>hello</html>"), Outcome.PARSE, "web page"),
    Fault("cut off", _cut_off, Outcome.PARSE, "cut off"),
    Fault("cut-off JSON", lambda call: call.answer(body=b'{"data": [1, 2'), Outcome.PARSE, ""),
    Fault("429", lambda call: call.answer(429, Retry_After="3600"), Outcome.REFUSED, "again in 3600 s"),
    Fault("503", lambda call: call.answer(503), Outcome.UNREACHABLE, "overloaded"),
    Fault("stall", Call.stall, Outcome.TIMEOUT, ""),
    Fault("to the login", lambda call: call.answer(302, Location="/login?next=%2F"), Outcome.AUTH, "login page"),
    Fault("login page", lambda call: call.answer(body=LOGIN), Outcome.AUTH, "login page"),
)


def first_poll(kind: str, url: str, **more: object) -> TargetError:
    """What the first poll of a service raises."""
    declared = service(kind)
    settings = {"url": url, "timeout": {"connect": 1, "read": 0.5, "total": 1}, "retry": {"attempts": 1}}
    client = declared.client(declared.Target.model_validate(settings | SERVICES[kind] | more))
    poll = next(iter(declared.polls().values()))
    try:
        with pytest.raises(TargetError) as caught:
            list(poll.run(client))
    finally:
        client.close()
    return caught.value


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_SECRET", SECRET)


@pytest.mark.parametrize("kind", SERVICES)
@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_outcome(kind: str, fault: Fault) -> None:
    with Site({"*": fault.route}) as site:
        error = first_poll(kind, site.url)
    assert error.outcome == fault.outcome, error
    assert fault.words in str(error)
    assert SECRET not in str(error)


@pytest.fixture
def expired(tmp_path: Path) -> Iterator[tuple[Site, Path]]:
    """A site whose certificate ended yesterday, and the authority it came from."""
    authority = trustme.CA()
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", not_after=datetime.now(UTC) - timedelta(days=1)).configure_cert(context)
    with Site({}, context) as site:
        yield site, ca


@pytest.mark.parametrize("kind", SERVICES)
def test_an_expired_certificate(kind: str, expired: tuple[Site, Path]) -> None:
    site, ca = expired
    error = first_poll(kind, site.url, tls={"ca": str(ca)})
    assert error.outcome == Outcome.UNREACHABLE
    assert "has expired (renew it" in str(error)
    assert site.seen == []
