"""The client against real servers: what it sends, repeats, keeps, spreads and counts."""

import base64
import itertools
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import proxy
import pytest
from prometheus_client import REGISTRY

from nms_workers.errors import AuthError, Refused, Skipped, Unreachable
from nms_workers.transport.breaker import Breakers
from nms_workers.transport.http import HttpClient, HttpSettings
from tests.transport.sites import Call, Route, Site

QUICK = {"retry": {"attempts": 3, "base": 0.001, "cap": 0.002}, "timeout": {"connect": 1, "read": 2, "total": 4}}
_names = itertools.count()


def client(url: str | list[Any], breakers: Breakers | None = None, **options: Any) -> HttpClient:
    """A client with counters of its own."""
    where = {"url": url} if isinstance(url, str) else {"urls": url}
    settings = HttpSettings.model_validate(QUICK | where | options)
    return HttpClient(settings, service="test", target=f"t{next(_names)}", breakers=breakers)


def count(one: HttpClient, metric: str, **labels: str) -> float:
    service, target = repr(one)[len("HttpClient(") : -1].split("/")
    found = REGISTRY.get_sample_value(f"nms_http_{metric}", {"service": service, "target": target} | labels)
    return found or 0.0


def in_turn(*routes: Route) -> Route:
    """The first call takes the first route, and so on; the last goes on for ever."""
    turns = itertools.chain(routes, itertools.repeat(routes[-1]))

    def route(call: Call) -> None:
        next(turns)(call)

    return route


def status(code: int, **headers: str) -> Route:
    return lambda call: call.answer(code, **headers)


@pytest.fixture
def site() -> Iterator[Site]:
    with Site({"/api/v1/x": Call.answer, "/": Call.answer}) as one:
        yield one


def test_what_is_sent(site: Site) -> None:
    one = client(f"{site.url}/api/v1/", headers={"X-Org": "7"})
    one.get("/x", params={"q": "a b&c", "match[]": ["1", "2"], "none": None}, headers={"X-One": "1"})
    one.post("x", json={"n": [1]}, headers={"X-Org": "8"})
    one.put("x", data=b"\x00raw")
    one.patch("x", data={"form": "ä"})
    one.delete("x")
    get, post, put, patch, delete = site.seen
    assert get.path == "/api/v1/x?q=a+b%26c&match%5B%5D=1&match%5B%5D=2"
    assert (get.headers["X-Org"], get.headers["X-One"]) == ("7", "1")
    assert get.headers["User-Agent"].startswith("nms-workers/")
    assert (post.body, post.headers["Content-Type"], post.headers["X-Org"]) == (b'{"n":[1]}', "application/json", "8")
    assert put.body == b"\x00raw"
    assert (patch.body, patch.headers["Content-Type"]) == (b"form=%C3%A4", "application/x-www-form-urlencoded")
    assert [seen.method for seen in site.seen] == ["GET", "POST", "PUT", "PATCH", "DELETE"]
    assert delete.body == b""
    assert len({seen.port for seen in site.seen}) == 1  # one connection, used five times


