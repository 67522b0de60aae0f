"""Fixtures that start real servers, and the account of those that could not be had."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from nms_workers import embedded
from tests.servers import SERVERS, Conf, Server, ServerMissing, create, program

StartServer = Callable[..., Server]

_MISSING = "server that could not be had"
_FLEETS = ("stack", "real", "bench")  # folders of tests that keep every core busy by themselves, the longest first


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that start whole fleets lie evenly between the others: side by side, fleets would be late by each other.

    Files of one folder still follow each other in their order.
    """
    files = list(dict.fromkeys(item.path for item in items))
    fleets = sorted(
        (path for path in files if path.parent.name in _FLEETS), key=lambda path: _FLEETS.index(path.parent.name)
    )
    others = [path for path in files if path not in fleets]
    place = {path: (at + 0.5) / len(group) for group in (fleets, others) for at, path in enumerate(group)}
    items.sort(key=lambda item: place[item.path])


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """`@pytest.mark.real("rabbitmq", ...)`: the test needs these servers of `SERVERS`, started or not."""
    for marker in item.iter_markers("real"):
        for name in marker.args:
            _require(name)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """`ServerMissing`, raised anywhere in a test or its fixtures, skips it; `NMS_REQUIRE_REAL=1` makes it a failure."""
    report = yield
    if call.excinfo is not None and isinstance(reason := call.excinfo.value, ServerMissing):
        report.user_properties.append((_MISSING, (reason.name, reason.why, reason.install)))
        if os.environ.get("NMS_REQUIRE_REAL") == "1":
            report.longrepr = f"{reason} (NMS_REQUIRE_REAL=1 makes this a failure)"
        else:
            report.outcome = "skipped"
            report.longrepr = (str(item.path), item.location[1] or 0, f"Skipped: {reason}")
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for found in ("skipped", "failed", "error") for report in terminalreporter.getreports(found)]
    missing: dict[tuple[str, str, str], list[str]] = {}
    for report in reports:
        for label, reason in getattr(report, "user_properties", ()):  # a file that cannot be collected has none
            if label == _MISSING:
                missing.setdefault(tuple(reason), []).append(report.nodeid)
    if missing:
        terminalreporter.section("servers that could not be had")
    for (name, why, install), tests in sorted(missing.items()):
        terminalreporter.line(f"{name}: {why}. To have it: {install}. Not tested without it:")
        for test in tests:
            terminalreporter.line(f"    {test}")


class _SessionServers:
    """Servers that are shared by tests. One that three files did without rests until it is asked for: few are idle."""

    def __init__(self, make_folder: Callable[[str], Path]) -> None:
        self._make_folder = make_folder
        self._servers: dict[tuple[str, str], Server] = {}
        self._used: deque[tuple[Path, set[tuple[str, str]]]] = deque(maxlen=3)

    def get(self, name: str, used_by: str, file: Path) -> Server:
        """The server, running."""
        if not self._used or self._used[-1][0] != file:
            self._used.append((file, set()))
            for resting in self._servers.keys() - set().union(*(keys for _, keys in self._used)):
                self._servers[resting].stop()
        key = (name, used_by)
        self._used[-1][1].add(key)
        if key not in self._servers:
            self._servers[key] = create(name, self._make_folder(name))
        self._servers[key].start()
        return self._servers[key]

    def stop(self) -> None:
        """Stop all of them."""
        with ExitStack() as each:
            for server in self._servers.values():
                each.callback(server.stop)


@pytest.fixture(scope="session")
def _session_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_SessionServers]:
    servers = _SessionServers(tmp_path_factory.mktemp)
    yield servers
    servers.stop()


@pytest.fixture
def session_server(_session_servers: _SessionServers, request: pytest.FixtureRequest) -> StartServer:
    """`session_server(name)`: one server of each name for the whole run. Leave it as it was found.

    Tests that count what a server holds name themselves, and share it with nobody: `session_server(name, "redis")`.
    """

    def get(name: str, used_by: str = "") -> Server:
        _require(name)
        return _session_servers.get(name, used_by, request.path)

    return get


@pytest.fixture
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """`start_server(name, **options)`: a server of this test's own, running; stopped at the end."""
    with ExitStack() as running:

        def start(name: str, *, folder: Path | None = None, conf: Conf | None = None, **options: object) -> Server:
            _require(name)
            server = create(name, folder or tmp_path_factory.mktemp(name), conf=conf, **options)
            running.callback(server.stop)
            server.start()
            return server

        yield start


@pytest.fixture
def free_port() -> Callable[[], int]:
    """`free_port()`: a loopback port that nobody listens on."""
    return embedded.free_port


def _require(name: str) -> None:
    if name not in SERVERS:
        pytest.fail(f"there is no server {name!r}; known: {', '.join(SERVERS)}", pytrace=False)
    program(name)
