"""The supervisor with real children, real signals and real deaths."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from nms_workers import child
from nms_workers.supervisor import Event, GaveUp, Process, Supervisor

SLEEPER = ["sleep", "600"]
DEAF = "trap '' TERM; touch {on}; while :; do sleep 600; done"


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def supervisor(tmp_path: Path, events: list[Event]) -> Iterator[Supervisor]:
    with Supervisor(tmp_path / "log", events.append) as running:
        yield running
    left = [p for p in psutil.Process().children(recursive=True) if p.pid in running.pids().values()]
    assert not left, "children were left behind"


def said(events: list[Event], *what: str) -> list[tuple[str, str]]:
    return [(event.what, event.name) for event in events if event.what in what]


def until(condition: Callable[[], object], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)


def test_starts_together_and_returns_when_all_are_ready(
    supervisor: Supervisor, events: list[Event], tmp_path: Path
) -> None:
    script = f"sleep 0.3; touch {tmp_path}/here; exec sleep 600"
    slow = Process("slow", ["sh", "-c", script], ready=(tmp_path / "here").exists)
    supervisor.start(slow, Process("quick", SLEEPER))
    assert (tmp_path / "here").exists()
    supervisor.start(Process("last", SLEEPER))
    assert said(events, "started", "ready") == [
        ("started", "slow"),
        ("started", "quick"),
        ("ready", "quick"),
        ("ready", "slow"),
        ("started", "last"),
        ("ready", "last"),
    ]
    assert supervisor.running() == ["slow", "quick", "last"]


def test_stops_the_last_started_first(tmp_path: Path, events: list[Event]) -> None:
    with Supervisor(tmp_path, events.append) as supervisor:
        for name in ("database", "worker", "beat"):
            supervisor.start(Process(name, SLEEPER))
    assert said(events, "stopping", "stopped") == [
        (what, name) for name in ("beat", "worker", "database") for what in ("stopping", "stopped")
    ]
    assert supervisor.running() == []


def test_a_dead_child_is_started_again_and_leaves_no_zombie(supervisor: Supervisor, events: list[Event]) -> None:
    supervisor.start(Process("worker", SLEEPER))
    first = supervisor.pids()["worker"]
    os.kill(first, signal.SIGKILL)
    end = time.monotonic() + 10
    while len(said(events, "ready")) < 2 and time.monotonic() < end:
        supervisor.wait(0.1)
    assert said(events, "died", "ready") == [("ready", "worker"), ("died", "worker"), ("ready", "worker")]
    assert supervisor.pids()["worker"] != first
    assert not psutil.pid_exists(first)


def test_what_a_dead_child_started_dies_with_it(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.start(Process("pool", ["sh", "-c", f"sleep 600 & echo $! >{tmp_path}/pid; wait"]))
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().endswith("\n"))
    grandchild = psutil.Process(int((tmp_path / "pid").read_text()))
    os.kill(supervisor.pids()["pool"], signal.SIGKILL)
    supervisor.wait(0.3)
    until(lambda: not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE)


def test_gives_up_after_quick_deaths_and_shows_the_last_words(
    supervisor: Supervisor, events: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "BACKOFF", (0.01, 0.02))
    supervisor.start(Process("worker", ["sh", "-c", "sleep 0.3; echo no broker >&2; exit 3"]))
    with pytest.raises(GaveUp, match=r"worker died 3 times in a row, the last time with exit status 3(.|\n)*no broker"):
        supervisor.wait(10)
    assert len(said(events, "started")) == 3


@pytest.mark.parametrize(
    ("process", "message"),
    [
        (Process("x", ["sh", "-c", "echo bad setting; exit 2"], ready=lambda: False), "status 2(.|\n)*bad setting"),
        (Process("x", ["/no/such/program"]), "x cannot be started: .*No such file"),
        (Process("x", SLEEPER, ready=lambda: False, start_timeout=0.3), "x was not ready in 0.3 s"),
    ],
)
def test_says_at_once_why_a_child_cannot_start(supervisor: Supervisor, process: Process, message: str) -> None:
    with pytest.raises(GaveUp, match=message):
        supervisor.start(process)


def test_one_that_runs_once_is_not_started_again(supervisor: Supervisor, events: list[Event]) -> None:
    supervisor.start(Process("once", ["true"], restart=False))
    supervisor.wait(10)
    assert supervisor.running() == []
    assert said(events, "ended", "died") == [("ended", "once")]


def test_a_deaf_child_is_killed_when_its_time_is_up(tmp_path: Path, events: list[Event]) -> None:
    on = tmp_path / "on"
    with Supervisor(tmp_path, events.append) as supervisor:
        supervisor.start(Process("deaf", ["sh", "-c", DEAF.format(on=on)], ready=on.exists, stop_timeout=0.3))
        pid = supervisor.pids()["deaf"]
    assert [event.what for event in events][-3:] == ["stopping", "killed", "stopped"]
    assert not psutil.pid_exists(pid)


def test_the_log_is_bounded_while_the_child_writes(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "LOG_BYTES", 20_000)
    supervisor.start(Process("chatty", ["sh", "-c", "while :; do echo 0123456789012345678901234567890123456789; done"]))
    log = tmp_path / "log" / "chatty.log"
    supervisor.wait(0.5)
    os.kill(supervisor.pids()["chatty"], signal.SIGSTOP)
    supervisor.wait(0.3)
    assert log.stat().st_size <= 20_000
    assert log.with_name("chatty.log.1").stat().st_size > 20_000
    assert b"\0" not in log.read_bytes()
    os.kill(supervisor.pids()["chatty"], signal.SIGCONT)


def test_an_interrupt_outside_of_waiting_raises_where_it_arrives(tmp_path: Path, events: list[Event]) -> None:
    def migrate() -> None:
        with Supervisor(tmp_path, events.append) as supervisor:
            supervisor.start(Process("database", SLEEPER))
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
            threading.Event().wait(30)

    with pytest.raises(KeyboardInterrupt):
        migrate()
    assert said(events, "stopped") == [("stopped", "database")]


class Host:
    """A supervisor in a process of its own, as `nms-workers up` is."""

    def __init__(self, folder: Path, argv: list[str]) -> None:
        script = folder / "host.py"
        script.write_text(
            textwrap.dedent(f"""
                from pathlib import Path
                from nms_workers.supervisor import Process, Supervisor
                with Supervisor(Path({str(folder)!r}), lambda e: print(e.name, e.what, flush=True)) as supervisor:
                    supervisor.start(Process("first", {SLEEPER!r}))
                    supervisor.start(Process("second", {argv!r}))
                    print("pids", *supervisor.pids().values(), flush=True)
                    supervisor.wait()
            """)
        )
        environment = {**os.environ, "PYTHONPATH": str(Path(child.__file__).parents[1])}
        self.process = subprocess.Popen(
            [sys.executable, str(script)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        words = next(line for line in self.process.stdout if line.startswith("pids")).split()
        self.children = [psutil.Process(int(pid)) for pid in words[1:]]

    def end(self) -> tuple[str, float]:
        """What it printed until it ended, and after how many seconds that was."""
        began = time.monotonic()
        out, _ = self.process.communicate(timeout=30)
        return out, time.monotonic() - began

    def gone(self) -> bool:
        return all(not c.is_running() or c.status() == psutil.STATUS_ZOMBIE for c in self.children)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Callable[[list[str]], Host]]:
    hosts: list[Host] = []

    def start(argv: list[str]) -> Host:
        hosts.append(Host(tmp_path, argv))
        return hosts[-1]

    yield start
    for one in hosts:
        one.process.kill()
        one.process.communicate()
        for process in one.children:
            if process.is_running():
                process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_everything_in_order(host: Callable[[list[str]], Host], number: signal.Signals) -> None:
    one = host(SLEEPER)
    one.process.send_signal(number)
    out, _ = one.end()
    assert out.split("\n")[:4] == ["second stopping", "second stopped", "first stopping", "first stopped"]
    assert one.gone()


def test_a_second_ctrl_c_makes_it_hurry(host: Callable[[list[str]], Host], tmp_path: Path) -> None:
    one = host(["sh", "-c", DEAF.format(on=tmp_path / "on")])
    until((tmp_path / "on").exists)
    one.process.send_signal(signal.SIGINT)
    assert one.process.stdout is not None
    assert one.process.stdout.readline() == "second stopping\n"
    one.process.send_signal(signal.SIGINT)
    out, seconds = one.end()
    assert "second killed" in out
    assert 1.5 < seconds < 10, "its own limit is 20 s"
    assert one.gone()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
def test_nothing_runs_on_when_the_supervisor_is_killed(host: Callable[[list[str]], Host], tmp_path: Path) -> None:
    one = host(["sh", "-c", DEAF.format(on=tmp_path / "on")])
    until((tmp_path / "on").exists)
    one.process.kill()
    until(one.gone)
