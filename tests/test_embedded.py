"""The servers that start with the program: real ones, under the real supervisor, through deaths and odd places."""

import json
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from nms_workers.embedded import Postgres, Redis
from nms_workers.errors import ConfigError
from nms_workers.supervisor import Process, Supervisor
from tests.servers import program


def process(server: Postgres | Redis) -> Process:
    return Process(
        type(server).__name__, server.argv, env=server.env, ready=server.ready, stop_signal=server.stop_signal
    )


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[[Postgres | Redis], int]]:
    """`run(server)`: prepared, started and ready, its process id; stopped and let go at the end."""
    servers: list[Postgres | Redis] = []

    with Supervisor(tmp_path / "log", lambda _: None) as supervisor:

        def start(server: Postgres | Redis) -> int:
            servers.append(server)
            server.prepare()
            supervisor.start(process(server))
            return supervisor.pids()[type(server).__name__]

        yield start
    for server in servers:
        server.close()


def test_postgresql_is_made_with_a_password_and_statistics(
    run: Callable[[Postgres | Redis], int], tmp_path: Path
) -> None:
    server = Postgres(tmp_path / "pg")
    run(server)
    with psycopg.connect(server.secret_url()) as connection:
        assert connection.info.server_version // 10000 == 18
        assert connection.execute("select calls > 0 from pg_stat_statements limit 1").fetchone() == (True,)
        row = connection.execute(
            "select pg_encoding_to_char(encoding), datlocprovider::text, datlocale from pg_database"
            " where datname = current_database()"
        ).fetchone()
        assert row == ("UTF8", "b", "C.UTF-8")
    assert server.folder.url_file.read_text() == server.secret_url()
    password = server.folder.password_file.read_text()
    assert password not in server.url + repr(server) + " ".join(server.argv) + json.dumps(server.env)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(server.url, password="wrong")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(server.url, password="wrong", host=str(tmp_path / "pg" / "run"))


def test_redis_keeps_messages_and_asks_for_the_password(run: Callable[[Postgres | Redis], int], tmp_path: Path) -> None:
    server = Redis(tmp_path / "redis")
    run(server)
    with redis.Redis.from_url(server.secret_url()) as client:
        settings = client.config_get("maxmemory-policy", "appendonly", "appendfsync")
        assert settings == {"maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": "everysec"}
    assert server.folder.url_file.read_text() == server.secret_url()
    password = server.folder.password_file.read_text()
    assert password not in server.url + repr(server) + " ".join(server.argv) + json.dumps(server.env)
    with redis.Redis.from_url(server.url) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


@pytest.mark.parametrize("server_class", [Postgres, Redis])
def test_only_the_owner_can_look_in_and_only_this_machine_can_connect(
    run: Callable[[Postgres | Redis], int], tmp_path: Path, server_class: type[Postgres | Redis]
) -> None:
    server = server_class(tmp_path / "server")
    pid = run(server)
    assert stat.S_IMODE((tmp_path / "server").stat().st_mode) == 0o700
    for file in (tmp_path / "server").glob("*"):
        if file.is_file():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    family = {pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))}
    listening = {c.laddr for c in psutil.net_connections("inet") if c.status == "LISTEN" and c.pid in family}
    assert listening == {("127.0.0.1", server.port)}


