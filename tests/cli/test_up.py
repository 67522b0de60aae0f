"""`nms-workers up`, from an empty home to an orderly end."""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from nms_workers.service import services
from tests.cli.conftest import Fleet, Run

OWN = {(kind, poll) for kind in ("postgresql", "redis") for poll in services()[kind].polls()}


@pytest.mark.timeout(240)
def test_one_round_of_everything_through_the_queue(nms: Run, tmp_path: Path) -> None:
    ended = nms("up", "--once", "--json", "--data", str(tmp_path / "data"))
    assert ended.returncode == 0, ended.stderr
    slots = json.loads(ended.stdout)["slots"]
    assert {(slot["service"], slot["poll"]) for slot in slots} == OWN
    assert len(slots) == len(OWN)
    for slot in slots:
        assert set(slot) == {"service", "target", "poll", "outcome", "samples", "milliseconds"}
        assert (slot["target"], slot["outcome"]) == ("embedded", "ok")
        assert slot["milliseconds"] > 0
    assert sum(slot["samples"] for slot in slots) > 1000
    assert not _processes_of(tmp_path / "data")


@pytest.mark.timeout(240)
def test_one_round_with_a_target_that_is_not_there_exits_1(nms: Run, tmp_path: Path) -> None:
    config = tmp_path / "nms.toml"
    config.write_text('[[targets]]\nservice = "redis"\nname = "gone"\nport = 1\n')
    ended = nms("up", "--once", "--data", str(tmp_path / "data"))
    assert ended.returncode == 1, ended.stderr
    assert "unreachable" in ended.stdout
    assert "Traceback" not in ended.stderr


@pytest.mark.timeout(300)
def test_a_fleet_runs_is_asked_is_stopped_and_finds_its_data_again(
    start_up: Callable[[Path], Fleet], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    fleet = start_up(data)
    first = _await_samples(fleet)

    assert {(row["service"], row["name"], row["state"]) for row in fleet.json("targets")} == {
        ("postgresql", "embedded", "active"),
        ("redis", "embedded", "active"),
    }
    assert {row["service"] for row in fleet.json("runs")} == {"postgresql", "redis"}
    assert fleet("health", "polls").returncode == 0
    assert fleet("health", "beat").returncode == 0

    done = fleet.json("act", "redis", "flushdb", "confirm=embedded", "db=9", "--wait")
    assert (done["state"], done["result"]["changed"]) == ("unchanged", False)
    shown = fleet.json("jobs", "show", done["id"])
    assert shown.pop("events")[0]["event"] == "submitted"
    assert shown.pop("follow_ups") == []
    assert shown == done
    refused = fleet("act", "redis", "flushdb", "db=9")
    assert refused.returncode == 1
    assert "confirm=embedded" in refused.stdout

    assert _stop(fleet) == 0
    assert not _processes_of(data)

    again = start_up(data)
    kept = again.json("samples", "redis_commands_processed_total", "--since", "1h")
    assert kept[0] == first[0], "what was stored before is still there"
    assert [job["id"] for job in again.json("jobs", "list")][-1] == done["id"]
    assert _stop(again) == 0


@pytest.mark.timeout(240)
def test_two_fleets_on_one_folder_the_second_is_told_who_holds_it(
    start_up: Callable[[Path], Fleet], nms: Run, tmp_path: Path
) -> None:
    fleet = start_up(tmp_path / "data")
    second = nms("up", "--once", "--data", str(tmp_path / "data"))
    assert second.returncode == 2
    assert str(fleet.process.pid) in second.stderr
    assert "Traceback" not in second.stderr


def _await_samples(fleet: Fleet) -> list[dict[str, object]]:
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        if rows := fleet.json("samples", "redis_commands_processed_total"):
            return list(rows)
    pytest.fail("no sample in a minute")


def _stop(fleet: Fleet) -> int:
    fleet.process.send_signal(signal.SIGINT)
    fleet.process.communicate(timeout=60)
    return fleet.process.returncode


def _processes_of(folder: Path) -> list[str]:
    """Processes that still hold something in this folder, or were started for it."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        words = " ".join(process.info["cmdline"] or [])
        if str(folder) in words or (process.info["environ"] or {}).get("NMS_DATA") == str(folder):
            found.append(f"{process.pid} {words}")
    return found
