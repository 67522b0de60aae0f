"""`nms-workers bench actions`: a fleet of its own, and a target that counts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.real.conftest import POSTGRES, REDIS
from tests.real.fleet import CODE


@pytest.mark.parametrize("at", [pytest.param("fail2ban", marks=pytest.mark.real("fail2ban")), "redis"])
@pytest.mark.real(POSTGRES, REDIS)
@pytest.mark.timeout(240)
def test_each_action_is_timed_and_counted_at_its_target(tmp_path: Path, at: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nms_workers", "bench", "actions", "--at", at, "--jobs", "30", "--json"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(CODE)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["at"], found["jobs"], found["exactly_once"]) == (at, 30, True)
    assert "asked for 30 of 30" in done.stderr, "it tells how far it is, beside the JSON"
    assert 0 < found["p50_ms"] <= found["p99_ms"]
    assert 0 < found["jobs_per_second"] <= 15, "not faster than they were asked for"
