"""Settings: every fault is named with its place and the reason, and no secret with it."""

import json
import os
import textwrap
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nms_workers.errors import ConfigError
from nms_workers.queues import queue, queue_names, queues_of
from nms_workers.service import seconds
from nms_workers.settings import Retention, Settings, TargetConfig, config_path
from nms_workers.store import partitions

Write = Callable[[str], Path]
SECRET = "hunter2"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.upper().startswith("NMS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """`write(text)`: a settings file."""

    def make(text: str) -> Path:
        path = tmp_path / "nms.toml"
        path.write_text(textwrap.dedent(text).lstrip("\n"))
        return path

    return make


GOOD = """
    [workers]
    poll_threads = 7

    [retention]
    samples = "2d"

    [every]
    "redis.server" = "30s"

    [[targets]]
    service = "redis"
    name = "cache"
    host = "192.0.2.1"
    password = "env:CACHE_PASSWORD"
    every = { memory = "2m" }
    skip = ["slowlog"]

    [[targets]]
    service = "postgresql"
    name = "main"
    worker = "db1"
    paused = true

    [targets.every]
    activity = "5s"
    """


def test_a_file_is_read(write: Write) -> None:
    settings = Settings.load(write(GOOD))
    assert settings.workers.poll_threads == 7
    assert settings.workers.action_processes == 2  # not named: the default
    assert settings.retention.samples == 2 * 86_400
    assert settings.every == {"redis.server": 30.0}
    cache, main = settings.targets
    assert (cache.every, cache.skip, cache.paused, cache.max_series) == ({"memory": 120.0}, ["slowlog"], False, 10_000)
    assert cache.settings == {"host": "192.0.2.1", "password": "env:CACHE_PASSWORD"}
    assert (main.every, main.worker, main.paused) == ({"activity": 5.0}, "db1", True)


def test_without_a_file_there_are_defaults(tmp_path: Path) -> None:
    settings = Settings.load(None)
    assert settings.targets == []
    assert settings.spool_folder == tmp_path / "data" / "nms-workers" / "spool"


def test_the_environment_comes_before_the_file(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NMS_WORKERS__POLL_THREADS", "9")
    monkeypatch.setenv("NMS_SPOOL__FOLDER", "/var/spool/nms")
    monkeypatch.setenv("NMS_DATABASE_URL", "postgresql://nobody/notasetting")
    settings = Settings.load(write(GOOD))
    assert settings.workers.poll_threads == 9
    assert settings.spool_folder == Path("/var/spool/nms")
    assert len(settings.targets) == 2


FAULTS = [
    ("[workers]\npoll_threads = 0\n", 2, "workers.poll_threads", "greater than or equal to 1"),
    ("[workers]\nthreads = 3\n", 2, "workers.threads", "not permitted"),
    ("[worker]\nthreads = 3\n", 1, "worker", "not permitted"),
    ("# one\n\ncolour = 'red'\n", 3, "colour", "not permitted"),
    ("_env_file = '.env'\n", 1, "_env_file", "no such setting"),
    ("_cli_parse_args = true\n", 1, "_cli_parse_args", "no such setting"),
    ("workers = 3\n", 1, "workers", "valid dictionary"),
    ("[retention]\n\nsamples = '3 weeks'\n", 3, "retention.samples", "is not a duration"),
    ("[retention]\nsamples = inf\n", 2, "retention.samples", "less than or equal"),
    ("[retention]\nsamples = nan\n", 2, "retention.samples", "greater than 0"),
    ("[retention]\nsamples = true\n", 2, "retention.samples", "a number and a unit"),
    ("[retention]\nsamples = -1\n", 2, "retention.samples", "greater than 0"),
    ("[every]\n'redis.server' = '200ms'\n", 2, "every.redis.server", "from 1s to 7d"),
    ("[every]\n'redis.server' = '30d'\n", 2, "every.redis.server", "from 1s to 7d"),
    ("[every]\n'redis.nothing' = '30s'\n", 2, "every.redis.nothing", "there is no poll"),
    ("[[targets]]\nname = 'a'\n", 1, "targets.0.service", "Field required"),
    ("[[targets]]\nservice = 'redis'\n", 1, "targets.0.name", "Field required"),
    ("[[targets]]\nservice = 'gopher'\nname = 'a'\n", 2, "targets.0.service", "no service 'gopher'"),
    ("[[targets]]\nservice = 'redis'\nname = 'a b'\n", 3, "targets.0.name", "match pattern"),
    ("[[targets]]\nservice = 'redis'\nname = 'a\\n'\n", 3, "targets.0.name", "match pattern"),
    ("[[targets]]\nservice = 'redis'\nname = 'a'\nport = 'x'\n", 4, "targets.0.port", "valid integer"),
    ('[[targets]]\nservice = "redis"\nname = "a"\nhost = "a\\u0000b"\n', 1, "targets.0", "the character NUL"),
    ("[[targets]]\nservice = 'redis'\nname = 'a'\nhots = 'x'\n", 4, "targets.0.hots", "not permitted"),
    ("[[targets]]\nservice = 'redis'\nname = 'a'\nskip = ['x']\n", 4, "targets.0.skip", "redis has no poll 'x'"),
    ("[[targets]]\nservice = 'redis'\nname = 'a'\nevery = {x = '9s'}\n", 4, "targets.0.every", "redis has no poll 'x'"),
    ("[[targets]]\nservice = 'redis'\nname = 'a'\n[targets.every]\nx = '9'\n", 5, "targets.0.every.x", "a duration"),
    ("[[targets]]\nservice = 'redis'\nname = 'a'\n\n" * 2, 7, "targets.1.name", "two redis targets are named 'a'"),
]


@pytest.mark.parametrize(("text", "line", "where", "why"), FAULTS)
def test_a_fault_has_its_line_and_the_reason(write: Write, text: str, line: int, where: str, why: str) -> None:
    path = write(text)
    with pytest.raises(ConfigError) as fault:
        Settings.load(path)
    assert str(fault.value).startswith(f"{path}:{line}: {where}: ")
    assert why in str(fault.value)
    assert "\n" not in str(fault.value)


def test_every_fault_is_told_in_the_order_of_lines(write: Write) -> None:
    path = write("""
        [workers]
        poll_threads = 0
        action_processes = "many"

        [[targets]]
        service = "redis"
        name = "ok"

        [[targets]]
        name = "a"
        service = 3
        """)
    with pytest.raises(ConfigError) as fault:
        Settings.load(path)
    lines = [int(line.removeprefix(f"{path}:").partition(":")[0]) for line in str(fault.value).splitlines()]
    assert lines == [2, 3, 11]


def test_faults_of_targets_are_all_told_too(write: Write) -> None:
    one = "[[targets]]\nservice = 'redis'\nname = 'n{}'\nport = {}\n"
    with pytest.raises(ConfigError) as fault:
        Settings.load(write("".join(one.format(number, port) for number, port in enumerate([1, -1, 2, 70_000]))))
    assert [line.split(": ")[1] for line in str(fault.value).splitlines()] == ["targets.1.port", "targets.3.port"]


@pytest.mark.parametrize(
    ("variable", "value", "where"),
    [
        ("NMS_WORKERS__POLL_THREADS", "many", "workers.poll_threads"),
        ("nms_workers__poll_threads", "many", "workers.poll_threads"),
        ("NMS_WORKERS__POLL_THREADZ", "4", "workers.poll_threadz"),
        ("NMS_WORKERS", '{"poll_threads": "many"}', "workers.poll_threads"),
        ("NMS_RETENTION__SAMPLES", "for ever", "retention.samples"),
        ("NMS_DATABASE__URL", f"postgresql://nms:{SECRET}@db/nms", "database.url"),
    ],
)
def test_a_fault_of_the_environment_is_not_blamed_on_the_file(
    write: Write, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, where: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError) as fault:
        Settings.load(write(GOOD))
    assert str(fault.value).startswith(f"{variable.upper()}: {where}: ")
    assert SECRET not in str(fault.value)


def test_an_environment_that_is_no_json_is_a_fault_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NMS_TARGETS", f"[{SECRET}")
    with pytest.raises(ConfigError, match=r'field "targets".*NMS_<SECTION>__<KEY>') as fault:
        Settings.load(None)
    assert SECRET not in str(fault.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [("a = ", "end of document"), ("[a]\n[a]\n", "line 2"), ("a = 1\na = 2\n", "line 2"), ("[[targets]\n", "line 1")],
)
def test_what_is_not_toml_is_told_with_the_line(write: Write, text: str, why: str) -> None:
    path = write(text)
    with pytest.raises(ConfigError, match=f"is not TOML: .*{why}") as fault:
        Settings.load(path)
    assert str(path) in str(fault.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.toml cannot be read: No such file"):
        Settings.load(tmp_path / "missing.toml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        Settings.load(tmp_path)
    (tmp_path / "latin").write_bytes(b'a = "\xe9"')
    with pytest.raises(ConfigError, match="latin cannot be read"):
        Settings.load(tmp_path / "latin")


@pytest.mark.parametrize(
    "text",
    [
        f"[database]\nurl = 'postgresql://nms:{SECRET}@db/nms'\n",
        f"[redis]\nurl = '{SECRET}'\n",
        f"[web]\nflower_auth = 'admin:{SECRET}'\n",
        f"[[targets]]\nservice = 'redis'\nname = 'a'\npassword = '{SECRET}'\n",
        f"[[targets]]\nservice = 'redis'\nname = 'a'\npasword = '{SECRET}'\n",
        f"[[targets]]\nservice = 'redis'\nname = 'a'\nport = '{SECRET}'\n",
        f"[[targets]]\nservice = 'postgresql'\nname = 'a'\npassword = ['{SECRET}']\n",
        f"[[targets]]\nservice = 'redis'\nname = 'a'\nmax_series = '{SECRET}'\n",
    ],
)
def test_a_secret_written_by_mistake_is_never_repeated(write: Write, text: str) -> None:
    with pytest.raises(ConfigError) as fault:
        Settings.load(write(text))
    assert SECRET not in str(fault.value)
    assert SECRET not in repr(fault.value)
    assert SECRET not in "".join(traceback.format_exception(fault.value))


def test_a_secret_is_a_reference_and_never_printed(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NMS_TEST_URL", f"postgresql://nms:{SECRET}@db/nms")
    monkeypatch.setenv("CACHE_PASSWORD", SECRET)
    settings = Settings.load(write(GOOD + '\n    [database]\n    url = "env:NMS_TEST_URL"\n'))
    assert settings.database_url() == f"postgresql://nms:{SECRET}@db/nms"
    for text in (repr(settings), str(settings), settings.model_dump_json(), repr(settings.targets[0].validated())):
        assert SECRET not in text
    assert "env:NMS_TEST_URL" in settings.model_dump_json()


def test_a_secret_file_is_read_at_each_use(write: Write, tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text("redis://one\n")
    settings = Settings.load(write(f"[redis]\nurl = 'file:{secret}'\n"))
    assert settings.redis_url() == "redis://one"
    assert settings.broker_url() == "redis://one"  # unless another is named
    secret.write_text("redis://two\n")
    assert settings.redis_url() == "redis://two"


def test_a_url_that_is_nowhere_is_told_with_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"where is postgres\? .*start `nms-workers up`, or set NMS_DATABASE_URL"):
        Settings.load(None).database_url()


def test_the_embedded_servers_are_found_by_their_files(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "nms-workers" / "redis"
    folder.mkdir(parents=True)
    (folder / "url").write_text("redis://embedded\n")
    assert Settings.load(None).redis_url() == "redis://embedded"


def test_which_file_is_in_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    found = []
    written = [tmp_path / "data/nms-workers/up.toml", tmp_path / "config/nms-workers/nms.toml", Path("nms.toml")]
    assert config_path() is None
    for path in written:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        found.append(config_path())
    assert found == written
    monkeypatch.setenv("NMS_CONFIG", "/elsewhere.toml")
    assert config_path() == Path("/elsewhere.toml")


@given(st.floats(0.001, 10**9).map(lambda number: round(number, 3)))
def test_a_duration_is_printed_as_it_can_be_written(number: float) -> None:
    printed = Retention(samples=number).model_dump()["samples"]
    assert seconds(printed) == pytest.approx(number, rel=1e-12)


def test_retention_by_table_names_every_table_that_is_kept() -> None:
    kept = Retention(samples="2d", poll_runs="1h").by_table()  # type: ignore[arg-type]
    assert kept["sample_blocks"] == timedelta(days=2)
    assert kept["poll_runs"] == timedelta(hours=1)
    assert kept.keys() == partitions.TABLES.keys() - {"flow_batches"}


def test_what_is_loaded_can_be_shown_and_loaded_again(write: Write) -> None:
    settings = Settings.load(write(GOOD))
    again = Settings.model_validate(json.loads(settings.model_dump_json()))
    assert again == settings


# Queues follow from settings.


def test_each_class_of_worker_consumes_its_own_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "here")
    settings = Settings(
        targets=[TargetConfig(service="redis", name="a", worker="fw1"), TargetConfig(service="redis", name="b")]
    )
    assert {"edge.fw1", "edge.here"} <= set(queue_names(settings))
    consumed = {one: queues_of(one, settings) for one in ("polls", "actions", "edge", "control")}
    assert consumed["edge"] == ["edge.here"], "a target beside fw1 is polled and changed on fw1 only"
    assert {"poll.redis", "poll.postgresql"} <= set(consumed["polls"])
    assert consumed["control"] == ["dispatch", "store", "watch"]
    assert all(name.startswith("act.") for name in consumed["actions"])
    everything = [name for names in consumed.values() for name in names]
    assert sorted([*everything, "edge.fw1"]) == sorted(queue_names(settings)), "each queue has one class of worker"


@pytest.mark.parametrize(
    ("url", "arguments"),
    [("redis://h", None), ("amqp://h", {"x-queue-type": "quorum"}), ("pyamqp://h", {"x-queue-type": "quorum"})],
)
def test_on_rabbitmq_queues_are_quorum_queues(url: str, arguments: dict[str, str] | None) -> None:
    made = queue("poll.redis", url)
    assert (made.name, made.routing_key, made.durable, made.queue_arguments) == (
        "poll.redis", "poll.redis", True, arguments,
    )  # fmt: skip


def test_what_is_found_and_what_is_healthy_is_checked(write: Write) -> None:
    wrong = """
        [discovery.docker]
        engines = ["nowhere"]
        approve = ["redis"]

        [health]
        every = "0.5s"

        [health.checks.mysql]
        http = "/"

        [health.checks.redis]
        http = "ftp://x"
        tcp = 70000
        """
    with pytest.raises(ConfigError) as caught:
        Settings.load(write(wrong))
    told = str(caught.value)
    for line, place in ((3, "discovery.docker.approve"), (6, "health.every"), (12, "health.checks.redis.http")):
        assert f"nms.toml:{line}: {place}" in told
    assert "health.checks.redis.tcp" in told
    unknown = "[discovery.docker]\nengines = ['nowhere']\n[health.checks.mysql]\nhttp = '/'\n"
    with pytest.raises(ConfigError) as caught:
        Settings.load(write(unknown))
    assert "nms.toml:2: discovery.docker.engines: no docker target is named 'nowhere'" in str(caught.value)
    assert "nms.toml:3: health.checks.mysql: there is no service 'mysql'" in str(caught.value)


def test_the_checks_of_a_target_are_its_own(write: Write) -> None:
    text = """
        [[targets]]
        service = "redis"
        name = "cache"
        host = "192.0.2.1"
        health = { tcp = 16379, poll = false }
        """
    (target,) = Settings.load(write(text)).targets
    assert target.health is not None
    assert (target.health.tcp, target.health.poll, target.settings) == (16379, False, {"host": "192.0.2.1"})
