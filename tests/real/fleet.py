"""A fleet of real processes for tests: `nms-workers worker` and `beat`, with settings and data of its own.

Nothing here sleeps for a guess: `until` waits for a condition, and says what it waited for when that never comes.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TypeVar

from tests.real.probe_server import PASSWORD

PROBE = Path(__file__).parent / "probe"
CODE = Path(__file__).parents[2]  # what is beside these tests, whatever is installed
POLLS = ("quick", "steady", "stubborn", "together")
START_SECONDS = 90.0

T = TypeVar("T")


def until(condition: Callable[[], T], what: str, seconds: float = 45.0) -> T:
    """The first true answer of `condition`.

    Raises:
        AssertionError: it was not true in time.
    """
    end = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < end, f"not in {seconds:g} s: {what}"
        time.sleep(0.05)
    return answer


@dataclass
class Member:
    """One process of the fleet."""

    name: str
    process: "subprocess.Popen[bytes]"
    log: Path
    heartbeat: Path | None
    started_at: float = field(default_factory=time.time)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def words(self) -> str:
        """What it wrote."""
        return self.log.read_text(errors="replace")

    def beats(self, since: float | None = None) -> bool:
        """Whether it consumed from the broker after `since` (seconds since the epoch; default: its start)."""
        assert self.running, f"{self.name} ended with {self.process.returncode}:\n{self.words()[-3000:]}"
        assert self.heartbeat is not None, f"{self.name} has no heartbeat"
        since = self.started_at if since is None else since
        return self.heartbeat.exists() and self.heartbeat.stat().st_mtime >= since

    def ready(self) -> Self:
        """Return when it consumes."""
        until(self.beats, f"{self.name} consumes", START_SECONDS)
        return self

    def kill(self) -> None:
        """SIGKILL to it and all of its children, as when the machine's memory is out."""
        os.killpg(self.pid, signal.SIGKILL)
        self.process.wait(20)

    def stop(self, seconds: float = 60.0) -> int:
        """SIGTERM; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


class Fleet:
    """Starts members and ends them.

    Args:
        folder: for settings, data, logs and the journal.
        database, redis, broker: URLs.
    """

    def __init__(self, folder: Path, database: str, redis: str, broker: str = "") -> None:
        self.folder = folder
        self.database, self.redis, self.broker = database, redis, broker or redis
        self.config = folder / "nms.toml"
        self.journal = folder / "journal"
        self.members: list[Member] = []
        (folder / "logs").mkdir(parents=True, exist_ok=True)

    def configure(self, *targets: str, head: str = "") -> None:
        """Write the settings, whole or not at all."""
        new = self.config.with_suffix(".new")
        new.write_text(f'{head}\n[broker]\nurl = "env:PROBE_BROKER_URL"\n\n' + "\n".join(targets))
        new.replace(self.config)

    def target(self, name: str, port: int, polls: Mapping[str, str | None], **settings: object) -> str:
        """The settings of one probe target. `polls`: those that are on, and an interval where it is not the poll's."""
        every = ", ".join(f'{poll} = "{interval}"' for poll, interval in polls.items() if interval)
        lines = {
            "service": "probe",
            "name": name,
            "alias": name,
            "port": port,
            "password": "env:PROBE_PASSWORD",
            "journal": str(self.journal),
            "skip": [poll for poll in POLLS if poll not in polls],
            **settings,
        }
        body = "".join(f"{key} = {json.dumps(value)}\n" for key, value in lines.items())
        return f"[[targets]]\n{body}every = {{ {every} }}\n"

    @property
    def env(self) -> dict[str, str]:
        """The whole environment of a member."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "PYTHONPATH": os.pathsep.join(map(str, (PROBE, CODE))),
            "NMS_CONFIG": str(self.config),
            "NMS_DATA": str(self.folder / "data"),
            "NMS_DATABASE_URL": self.database,
            "NMS_REDIS_URL": self.redis,
            "PROBE_BROKER_URL": self.broker,
            "PROBE_PASSWORD": PASSWORD,
        }

    def worker(self, worker_class: str, name: str = "", *options: str, **env: str) -> Member:
        """Start a worker; `ready()` waits for it."""
        name = name or worker_class
        heartbeat = f"{name}@{socket.gethostname()}.heartbeat"
        return self.start(name, "worker", worker_class, "--name", name, *options, heartbeat=heartbeat, env=env)

    def beat(self, name: str = "beat") -> Member:
        """Start a beat, with a data folder of its own, as if on another host."""
        env = {"NMS_DATA": str(self.folder / name)}
        return self.start(name, "beat", heartbeat="beat.heartbeat", env=env)

    def start(self, name: str, *arguments: str, heartbeat: str = "", env: Mapping[str, str] | None = None) -> Member:
        """Start `nms-workers` with these arguments."""
        env = self.env | dict(env or {})
        log = self.folder / "logs" / f"{name}.log"
        with log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "nms_workers", *arguments],
                cwd=self.folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        where = Path(env["NMS_DATA"]) / "run" / heartbeat if heartbeat else None
        member = Member(name, process, log, where)
        self.members.append(member)
        return member

    def crew(self, *names: str) -> list[Member]:
        """Start these (classes of workers, or `beat`) together and return when all consume."""
        members = [self.beat() if name == "beat" else self.worker(name) for name in names]
        return [member.ready() for member in members]

    def run(self, *arguments: str, seconds: float = 120.0) -> "subprocess.CompletedProcess[str]":
        """Run `nms-workers` with these arguments to its end."""
        return subprocess.run(
            [sys.executable, "-m", "nms_workers", *arguments],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def logs(self) -> str:
        """What every member wrote."""
        return "\n".join(path.read_text(errors="replace") for path in sorted((self.folder / "logs").iterdir()))

    def close(self) -> None:
        """Kill what still runs."""
        for member in self.members:
            if member.running:
                member.kill()
