"""Commands that need no running fleet, and what they say when something is wrong."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nms_workers import __version__
from nms_workers.service import services
from tests.cli.conftest import Run
from tests.servers import Server

StartServer = Callable[..., Server]


def test_version(nms: Run) -> None:
    assert nms("version").stdout.strip() == __version__


def test_services_as_json_has_the_promised_shape(nms: Run) -> None:
    found = json.loads(nms("services", "--json").stdout)
    assert [one["kind"] for one in found] == list(services())
    for one in found:
        own = services()[one["kind"]]
        assert [poll["name"] for poll in one["polls"]] == list(own.polls())
        assert [action["name"] for action in one["actions"]] == list(own.actions())
        assert [metric["name"] for metric in one["metrics"]] == list(own.metrics())


def test_every_command_has_help_with_what_it_does(nms: Run) -> None:
    listed = nms("--help").stdout
    for command in ("up", "worker", "beat", "poll", "services", "targets", "samples", "config", "act", "jobs", "db"):
        assert command in listed
        ended = nms(command, "--help")
        assert ended.returncode == 0
        assert "Usage" in ended.stdout


def test_the_example_is_a_good_settings_file(nms: Run, tmp_path: Path) -> None:
    (tmp_path / "nms.toml").write_text(nms("config", "example").stdout)
    ended = nms("config", "check")
    assert ended.returncode == 0, ended.stderr
    assert "good, 2 targets" in ended.stdout


def test_a_broken_settings_file_is_told_with_line_and_reason(nms: Run, tmp_path: Path) -> None:
    (tmp_path / "nms.toml").write_text('[workers]\npoll_threads = "many"\n[[targets]]\nservice = "redi"\nname = "a"\n')
    ended = nms("config", "check")
    assert ended.returncode == 2
    assert "nms.toml:2: workers.poll_threads" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_show_never_shows_a_secret(nms: Run, tmp_path: Path) -> None:
    (tmp_path / "nms.toml").write_text('[[targets]]\nservice = "redis"\nname = "a"\npassword = "env:CACHE_PASSWORD"\n')
    ended = nms("config", "show", env={"CACHE_PASSWORD": "hunter2", "NMS_DATABASE_URL": "postgresql://u:pa55@h/d"})
    assert "env:CACHE_PASSWORD" in ended.stdout
    assert "hunter2" not in ended.stdout + ended.stderr
    assert "pa55" not in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("targets",), "nms-workers up"),
        (("act", "redis", "explode"), "flushdb"),
        (("poll", "nothing"), "postgresql"),
        (("poll", "redis"), "no redis target"),
        (("worker", "dancers"), "polls"),
    ],
)
def test_an_error_says_what_to_do(nms: Run, arguments: tuple[str, ...], words: str) -> None:
    ended = nms(*arguments)
    assert ended.returncode == 2
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr


def test_servers_that_are_away_are_told_without_their_password(nms: Run) -> None:
    env = {
        "NMS_DATABASE_URL": "postgresql://u:pa55word@127.0.0.1:1/d",
        "NMS_REDIS_URL": "redis://:pa55word@127.0.0.1:1",
    }
    for command in (("targets",), ("db", "upgrade"), ("jobs", "list"), ("runs",)):
        ended = nms(*command, env=env)
        assert ended.returncode == 2
        assert "PostgreSQL cannot be used" in ended.stderr
        assert "pa55word" not in ended.stderr
        assert "Traceback" not in ended.stderr


@pytest.mark.real("valkey-9")
def test_one_poll_here_and_now(nms: Run, session_server: StartServer, tmp_path: Path) -> None:
    server = session_server("valkey-9")
    (tmp_path / "nms.toml").write_text(
        f'[[targets]]\nservice = "redis"\nname = "a"\nport = {server.port}\npassword = "env:P"\n'
        f'[[targets]]\nservice = "redis"\nname = "shut"\nport = {server.port}\npassword = "env:WRONG"\n'
    )
    env = {"P": server.password, "WRONG": "wrong"}
    ended = nms("poll", "redis", "server", "--target", "a", "--json", env=env)
    assert ended.returncode == 0, ended.stderr
    (run,) = json.loads(ended.stdout)
    assert (run["target"], run["poll"], run["outcome"]) == ("a", "server", "ok")
    assert any(record["what"].startswith("redis_uptime_seconds") for record in run["records"])

    refused = nms("poll", "redis", "server", "--target", "shut", env=env)
    assert refused.returncode == 1
    assert "auth" in refused.stdout


@pytest.mark.timeout(240)
def test_bench_store_measures_both_ways(nms: Run) -> None:
    ended = nms("bench", "store", "--targets", "20", "--series", "100", "--rounds", "100", "--json")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["values"] == 200_000
    assert found["values_per_cpu_second"] > found["row_values_per_cpu_second"]
    assert 8 < found["bytes_per_value"] < found["row_bytes_per_value"]
