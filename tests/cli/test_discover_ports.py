"""`nms-workers discover ports`, at real servers, and at stubs of those that cannot be had."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nms_workers.cli import app
from nms_workers.errors import NmsError
from nms_workers.fleet.identify import Identity, identify, kinds, well_known
from nms_workers.service import services
from tests.cli.conftest import Run
from tests.fleet.stores import database_url, postgres_name, redis_server
from tests.servers import Server
from tests.stubs.elasticsearch import ElasticsearchStub
from tests.stubs.grafana import GrafanaStub
from tests.stubs.kibana import KibanaStub
from tests.transport.sites import Site

__all__ = ["database_url", "postgres_name", "redis_server"]

StartServer = Callable[..., Server]

# What each says to a stranger: its kind, its version, whether it wants a login, and the proof.
_REAL = {
    "prometheus": ("prometheus", r"2.", False, "/api/v1/status/buildinfo /data/goVersion go"),
    "prometheus-3": ("prometheus", r"3.", False, "/api/v1/status/buildinfo /data/goVersion go"),
    "netdata": ("netdata", "v1.", False, "/api/v1/info header Server: Netdata"),
    "haproxy": ("haproxy", "", True, '/stats header WWW-Authenticate: Basic realm="HAProxy Statistics"'),
    "haproxy-3": ("haproxy", "", True, '/stats header WWW-Authenticate: Basic realm="HAProxy Statistics"'),
    "gns3-2.2": ("gns3", "", True, '/v2/version header WWW-Authenticate: Basic realm="GNS3 server"'),
    "gns3-3.0": ("gns3", "3.", False, "/v3/version /local false"),
    "snmpd": ("snmp", "3", True, "engine id "),
    "postgresql-15": ("postgresql", "", True, "PQping: it takes connections"),
    "postgresql-18": ("postgresql", "", True, "PQping: it takes connections"),
    "redis-7.0": ("redis", "", True, "PING: Authentication required."),
    "valkey-9": ("redis", "", True, "PING: Authentication required."),
}


@pytest.mark.parametrize("name", _REAL)
def test_a_real_server_says_who_it_is(session_server: Callable[[str], Server], name: str) -> None:
    server = session_server(name)
    kind, version, login, proof = _REAL[name]
    found = identify(server.host, server.port, [kind], 5.0)
    assert found is not None
    assert (found.kind, found.login) == (kind, login)
    assert found.version.startswith(version)
    assert found.proof.startswith(proof)


@pytest.mark.parametrize("name", _REAL)
def test_a_real_server_is_taken_for_nothing_else(session_server: Callable[[str], Server], name: str) -> None:
    server = session_server(name)
    others = [kind for kind in kinds() if kind != _REAL[name][0]]
    found = identify(server.host, server.port, others, 3.0)
    assert found is None or found.kind == ""
    assert (found is None) == (name == "snmpd"), "nothing listens there over TCP"


class Ntopng(ThreadingHTTPServer):
    """The page at which ntopng lets people log in: all that a stranger sees, with the header that its scripts send."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/lua/login.lua" else 302)
            self.send_header("Location", "/lua/login.lua")
            self.end_headers()

        def version_string(self) -> str:
            return "ntopng 6.2.240321 [x86_64]"

        def log_message(self, *_: object) -> None: ...

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.port, self.url = self.server_port, f"http://127.0.0.1:{self.server_port}"
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self._thread.join()
        super().__exit__(*error)


def stubs() -> dict[str, tuple[Callable[[], Any], str, str, bool]]:
    """By name: how it is made, its kind, the version it tells, and whether it wants a login."""
    return {
        "elasticsearch": (lambda: ElasticsearchStub("9.1.0"), "elasticsearch", "9.1.0", False),
        "elasticsearch, secured": (lambda: ElasticsearchStub("8.19.0", secret="x"), "elasticsearch", "", True),
        "kibana": (lambda: KibanaStub(secured=False), "kibana", "8.19.4", False),
        "kibana, secured": (KibanaStub, "kibana", "", True),
        "grafana": (GrafanaStub, "grafana", "", False),
        "ntopng": (Ntopng, "ntopng", "6.2.240321", True),
    }


@pytest.mark.parametrize("name", stubs())
def test_a_stub_is_known_too_and_as_nothing_else(name: str) -> None:
    make, kind, version, login = stubs()[name]
    with make() as stub:
        found = identify("127.0.0.1", stub.port, [one for one in kinds() if one != "snmp"], 5.0)
    assert found is not None
    assert (found.kind, found.login, found.settings) == (kind, login, {"url": stub.url})
    assert found.version.startswith(version)


def test_what_does_not_say_who_it_is_is_told_as_that() -> None:
    with Site({"*": lambda call: call.answer(401, **{"WWW-Authenticate": 'Basic realm="router"'})}) as site:
        found = identify("127.0.0.1", site.port, ["grafana", "prometheus"], 2.0)
    said = 'HTTP 401, it wants a login: Basic realm="router"'
    assert found == Identity("127.0.0.1", site.port, "", said)


