"""Fixtures that start real servers, and the account of those that could not be had."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
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
    servers: dict[tuple[str, str], Server] = {}
    with ExitStack() as running:

        def get(name: str, used_by: str) -> Server:
            if (name, used_by) not in servers:
                servers[name, used_by] = create(name, tmp_path_factory.mktemp(name))
                running.callback(servers[name, used_by].stop)
            servers[name, used_by].start()
            return servers[name, used_by]

        yield get


@pytest.fixture
def session_server(request: pytest.FixtureRequest, _session_servers: StartServer) -> StartServer:
    """`session_server(name)`: one server of each name for the whole run. Leave it as it was found.

    Tests that count what a server holds name themselves, and share it with nobody: `session_server(name, "redis")`.
    """

    def get(name: str, used_by: str = "") -> Server:
        _require(request.node, name)
        return _session_servers(name, used_by)

    return get


@pytest.fixture
def start_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """`start_server(name, **options)`: a server of this test's own, running; stopped at the end."""
    with ExitStack() as running:

        def start(name: str, *, folder: Path | None = None, conf: Conf | None = None, **options: object) -> Server:
            _require(request.node, name)
            server = create(name, folder or tmp_path_factory.mktemp(name), conf=conf, **options)
            running.callback(server.stop)
            server.start()
            return server

        yield start


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
