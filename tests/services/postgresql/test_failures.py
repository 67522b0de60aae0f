"""How reading fails: each ending is told apart, in time, without the password, and the next read works again."""

import os
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
import trustme
from pydantic import ValidationError

from nms_workers.errors import AuthError, ParseError, Refused, TargetError, Timeout, Unreachable
from nms_workers.services.postgresql.client import PostgresqlClient
from nms_workers.services.postgresql.connection import Target
from nms_workers.transport.deadline import deadline
from nms_workers.transport.secret import Secret
from tests.servers import PASSWORD, PostgresServer, Server
from tests.services.postgresql.conftest import Connect, polls, read, until

SLEEP = "select pg_sleep(60)"


@pytest.fixture(autouse=True)
def _wrong_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WRONG_PASSWORD", "not the word")


@pytest.mark.parametrize(
    ("settings", "ending", "says"),
    [
        ({"password": Secret("env:WRONG_PASSWORD")}, AuthError, "password"),
        ({"password": None}, AuthError, "set one"),
        ({"user": "nobody"}, AuthError, "nobody"),
        ({"dbname": "nowhere"}, Refused, "nowhere"),
        ({"host": "no.such.host.invalid"}, Unreachable, "no.such.host.invalid"),
        ({"sslmode": "require"}, Unreachable, "SSL"),
        ({"host": "/no/such/folder"}, Unreachable, "/no/such/folder"),
    ],
)
def test_why_there_is_no_connection(
    server: PostgresServer, connect: Connect, settings: dict[str, Any], ending: type[TargetError], says: str
) -> None:
    with pytest.raises(ending, match=says) as caught:
        connect(server, **settings).get_stats()
    assert type(caught.value) is ending
    assert caught.value.hint
    assert "not the word" not in str(caught.value)
    assert PASSWORD not in str(caught.value)


def test_a_closed_port(newest: PostgresServer, connect: Connect, free_port: Callable[[], int]) -> None:
    client = PostgresqlClient(Target(port=free_port(), user="nms"))
    with pytest.raises(Unreachable, match="refused"):
        client.get_stats()


def test_a_full_server(start_server: Callable[..., PostgresServer], connect: Connect) -> None:
    server = start_server("postgresql-18", conf={"max_connections": "5", "superuser_reserved_connections": "1"})
    with psycopg.connect(server.url, autocommit=True) as admin:
        admin.execute("create role guest login password 'let me in'")
        secret = server.folder / "guest"
        secret.write_text("let me in")
        client = connect(server, user="guest", password=Secret(f"file:{secret}"))
        with ExitStack() as others:
            _take_every_slot(server, others)
            with pytest.raises(Refused, match="max_connections"):
                client.get_stats()
        assert until(lambda: _succeeds(client))


@pytest.mark.parametrize("sslmode", ["prefer", "disable"])
def test_a_product_that_answers_in_another_protocol(sslmode: str, session_server: Callable[[str], Server]) -> None:
    other = session_server("rabbitmq")
    with pytest.raises(ParseError, match="cannot connect") as caught:
        PostgresqlClient(Target(port=other.port, sslmode=sslmode)).get_stats()
    assert "is it PostgreSQL?" in caught.value.hint


def test_a_product_that_waits_for_more(session_server: Callable[[str], Server]) -> None:
    """Redis reads our greeting as the beginning of a line, and waits for its end."""
    other = session_server("valkey-9")
    with pytest.raises(Timeout, match="cannot connect") as caught:
        PostgresqlClient(Target(port=other.port, connect_timeout=2)).get_stats()
    assert "is it no PostgreSQL?" in caught.value.hint


def test_a_server_that_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = PostgresqlClient(Target(port=listening.getsockname()[1], connect_timeout=2))
        began = time.monotonic()
        with pytest.raises(Timeout):
            client.get_stats()
    assert time.monotonic() - began < 4


def test_a_slow_statement_ends_at_the_servers_limit_and_keeps_the_connection(
    server: PostgresServer, connect: Connect
) -> None:
    client = connect(server, statement_timeout=0.5)
    before = client.rows("select pg_backend_pid()")
    began = time.monotonic()
    with pytest.raises(Timeout, match="statement timeout"):
        client.rows(SLEEP)
    assert time.monotonic() - began < 2
    assert client.rows("select pg_backend_pid()") == before


def test_a_deadline_ends_a_statement_before_its_own_limit(server: PostgresServer, connect: Connect) -> None:
    client = connect(server, statement_timeout=60)
    client.get_stats()
    began = time.monotonic()
    with deadline(0.4), pytest.raises(Timeout):
        client.rows(SLEEP)
    assert time.monotonic() - began < 2
    with deadline(0.0), pytest.raises(Timeout, match="used up"):
        client.rows("select 1")
    assert client.rows("select 1") == [(1,)]


def test_a_server_that_hangs_ends_in_time_too(server: PostgresServer, connect: Connect) -> None:
    """A stopped process acknowledges what is sent, and never answers: only a limit of ours ends that."""
    client = connect(server, statement_timeout=0.5)
    ((pid,),) = client.rows("select pg_backend_pid()")
    os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(Timeout, match="no answer"):
            client.rows("select 1")
        assert time.monotonic() - began < 3
    finally:
        os.kill(pid, signal.SIGCONT)
    assert client.rows("select pg_backend_pid()") != [(pid,)]