HOST = """
import sys
from pathlib import Path
from nms_workers.embedded import Postgres, Redis
from nms_workers.supervisor import Process, Supervisor
folder = Path(sys.argv[1])
servers = Postgres(folder / "pg"), Redis(folder / "redis")
for server in servers:
    server.prepare()
with Supervisor(folder / "log", lambda _: None) as supervisor:
    supervisor.start(*(Process(type(s).__name__, s.argv, env=s.env, ready=s.ready, stop_signal=s.stop_signal)
                       for s in servers))
    print(*supervisor.pids().values(), flush=True)
    supervisor.wait()
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[tuple["subprocess.Popen[str]", list[psutil.Process]]]:
    """Both servers under a program of their own: its process, and theirs."""
    with subprocess.Popen([sys.executable, "-c", HOST, str(tmp_path)], stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout is not None
        servers = [psutil.Process(int(pid)) for pid in host.stdout.readline().split()]
        assert len(servers) == 2
        yield host, servers
        host.kill()
    psutil.wait_procs(servers, timeout=10)


@pytest.mark.parametrize("dies", ["the program", "everything"])
def test_data_survives_a_kill(
    other: tuple["subprocess.Popen[str]", list[psutil.Process]],
    run: Callable[[Postgres | Redis], int],
    tmp_path: Path,
    dies: str,
) -> None:
    host, servers = other
    postgres, valkey = Postgres(tmp_path / "pg"), Redis(tmp_path / "redis")
    with psycopg.connect(postgres.folder.url_file.read_text()) as connection:
        connection.execute("create table kept as select generate_series(1, 1000) as n")
    with redis.Redis.from_url(valkey.folder.url_file.read_text()) as client:
        client.rpush("kept", *range(1000))
        client.execute_command("WAITAOF", 1, 0, 5000)
    ports = [(tmp_path / name / "port").read_text() for name in ("pg", "redis")]

    host.kill()
    host.wait()
    if dies == "everything":
        for server in servers:
            server.kill()
    for server_ in (postgres, valkey):  # at once: the old ones may still be ending
        run(server_)

    with psycopg.connect(postgres.secret_url()) as connection:
        assert connection.execute("select count(*) from kept").fetchone() == (1000,)
    with redis.Redis.from_url(valkey.secret_url()) as client:
        assert client.llen("kept") == 1000
    assert [str(postgres.port), str(valkey.port)] == ports


@pytest.mark.parametrize(("server_class", "name"), [(Postgres, "pg"), (Redis, "redis")])
def test_a_second_start_says_who_has_the_folder(
    other: tuple["subprocess.Popen[str]", list[psutil.Process]],
    tmp_path: Path,
    server_class: type[Postgres | Redis],
    name: str,
) -> None:
    host, _ = other
    with pytest.raises(ConfigError, match=rf"{name} is in use by process {host.pid} on \S+ since 20"):
        server_class(tmp_path / name).prepare()
    os.kill(host.pid, signal.SIGTERM)
    host.wait(30)
    server = server_class(tmp_path / name)
    server.prepare()
    server.close()


def test_a_pid_file_that_names_some_other_living_process_is_stale(
    run: Callable[[Postgres | Redis], int], tmp_path: Path
) -> None:
    first = Postgres(tmp_path / "pg")
    first.prepare()
    first.close()
    lines = [os.getppid(), first.folder.data, 1, first.port, "", "127.0.0.1", "0 0", "ready"]
    (first.folder.data / "postmaster.pid").write_text("\n".join(map(str, lines)) + "\n")
    run(Postgres(tmp_path / "pg"))


def test_a_first_start_that_was_cut_off_is_begun_anew(run: Callable[[Postgres | Redis], int], tmp_path: Path) -> None:
    (tmp_path / "pg" / "data.new" / "base").mkdir(parents=True)
    run(Postgres(tmp_path / "pg"))
    assert not (tmp_path / "pg" / "data.new").exists()


@pytest.mark.parametrize("server_class", [Postgres, Redis])
def test_the_port_is_kept_unless_somebody_took_it(tmp_path: Path, server_class: type[Postgres | Redis]) -> None:
    def port() -> int:
        server = server_class(tmp_path / "server")
        server.prepare()
        server.close()
        return server.port

    first = port()
    assert port() == first
    with socket.create_server(("127.0.0.1", first)):
        second = port()
    assert second != first
    assert port() == second


@pytest.mark.parametrize("server_class", [Postgres, Redis])
@pytest.mark.parametrize("folder", ["""it's "ours", ü""", "deep/" * 30], ids=["odd", "too long for a socket"])
def test_any_folder_will_do(
    run: Callable[[Postgres | Redis], int], tmp_path: Path, server_class: type[Postgres | Redis], folder: str
) -> None:
    run(server_class(tmp_path / folder))


