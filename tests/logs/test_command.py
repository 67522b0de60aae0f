"""The settings of logs, `nms-workers logs`, and how `nms-workers up` runs it."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from nms_workers.errors import ConfigError
from nms_workers.settings import Logs, Settings
from tests.cli.conftest import Fleet, Run, nms, program_env, start_up
from tests.fleet.stores import wait_until

__all__ = ["nms", "program_env", "start_up"]


@pytest.mark.parametrize(
    "path",
    ["var/log/x.log", "/var/log/**/x.log", "/var/log/", "/var/log/a\x00b", "/var/log/a\nb", ""],
    ids=["relative", "any depth", "folder", "nul", "line end", "empty"],
)
def test_a_path_is_an_absolute_one_of_files(path: str) -> None:
    with pytest.raises(ValidationError, match=r"files\.0\.paths\.0"):
        Logs.model_validate({"files": [{"paths": [path]}]})


@pytest.mark.parametrize(
    "wrong",
    [
        {"containers": ["a b"]},
        {"containers": ["--all"] * 1001},
        {"retention": {"network": "9h"}},
        {"retention": {"other": "9d"}},
        {"files": [{"paths": ["/x"], "stream": "other"}]},
        {"files": [{"paths": ["/x"], "service": "A b"}]},
        {"files": [{"paths": []}]},
        {"lines_per_second": 0},
        {"join_for": "2m"},
        {"unknown": 1},
    ],
    ids=lambda wrong: next(iter(wrong)) + str(len(str(wrong))),
)
def test_what_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Logs.model_validate(wrong)


def test_targets_that_are_not_there_are_told_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "nms.toml"
    path.write_text('[logs]\nelasticsearch = "main"\ndocker = ["local"]\n')
    with pytest.raises(ConfigError) as told:
        Settings.load(path)
    assert f"{path}:2: logs.elasticsearch: there is no target of the service elasticsearch" in str(told.value)
    assert f"{path}:3: logs.docker: there is no target of the service docker" in str(told.value)


def test_nothing_named(nms: Run) -> None:
    ended = nms("logs")
    assert ended.returncode != 0
    assert "no logs are named" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.timeout(300)
def test_up_ships_the_logs_of_the_fleet(start_up: Callable[[Path], Fleet], tmp_path: Path) -> None:
    (tmp_path / "nms.toml").write_text("[logs]\nown = true\n")
    fleet = start_up(tmp_path / "data")

    wait_until(lambda: fleet.json("events", "log_line"), 90)

    (told, *_) = fleet.json("events", "log_line")
    assert told["service"] == "logs"
    assert told["attributes"]["service"]["type"] == "nms-workers"
    fleet.process.send_signal(signal.SIGINT)
    assert fleet.process.wait(90) == 0