def test_credentials(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSWORD", "pass:wörd")
    client(site.url, username="me", password="env:PASSWORD").get()
    assert base64.b64decode(site.seen[-1].headers["Authorization"][6:]).decode() == "me:pass:wörd"

    file = tmp_path / "token"
    file.write_text("first\n")
    one = client(site.url, token=f"file:{file}", token_scheme="ApiKey", secret_headers={"X-Key": f"file:{file}"})
    one.get()
    file.write_text("second\n")
    one.get()
    assert [seen.headers["Authorization"] for seen in site.seen[-2:]] == ["ApiKey first", "ApiKey second"]
    assert site.seen[-1].headers["X-Key"] == "second"


def test_the_environment_has_no_say(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login eve password guess\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert client(site.url).get().status == 200
    assert site.seen[-1].headers["Authorization"] is None


def test_cookies_are_not_kept() -> None:
    with Site({"/": lambda call: call.answer(Set_Cookie="session=1")}) as site:
        one = client(site.url)
        one.get()
        one.get()
        assert site.seen[-1].headers["Cookie"] is None


@pytest.mark.parametrize(("method", "options", "sent"), [
    ("GET", {}, 3), ("HEAD", {}, 3), ("OPTIONS", {}, 3), ("POST", {}, 1), ("PUT", {}, 1), ("DELETE", {}, 1),
    ("PUT", {"idempotent": True}, 3),
])  # fmt: skip
def test_only_safe_requests_are_repeated(method: str, options: Any, sent: int) -> None:
    with Site({"/": status(503)}) as site:
        one = client(site.url)
        with pytest.raises(Unreachable):
            one.request(method, "/", **options)
        assert len(site.seen) == sent
    assert count(one, "retries_total") == sent - 1
    assert count(one, "requests_total", outcome="unreachable") == sent


def test_comes_back_after_faults() -> None:
    with Site({"/": in_turn(status(502), Call.reset, Call.answer)}) as site:
        one = client(site.url)
        assert one.get().status == 200
    assert count(one, "requests_total", outcome="ok") == 1
    assert count(one, "retries_total") == 2
    assert count(one, "request_seconds_count") == 3


@pytest.mark.parametrize("code", [401, 403, 404, 429, 500])
def test_a_no_is_not_asked_again(code: int) -> None:
    with Site({"/": status(code)}) as site:
        with pytest.raises((AuthError, Refused)):
            client(site.url).get()
        assert len(site.seen) == 1


@pytest.mark.parametrize("code", [429, 503])
def test_retry_after_is_kept(code: int) -> None:
    with Site({"/": in_turn(status(code, Retry_After="1"), Call.answer)}) as site:
        started = time.monotonic()
        assert client(site.url).get().status == 200
        assert 1 <= time.monotonic() - started < 2


def test_retry_after_beyond_the_deadline_is_not_waited_for() -> None:
    date = "Fri, 31 Dec 2100 23:59:59 GMT"
    with Site({"/": status(429, Retry_After=date)}) as site, pytest.raises(Refused, match="it takes requests again in"):
        client(site.url).get()
    assert len(site.seen) == 1


def test_redirects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Followed on request, but never to where our credentials do not belong."""
    monkeypatch.setenv("TOKEN", "belongs-here")
    with Site({"/": Call.answer}) as elsewhere:
        routes: dict[str, Route] = {
            "/near": lambda call: call.answer(301, Location="/new?x=1"),
            "/far": lambda call: call.answer(302, Location=elsewhere.url),
            "/new": lambda call: call.answer(body=b'"moved"'),
        }
        with Site(routes) as site:
            one = client(site.url, token="env:TOKEN", follow_redirects=True)
            assert one.json("/near") == "moved"
            assert site.seen[-1].headers["Authorization"] == "Bearer belongs-here"
            for method, path in (("GET", "/far"), ("POST", "/near")):
                with pytest.raises(Refused, match="has moved to"):
                    one.request(method, path)
            with pytest.raises(Refused, match="follow_redirects"):
                client(site.url).get("/near")
            assert elsewhere.seen == []


class TestCache:
    def test_hits_and_misses(self, site: Site) -> None:
        one = client(site.url, cache={"seconds": 60})
        for _ in range(3):
            one.get("/", params={"a": 1, "b": 2})
        one.get("/", params={"b": 2, "a": 1})
        one.get("/", params={"a": 2})
        one.get("/", headers={"X-Org": "1"})
        assert len(site.seen) == 3
        assert count(one, "cache_requests_total", result="hit") == 3
        assert count(one, "cache_requests_total", result="miss") == 3

    def test_only_good_answers_to_get(self) -> None:
        with Site({"/": in_turn(status(404), status(204), Call.answer)}) as site:
            one = client(site.url, cache={"seconds": 60})
            answers = [one.get(expect={404}).status for _ in range(4)]
            assert answers == [404, 204, 200, 200]
            assert len(site.seen) == 3

    def test_a_change_empties_it(self, site: Site) -> None:
        one = client(site.url, cache={"seconds": 60})
        one.get()
        one.post(json={})
        one.get()
        assert [seen.method for seen in site.seen] == ["GET", "POST", "GET"]

    def test_not_across_identities(self, site: Site, tmp_path: Path) -> None:
        file = tmp_path / "token"
        file.write_text("reader")
        one = client(site.url, cache={"seconds": 60}, token=f"file:{file}")
        one.get()
        file.write_text("admin")
        one.get()
        assert len(site.seen) == 2

    def test_off_by_default(self, site: Site) -> None:
        one = client(site.url)
        one.get()
        one.get()
        assert len(site.seen) == 2


class TestSeveralInstances:
    def test_shares(self) -> None:
        with Site({"/": Call.answer}) as a, Site({"/": Call.answer}) as b:
            one = client([{"url": a.url, "weight": 3}, b.url])
            for _ in range(40):
                one.get()
            assert (len(a.seen), len(b.seen)) == (30, 10)

    def test_one_dies_and_comes_back(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        with Site({"/": Call.answer}) as a:
            b = Site({"/": Call.answer})
            one = client([a.url, b.url], eject_after=2, probe_every=0.2)
            label = {"instance": f"127.0.0.1:{b.port}"}
            b.close()
            one.close()  # or the connection that is open would live on
            for _ in range(20):
                assert one.get().status == 200  # nobody notices
            assert count(one, "instance_up", **label) == 0
            assert count(one, "instance_removals_total", **label) == 1
            assert [r.levelname for r in caplog.records if r.name.startswith("nms_workers")] == ["WARNING"]

            with Site({"/": Call.answer}, port=b.port) as b:
                until = time.monotonic() + 5
                while not b.seen:
                    assert time.monotonic() < until
                    one.get()
                assert count(one, "instance_up", **label) == 1
                before = len(b.seen)
                for _ in range(10):
                    one.get()
                assert len(b.seen) == before + 5

    def test_all_dead(self, free_port: Callable[[], int]) -> None:
        one = client([f"http://127.0.0.1:{free_port()}" for _ in range(2)], eject_after=1)
        for _ in range(3):
            with pytest.raises(Unreachable, match="nothing listens"):
                one.get()


def test_breaker_of_a_client_used_alone(free_port: Callable[[], int]) -> None:
    one = client(f"http://127.0.0.1:{free_port()}", Breakers(None), breaker={"failures": 2, "reset": 60})
    for _ in range(2):
        with pytest.raises(Unreachable):
            one.get()
    sent = count(one, "requests_total", outcome="unreachable")
    with pytest.raises(Skipped, match="next try in"):
        one.get()
    assert count(one, "requests_total", outcome="unreachable") == sent


def test_threads_share_a_client() -> None:
    """Each thread gets its own answer back, over no more connections than there are threads."""
    with Site({"/": lambda call: call.answer(body=call.path.encode())}) as site:
        one = client(site.url, connections=8)
        start = threading.Barrier(8)

        def ask(thread: int) -> int:
            start.wait()
            asked = [f"/?n={thread}-{n}" for n in range(50)]
            return sum(one.get("/", params={"n": path[4:]}).text == path for path in asked)

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(ask, range(8))) == 400
        assert len(Counter(seen.port for seen in site.seen)) <= 8
        assert count(one, "received_bytes_total") == sum(len(seen.path) for seen in site.seen)


def test_usable_after_close(site: Site) -> None:
    one = client(site.url)
    one.get()
    one.close()
    assert one.get().status == 200


class TestProxy:
    @pytest.fixture
    def through(self) -> Iterator[str]:
        """A real proxy that wants credentials."""
        arguments = ["--hostname", "127.0.0.1", "--port", "0", "--num-workers", "1", "--num-acceptors", "1"]
        arguments += ["--basic-auth", "worker:open sesame", "--log-level", "ERROR"]
        with proxy.Proxy(arguments) as running:
            yield f"http://127.0.0.1:{running.flags.port}"

    def test_credentials_come_from_the_secret(
        self, through: str, site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        file = tmp_path / "password"
        file.write_text("wrong words")
        access = {"proxy": through, "proxy_username": "worker", "proxy_password": f"file:{file}"}
        one = client(site.url, **access)
        with pytest.raises(AuthError, match="proxy_password") as caught:
            one.get()
        file.write_text("open sesame")
        assert one.get().status == 200  # the changed file is seen
        assert site.seen[-1].headers["Proxy-Authorization"] is None
        assert "open sesame" not in caplog.text
        assert "wrong words" not in f"{caught.value}{caplog.text}"

    def test_tunnel_wants_credentials(self, through: str, free_port: Callable[[], int]) -> None:
        with pytest.raises(AuthError, match="the proxy wants credentials"):
            client(f"https://127.0.0.1:{free_port()}", proxy=through).get()

    def test_proxy_away(self, site: Site, free_port: Callable[[], int]) -> None:
        with pytest.raises(Unreachable, match="through the proxy: nothing listens"):
            client(site.url, proxy=f"http://127.0.0.1:{free_port()}").get()
        assert site.seen == []
