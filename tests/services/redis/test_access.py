"""Users, TLS and unix sockets, against real servers."""

from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from nms_workers.errors import AuthError, Refused, Unreachable
from tests.conftest import StartServer
from tests.servers import Server
from tests.services.redis.conftest import Connect, Plain
from tests.services.redis.support import MATRIX, events, read, value, values

PASSWORD = "sesame open wide"


@pytest.fixture
def monitor(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Settings of the user `nms`."""
    monkeypatch.setenv("TEST_REDIS_USER_PASSWORD", PASSWORD)
    return {"username": "nms", "password": "env:TEST_REDIS_USER_PASSWORD"}


@pytest.mark.parametrize("name", MATRIX)
def test_what_the_user_may_not_is_left_out_and_told_once(
    start_server: StartServer, connect: Connect, plain: Plain, monitor: dict[str, str], name: str
) -> None:
    server = start_server(name)
    plain(server).acl_setuser("nms", enabled=True, passwords=[f"+{PASSWORD}"], commands=["+info", "+slowlog|get"])
    client = connect(server, **monitor)
    assert value(read(client, "server"), "redis_max_clients") == 10_000
    assert values(read(client, "commands"), "redis_command_calls_total")
    records = read(client, "slowlog")
    rules = {event.message.rpartition("nms ")[2].rstrip(")") for event in events(records, "left_out")}
    assert rules == {"+slowlog|len", "+config|get"}
    assert not events(read(client, "slowlog"))
    with pytest.raises(Refused) as refused:
        read(client, "clients")
    assert refused.value.hint == "ACL SETUSER nms +client|list"
    assert PASSWORD not in str(refused.value)
    plain(server).acl_setuser("nms", enabled=True, commands=["+slowlog|len", "+config|get"])
    assert values(read(client, "slowlog"), "redis_slowlog_max_entries") == {(): 128}


def test_the_rules_that_the_hints_name_are_enough(
    start_server: StartServer, connect: Connect, plain: Plain, monitor: dict[str, str]
) -> None:
    server = start_server("valkey-9")
    allowed = ["+info", "+slowlog|get", "+slowlog|len", "+config|get", "+ping", "+latency|latest", "+latency|histogram"]
    rules = [*allowed, "+memory|stats", "+client|list", "+scan"]
    plain(server).acl_setuser("nms", enabled=True, passwords=[f"+{PASSWORD}"], commands=rules)
    client = connect(server, **monitor, key_patterns=("*",))
    for poll in ("server", "commands", "keyspace", "memory", "clients", "slowlog", "latency", "histogram", "keys"):
        assert not events(read(client, poll), "left_out"), poll


@pytest.mark.parametrize(
    "settings", [{}, {"password": "env:TEST_WRONG"}, {"username": "no", "password": "env:TEST_WRONG"}]
)
def test_credentials_that_are_not_accepted(
    session_server: StartServer,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, str],
) -> None:
    monkeypatch.setenv("TEST_WRONG", "not-the-password")
    server = session_server("redis-7.0")
    client = connect(**({"host": server.host, "port": server.port} | settings))
    with pytest.raises(AuthError) as error:
        read(client, "server")
    assert "username and password" in str(error.value)
    assert "not-the-password" not in str(error.value)
    assert error.value.__cause__ is None


def test_a_password_that_cannot_be_read(session_server: StartServer, connect: Connect, tmp_path: Path) -> None:
    server, secret = session_server("redis-7.0"), tmp_path / "password"
    client = connect(server, password=f"file:{secret}")
    with pytest.raises(AuthError, match="cannot be read"):
        read(client, "server")
    secret.write_text(server.password + "\n")
    assert value(read(client, "server"), "redis_max_clients") == 10_000


def test_a_password_is_never_shown(session_server: StartServer, connect: Connect) -> None:
    server = session_server("redis-7.0")
    client = connect(server)
    read(client, "server")
    (server_of,) = client.servers()
    shown = f"{client.target!r} {client.target.model_dump_json()} {server_of!r} {vars(server_of)}"
    assert server.password not in shown


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls_server(
    authority: trustme.CA, start_server: StartServer, free_port: Callable[[], int], tmp_path: Path
) -> tuple[Server, dict[str, object]]:
    """A server that asks for client certificates, and the settings that satisfy it."""
    for name, issued in (("server", authority.issue_cert("127.0.0.1")), ("client", authority.issue_cert("nms"))):
        issued.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        for blob in issued.cert_chain_pems:
            blob.write_to_path(tmp_path / f"{name}.crt", append=True)
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    port = free_port()
    conf = {
        "tls-port": str(port),
        "tls-cert-file": str(tmp_path / "server.crt"),
        "tls-key-file": str(tmp_path / "server.key"),
        "tls-ca-cert-file": str(tmp_path / "ca.crt"),
    }
    settings = {
        "port": port,
        "tls": True,
        "tls_ca": tmp_path / "ca.crt",
        "tls_cert": tmp_path / "client.crt",
        "tls_key": tmp_path / "client.key",
    }
    return start_server("redis-7.0", conf=conf), settings


def test_tls_with_a_client_certificate(tls_server: tuple[Server, dict[str, object]], connect: Connect) -> None:
    server, settings = tls_server
    assert value(read(connect(server, **settings), "server"), "redis_max_clients") == 10_000


def test_tls_faults_are_told_apart(
    tls_server: tuple[Server, dict[str, object]], connect: Connect, tmp_path: Path
) -> None:
    server, settings = tls_server
    stranger = tmp_path / "stranger.crt"
    trustme.CA().cert_pem.write_to_path(stranger)
    with pytest.raises(Unreachable, match=r"(?i)certificate verify failed"):
        read(connect(server, **settings | {"tls_ca": stranger}), "server")
    with pytest.raises(Unreachable, match=r"(?i)mismatch|doesn't match"):
        read(connect(server, **settings | {"host": "localhost"}), "server")
    with pytest.raises(Unreachable, match="tls = true"):
        read(connect(server, **settings | {"tls": False}), "server")
    without = {key: settings[key] for key in ("port", "tls", "tls_ca")}
    with pytest.raises(Unreachable):
        read(connect(server, **without), "server")
    unverified = settings | {"tls_ca": stranger, "tls_verify": False}
    assert value(read(connect(server, **unverified), "server"), "redis_max_clients") == 10_000


def test_a_unix_socket(start_server: StartServer, connect: Connect, tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    server = start_server("valkey-9", conf={"unixsocket": str(path)})
    client = connect(server, unix_socket=path)
    assert value(read(client, "server"), "redis_max_clients") == 10_000
    assert client.servers()[0].address == str(path)