def test_data_of_another_version_finds_its_program_or_says_what_to_do(
    run: Callable[[Postgres | Redis], int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    session_server: Callable[[str], object],
) -> None:
    session_server("postgresql-15")
    monkeypatch.setenv("NMS_POSTGRES_BIN", str(program("postgresql-15").parent))
    old = Postgres(tmp_path / "pg")
    old.prepare()
    old.close()

    monkeypatch.setenv("NMS_POSTGRES_BIN", str(program("postgresql-18").parent))
    with pytest.raises(
        ConfigError, match=r"written by PostgreSQL 15, and here is only .*\(18\.\d+\).*install PostgreSQL 15"
    ):
        Postgres(tmp_path / "pg").prepare()

    monkeypatch.delenv("NMS_POSTGRES_BIN")
    server = Postgres(tmp_path / "pg")
    run(server)
    with psycopg.connect(server.secret_url()) as connection:
        assert connection.info.server_version // 10000 == 15


@pytest.mark.parametrize(("server_class", "variable"), [(Postgres, "NMS_POSTGRES_BIN"), (Redis, "NMS_VALKEY_SERVER")])
def test_a_missing_program_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server_class: type[Postgres | Redis], variable: str
) -> None:
    monkeypatch.setenv(variable, "/no/such/place")
    with pytest.raises(ConfigError, match=rf"/no/such/place.*does not run.*{variable}"):
        server_class(tmp_path / "server").prepare()


def test_a_lost_password_is_not_made_up(tmp_path: Path) -> None:
    server = Postgres(tmp_path / "pg")
    server.prepare()
    server.close()
    server.folder.password_file.unlink()
    with pytest.raises(ConfigError, match="is gone"):
        Postgres(tmp_path / "pg").prepare()


AS_WHOEVER = """
import os, sys
from pathlib import Path
import psycopg
from nms_workers.embedded import Postgres
from nms_workers.supervisor import Process, Supervisor
server = Postgres(Path(sys.argv[1]))
server.prepare()
with Supervisor(Path(sys.argv[1]) / "log", lambda _: None) as supervisor:
    supervisor.start(Process("pg", server.argv, env=server.env, ready=server.ready, stop_signal=server.stop_signal))
    with psycopg.connect(server.secret_url()) as connection:
        print(os.geteuid(), connection.execute("select current_user").fetchone()[0])
"""


def test_runs_for_a_user_without_a_name(tmp_path: Path) -> None:
    uid = next(n for n in range(4242, 5000) if not any(entry.pw_uid == n for entry in pwd.getpwall()))
    nameless = ["unshare", "--user", f"--map-user={uid}", f"--map-group={uid}", "--"]
    done = subprocess.run(
        [*nameless, sys.executable, "-c", AS_WHOEVER, str(tmp_path / "pg")], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == (f"{uid} nms\n", 0), done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_root_becomes_nobody_where_there_are_no_user_namespaces(
    monkeypatch: pytest.MonkeyPatch, session_server: Callable[[str], object]
) -> None:
    session_server("postgresql-15")
    monkeypatch.setenv("NMS_POSTGRES_BIN", str(program("postgresql-15").parent))  # nobody can get at it
    with tempfile.TemporaryDirectory(prefix="nms-", dir="/tmp") as place:
        Path(place).chmod(0o755)
        tools = Path(place) / "bin"
        tools.mkdir()
        for tool in ("setpriv", "sh"):
            (tools / tool).symlink_to(str(shutil.which(tool)))
        monkeypatch.setenv("PATH", str(tools))
        server = Postgres(Path(place) / "pg")
        server.prepare()
        assert server.argv[0] == "setpriv"
        with Supervisor(Path(place) / "log", lambda _: None) as supervisor:
            supervisor.start(process(server))
            assert psutil.Process(supervisor.pids()["Postgres"]).username() == "nobody"
        server.close()
        monkeypatch.undo()
        monkeypatch.setenv("NMS_POSTGRES_BIN", str(program("postgresql-15").parent))
        server = Postgres(Path(place) / "pg")  # and back: the files change hands
        server.prepare()
        assert server.argv[0] == "unshare"
        with Supervisor(Path(place) / "log", lambda _: None) as supervisor:
            supervisor.start(process(server))
        server.close()
