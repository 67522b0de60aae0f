"""Runs the real program as a person would: another process, a home of its own, no settings but those named."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def program_env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a newcomer: an empty home, nothing of ours set."""
    home = tmp_path_factory.mktemp("home")
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "NMS_REQUIRE_REAL")}
    code = str(Path(__file__).parents[2])  # what is beside these tests, whatever is installed
    return kept | {"HOME": str(home), "COLUMNS": "200", "PYTHONPATH": code}


@pytest.fixture
def nms(program_env: Mapping[str, str], tmp_path: Path) -> Run:
    """`nms("config", "check", env={...})`: run to its end, in an empty folder."""

    def run(*arguments: str, env: Mapping[str, str] | None = None, timeout: float = 120) -> Any:
        return subprocess.run(
            [sys.executable, "-m", "nms_workers", *arguments],
            cwd=tmp_path,
            env={**program_env, **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


@dataclass
class Fleet:
    """A running `nms-workers up`, and the program beside it with the same settings."""

    process: subprocess.Popen[str]
    data: Path
    run: Run

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command in another shell."""
        return self.run(*arguments, env={"NMS_DATA": str(self.data)})

    def json(self, *arguments: str) -> Any:
        """What a command prints with --json; it must succeed."""
        ended = self(*arguments, "--json")
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)


@pytest.fixture
def start_up(program_env: Mapping[str, str], nms: Run, tmp_path: Path) -> Iterator[Callable[[Path], Fleet]]:
    """`start_up(data)`: start the fleet and return when it says that Ctrl-C stops it."""
    started: list[subprocess.Popen[str]] = []

    def start(data: Path) -> Fleet:
        process = subprocess.Popen(
            [sys.executable, "-m", "nms_workers", "up", "--data", str(data)],
            cwd=tmp_path,
            env=dict(program_env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        seen = []
        for line in process.stdout:
            seen.append(line)
            if "Ctrl-C stops everything" in line:
                return Fleet(process, data, nms)
        pytest.fail(f"up ended with {process.wait()}:\n{''.join(seen)}")

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
