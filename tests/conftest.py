"""Fixtures that start real servers, and the account of those that could not be had."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nms_workers import embedded
from tests.servers import SERVERS, Conf, Server, ServerMissing, create, program

StartServer = Callable[..., Server]

_missing = pytest.StashKey[dict[str, tuple[ServerMissing, list[str]]]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_missing] = {}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """`@pytest.mark.real("rabbitmq", ...)`: the test needs these servers of `SERVERS`, started or not."""
    for marker in item.iter_markers("real"):
        for name in marker.args:
            _require(item, name)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    missing = config.stash[_missing]
    if not missing:
        return
    terminalreporter.section("servers that could not be had")
    for name, (reason, tests) in sorted(missing.items()):
        terminalreporter.line(f"{name}: {reason.why}. To have it: {reason.install}. Not tested without it:")
        for test in tests:
            terminalreporter.line(f"    {test}")


@pytest.fixture(scope="session")
def _session_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    servers: dict[str, Server] = {}

    def get(name: str) -> Server:
        if name not in servers:
            servers[name] = create(name, tmp_path_factory.mktemp(name))
        servers[name].start()
        return servers[name]

    yield get
    for server in servers.values():
        server.stop()


@pytest.fixture
def session_server(request: pytest.FixtureRequest, _session_servers: StartServer) -> StartServer:
    """`session_server(name)`: one server of each name for the whole run. Leave it as it was found."""

    def get(name: str) -> Server:
        _require(request.node, name)
        return _session_servers(name)

    return get


@pytest.fixture
def start_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """`start_server(name, **options)`: a server of this test's own, running; stopped at the end."""
    servers: list[Server] = []

    def start(name: str, *, folder: Path | None = None, conf: Conf | None = None, **options: object) -> Server:
        _require(request.node, name)
        server = create(name, folder or tmp_path_factory.mktemp(name), conf=conf, **options)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in reversed(servers):
        server.stop()


@pytest.fixture
def free_port() -> Callable[[], int]:
    """`free_port()`: a loopback port that nobody listens on."""
    return embedded.free_port


def _require(item: pytest.Item, name: str) -> None:
    if name not in SERVERS:
        pytest.fail(f"there is no server {name!r}; known: {', '.join(SERVERS)}", pytrace=False)
    try:
        program(name)
    except ServerMissing as reason:
        _, tests = item.config.stash[_missing].setdefault(name, (reason, []))
        tests.append(item.nodeid)
        if os.environ.get("NMS_REQUIRE_REAL") == "1":
            pytest.fail(f"{reason} (NMS_REQUIRE_REAL=1 makes this a failure)", pytrace=False)
        pytest.skip(str(reason))
