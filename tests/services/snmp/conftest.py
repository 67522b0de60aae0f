"""Clients of real agents."""

from collections.abc import Callable
from typing import Any

import pytest

from nms_workers.services.snmp.client import SnmpClient
from nms_workers.services.snmp.target import SnmpTarget
from tests.conftest import StartServer
from tests.servers import PASSWORD, Server
from tests.servers.snmpd import AUTH, PRIV
from tests.servers.snmpsim import SnmpsimServer

Connect = Callable[..., SnmpClient]

USERS: dict[str, dict[str, Any]] = {
    "noauth": {},
    "auth": {"auth_protocol": "sha1"},
    "priv": {"auth_protocol": "sha1", "priv_protocol": "aes128"},
    **{auth.lower(): {"auth_protocol": auth.lower()} for auth in AUTH},
    **{
        f"{auth}{priv}".lower(): {
            "auth_protocol": auth.lower(),
            "priv_protocol": priv.lower().removesuffix("c"),
            "key_expansion": "cisco" if priv.endswith("C") else "blumenthal",
        }
        for auth in AUTH
        for priv in PRIV
    },
}


@pytest.fixture
def snmpd(session_server: StartServer) -> Server:
    return session_server("snmpd", "snmp")


@pytest.fixture
def snmpsim(session_server: StartServer) -> SnmpsimServer:
    server = session_server("snmpsim")
    assert isinstance(server, SnmpsimServer)
    return server


@pytest.fixture
def device(snmpsim: SnmpsimServer, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], SnmpClient]:
    """`device(recording)`: a client of a recorded device."""

    def make(recording: str) -> SnmpClient:
        name = "TEST_" + recording.replace("/", "_").replace("-", "_")
        monkeypatch.setenv(name, recording)
        given = {"host": snmpsim.host, "port": snmpsim.port, "community": f"env:{name}", "timeout": 10}
        return SnmpClient(SnmpTarget.model_validate(given))

    return make


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, secret in {
        "PUBLIC": "public",
        "PRIVATE": "private",
        "PASS": PASSWORD,
        "WRONG": "wrong pass phrase",
    }.items():
        monkeypatch.setenv(f"TEST_{name}", secret)


@pytest.fixture
def connect(snmpd: Server) -> Connect:
    """`connect(**settings)`: a client; of the user `user` where one is named, else of the community `public`."""

    def make(user: str = "", *, host: str = "127.0.0.1", port: int = snmpd.port, **settings: Any) -> SnmpClient:
        if user:
            protocols = (name for name in USERS[user] if name.endswith("protocol"))
            keys = {name.replace("protocol", "key"): "env:TEST_PASS" for name in protocols}
            settings = {"version": "3", "username": user, **USERS[user], **keys, **settings}
        else:
            settings = {"community": "env:TEST_PUBLIC", **settings}
        return SnmpClient(SnmpTarget.model_validate({"host": host, "port": port, **settings}))

    return make