def test_a_connection_that_ended_between_two_reads_is_opened_anew(server: PostgresServer, connect: Connect) -> None:
    client = connect(server)
    ((pid,),) = client.rows("select pg_backend_pid()")
    with psycopg.connect(server.url, autocommit=True) as admin:
        admin.execute("select pg_terminate_backend(%s, 5000)", (pid,))
    assert client.rows("select pg_backend_pid()") != [(pid,)]


def test_a_connection_that_ends_while_it_reads_is_unreachable(server: PostgresServer, connect: Connect) -> None:
    client = connect(server)
    with ThreadPoolExecutor() as threads, psycopg.connect(server.url, autocommit=True) as admin:
        reading = threads.submit(client.rows, SLEEP)
        end = "select pg_terminate_backend(pid) from pg_stat_activity where query = %s"
        until(lambda: admin.execute(end, (SLEEP,)).fetchall())
        with pytest.raises(Unreachable, match="terminating connection"):
            reading.result(timeout=10)
    assert client.rows("select 1") == [(1,)]


def test_what_was_read_before_the_server_stopped_is_kept(
    start_server: Callable[..., PostgresServer], connect: Connect
) -> None:
    server = start_server("postgresql-18")
    client = connect(server)
    reading = polls()["server"].run(client)
    kept = [next(reading)]
    server.stop()
    with pytest.raises(Unreachable):
        kept.extend(reading)
    assert kept
    with pytest.raises(Unreachable, match="refused"):
        read(client, "server")
    server.start()
    assert len(read(client, "server")) > len(kept)


def test_a_killed_server_is_unreachable_and_comes_back(
    start_server: Callable[..., PostgresServer], connect: Connect
) -> None:
    server = start_server("postgresql-17")
    client = connect(server)
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(client.rows, SLEEP)
        with psycopg.connect(server.url, autocommit=True) as other:
            until(lambda: other.execute("select from pg_stat_activity where query = %s", (SLEEP,)).fetchall())
        server.kill()
        with pytest.raises(Unreachable):
            waiting.result(timeout=10)
    server.start()
    assert client.rows("select 1") == [(1,)]


def test_threads_share_one_connection(newest: PostgresServer, connect: Connect) -> None:
    client = connect(newest)
    with ThreadPoolExecutor(8) as threads:
        pids = list(threads.map(lambda _: client.rows("select pg_backend_pid(), pg_sleep(0.01)")[0][0], range(40)))
    assert len(set(pids)) == 1


def test_a_busy_connection_is_waited_for_no_longer_than_the_deadline(newest: PostgresServer, connect: Connect) -> None:
    client = connect(newest, statement_timeout=1.5)
    client.rows("select 1")
    with ThreadPoolExecutor() as threads:
        slow = threads.submit(client.rows, SLEEP)
        with psycopg.connect(newest.url, autocommit=True) as other:
            until(lambda: other.execute("select from pg_stat_activity where query = %s", (SLEEP,)).fetchall())
        with deadline(0.3), pytest.raises(Timeout, match="busy"):
            client.rows("select 1")
        with pytest.raises(Timeout):
            slow.result(timeout=10)


def test_nothing_can_be_changed(server: PostgresServer, connect: Connect) -> None:
    with pytest.raises(Refused, match="read-only"):
        connect(server).rows("create table forbidden (n int)")


def test_the_certificate_is_checked(
    start_server: Callable[..., PostgresServer], connect: Connect, tmp_path: Path
) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    server = start_server("postgresql-15")
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(server.data / "server.crt")
    certificate.private_key_pem.write_to_path(server.data / "server.key")
    owner = server.data.stat()
    for name in ("server.crt", "server.key"):
        os.chown(server.data / name, owner.st_uid, owner.st_gid)
        (server.data / name).chmod(0o600)
    server.conf["ssl"] = "on"
    server.restart()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    stranger.cert_pem.write_to_path(tmp_path / "stranger.pem")

    client = connect(server, sslmode="verify-full", ca=tmp_path / "ca.pem")
    assert client.rows("select ssl from pg_stat_ssl where pid = pg_backend_pid()") == [(True,)]
    with pytest.raises(Unreachable, match="certificate verify failed"):
        connect(server, sslmode="verify-full", ca=tmp_path / "stranger.pem").get_stats()


def test_settings_are_checked_and_never_hold_the_password() -> None:
    with pytest.raises(ValidationError, match="port"):
        Target(port=0)
    with pytest.raises(ValidationError, match="never stand in the settings") as caught:
        Target(password="correct horse")
    assert PASSWORD not in str(caught.value)
    assert "secret" not in repr(Target(password=Secret("env:NMS_PASSWORD")))


def _take_every_slot(server: PostgresServer, others: ExitStack) -> None:
    while True:
        try:
            others.enter_context(psycopg.connect(server.url, user="guest", password="let me in"))
        except psycopg.OperationalError:
            return


def _succeeds(client: PostgresqlClient) -> bool:
    try:
        client.get_stats()
    except Refused:
        return False
    return True