def test_who_accepts_and_is_silent_costs_its_time_limit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        found = identify("127.0.0.1", port, kinds(), 0.3)
    assert found == Identity("127.0.0.1", port, "", "it does not say what it is")


@pytest.fixture
def babble() -> Iterator[int]:
    """A server that says the same long line to everybody."""

    def talk(server: socket.socket) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.sendall(b"+PONGO " + b"x" * 100_000 + b"\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=talk, args=(server,), daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_nonsense_is_nothing(babble: int) -> None:
    found = identify("127.0.0.1", babble, kinds(), 0.5)
    assert found is not None
    assert found.kind == ""


def test_nobody_is_nothing(free_port: Callable[[], int]) -> None:
    assert identify("127.0.0.1", free_port(), kinds(), 0.5) is None


def test_every_port_of_the_design_is_asked() -> None:
    wanted = {
        9090: "prometheus", 3000: "grafana", 9200: "elasticsearch", 5601: "kibana", 19999: "netdata", 3001: "ntopng",
        3080: "gns3", 8404: "haproxy", 161: "snmp", 5432: "postgresql", 6379: "redis",
    }  # fmt: skip
    assert {port: of[0] for port, of in well_known().items()} == wanted
    assert set(kinds()) <= services().keys()


def test_services_are_found_told_and_proposed(
    nms: Run,
    session_server: Callable[[str], Server],
    database_url: str,
    redis_server: Server,
) -> None:
    postgres, agent, page = session_server("postgresql-18"), session_server("snmpd"), session_server("haproxy")
    places = [("postgresql", postgres), ("redis", redis_server), ("snmp", agent), ("haproxy", page)]
    env = {"NMS_DATABASE_URL": database_url, "NMS_REDIS_URL": redis_server.url}
    arguments = [part for kind, server in places for part in ("--at", f"{kind}:{server.port}")]
    arguments += ["--set", "postgresql.password=env:PGPASSWORD", "--set", "redis.password=env:REDIS"]
    ended = nms("discover", "ports", "127.0.0.1", *arguments, "--json", env=env)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    found = {one["port"]: one for one in told["found"]}
    assert {found[server.port]["kind"]: found[server.port]["login"] for _, server in places} == {
        "postgresql": True,
        "redis": True,
        "snmp": True,
        "haproxy": True,
    }
    assert "community" in found[agent.port]["needs"], "an agent is no target without one"
    assert found[page.port]["settings"] == {"url": page.url}
    own = f"redis-127.0.0.1-{redis_server.port}"
    assert own in told["entered"]["redis"]["waiting"]
    assert "snmp" not in told["entered"]
    listed = json.loads(nms("targets", "--json", env=env).stdout)
    assert {one["name"]: one["state"] for one in listed}[own] == "proposed"
    again = json.loads(nms("discover", "ports", "127.0.0.1", *arguments, "--json", env=env).stdout)
    assert again["entered"]["redis"]["waiting"] == []
    assert again["entered"]["redis"]["known"] >= 1
    approved = nms("targets", "approve", own, env=env)
    assert approved.stdout.strip() == f"active now: redis/{own}", approved.stderr


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["8.8.8.0/30"], "is not a private network"),
        (["127.78.0.0/16"], "more than 1024 addresses"),
        (["127.0.0.1/8"], "host bits"),
        (["bad name"], "is no name of a host"),
        (["no-such-host.invalid"], "there is no host 'no-such-host.invalid'"),
        (["127.0.0.1", "--at", "mysql:3306"], "is no KIND:PORT"),
        (["127.0.0.1", "--at", "redis:99999"], "is no KIND:PORT"),
        (["127.0.0.1", "--only", "mysql"], "there is no kind 'mysql' to ask for"),
        (["127.0.0.1", "--set", "redis.password"], "--set wants KIND.KEY=VALUE"),
    ],
)
def test_what_is_not_asked_is_told(
    arguments: list[str], why: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("NMS_DATA", str(tmp_path))
    ended = CliRunner().invoke(app, ["discover", "ports", *arguments, "--dry-run"])
    assert isinstance(ended.exception, NmsError)
    assert why in str(ended.exception)


def test_a_secret_in_clear_is_refused_and_not_repeated(nms: Run, redis_server: Server) -> None:
    at = ("--only", "redis", "--at", f"redis:{redis_server.port}", "--set", "redis.password=hunter2", "--dry-run")
    ended = nms("discover", "ports", "127.0.0.1", *at, "--json")
    assert ended.returncode == 0, ended.stderr
    (one,) = (row for row in json.loads(ended.stdout)["found"] if row["port"] == redis_server.port)
    assert one["needs"] == 'password write "env:NAME" or "file:/path": secrets never stand in the settings themselves'
    assert "hunter2" not in ended.stdout + ended.stderr
