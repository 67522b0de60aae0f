"""The health check of a container: a fresh heartbeat of this process on this host, and nothing else, is well."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nms_workers.alive import STALE_SECONDS


def check(data: Path, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
    environment = {
        "PATH": os.environ["PATH"],
        "NMS_DATA": str(data),
        "PYTHONPATH": str(Path(__file__).parents[2]),
        **env,
    }
    argv = [sys.executable, "-m", "nms_workers.alive", *arguments]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("file", "name", "env"),
    [
        pytest.param("beat", "beat", {}, id="beat names no host"),
        pytest.param(f"polls@{socket.gethostname()}", "polls", {}, id="a worker names it"),
        pytest.param("traps@edge1", "traps", {"NMS_WORKER_NAME": "edge1"}, id="or what it is called"),
    ],
)
def test_fresh_is_well_and_old_is_not(tmp_path: Path, file: str, name: str, env: dict[str, str]) -> None:
    heartbeat = tmp_path / "run" / f"{file}.heartbeat"
    heartbeat.parent.mkdir()
    assert check(tmp_path, name, **env).returncode == 1, "none at all"
    heartbeat.touch()
    well = check(tmp_path, name, **env)
    assert (well.returncode, well.stderr) == (0, "")
    os.utime(heartbeat, times=(time.time() - STALE_SECONDS - 5,) * 2)
    hung = check(tmp_path, name, **env)
    assert hung.returncode == 1
    assert f"{name} has not worked for 15 s" in hung.stderr


def test_a_neighbour_does_not_answer_for_it(tmp_path: Path) -> None:
    """Containers may share the folder: the heartbeat of another host, or of another process here, says nothing."""
    run = tmp_path / "run"
    run.mkdir()
    for other in ("polls@elsewhere", f"polls2@{socket.gethostname()}", f"actions@{socket.gethostname()}"):
        (run / f"{other}.heartbeat").touch()
    assert check(tmp_path, "polls").returncode == 1


@pytest.mark.parametrize("arguments", [(), ("polls", "actions")])
def test_it_says_how_it_is_used(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert "usage" in check(tmp_path, *arguments).stderr
    assert check(tmp_path, *arguments).returncode == 1
