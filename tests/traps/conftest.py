"""A receiver with a real history, and Net-SNMP's commands that send to it."""

import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from nms_workers.fleet.inventory import Inventory, Target
from nms_workers.settings import Traps
from nms_workers.store.spool import Spool
from nms_workers.store.writer import Writer
from nms_workers.traps.keeping import Keeper
from nms_workers.traps.metrics import Outcome
from nms_workers.traps.receiver import Receiver
from nms_workers.traps.sources import Sources, sources
from tests.fleet.stores import database_url, engine, postgres_name, rows, wait_until
from tests.servers.server import PASSWORD, which

__all__ = ["database_url", "engine", "postgres_name"]

ENGINE_ID = "8000000001020304"
KEYS: dict[str, dict[str, str]] = {
    "noauth": {},
    "md5": {"auth_protocol": "md5"},
    "sha1": {"auth_protocol": "sha1"},
    "sha1des": {"auth_protocol": "sha1", "priv_protocol": "des"},
    "sha1aes": {"auth_protocol": "sha1", "priv_protocol": "aes128"},
    **{f"sha{bits}": {"auth_protocol": f"sha{bits}", "priv_protocol": "aes128"} for bits in (224, 256, 384, 512)},
    # those whose digests are shorter than the keys they have to make: the ways to make them longer differ
    **{
        f"md5aes{bits}{way}": {"auth_protocol": "md5", "priv_protocol": f"aes{bits}", "key_expansion": way}
        for bits in (192, 256)
        for way in ("cisco", "blumenthal")
    },
}
_NET_SNMP = {"md5": "MD5", "sha1": "SHA", **{f"sha{bits}": f"SHA-{bits}" for bits in (224, 256, 384, 512)}}
_NET_SNMP |= {"des": "DES", "aes128": "AES"}
_NET_SNMP |= {"aes192blumenthal": "AES-192", "aes256blumenthal": "AES-256"}
_NET_SNMP |= {"aes192cisco": "AES-192-C", "aes256cisco": "AES-256-C"}

V1 = ("-v1", "-c", "secret-community")
V2C = ("-v2c", "-c", "secret-community")
COLD_START = "1.3.6.1.6.3.1.1.5.1"
LINK_DOWN = "1.3.6.1.6.3.1.1.5.3"
LINK_UP = "1.3.6.1.6.3.1.1.5.4"
INDEX_7 = ("1.3.6.1.2.1.2.2.1.1.7", "i", "7")
DESCRIPTION = "1.3.6.1.2.1.1.1.0"

Row = dict[str, Any]


@dataclass
class Receiving:
    """A running receiver."""

    receiver: Receiver
    thread: threading.Thread
    writer: Writer
    engine: Engine
    targets: list[Target]

    @property
    def port(self) -> int:
        return self.receiver.sockets[0].port

    def events(self) -> list[Row]:
        """What the history has, in the order of time."""
        assert self.writer.flush(20)
        names = ("target", "kind", "state", "severity", "fingerprint", "message", "attributes")
        query = f"SELECT t.name, {', '.join('e.' + name for name in names[1:])} FROM events e JOIN targets t"
        found = rows(self.engine, f"{query} ON t.id = e.target_id ORDER BY e.ts, e.kind")
        return [dict(zip(names, row, strict=True)) for row in found]

    def firing(self) -> list[str]:
        """The fingerprints of what lasts."""
        assert self.writer.flush(20)
        return [row[0] for row in rows(self.engine, "SELECT fingerprint FROM firing ORDER BY fingerprint")]

    def wait(self, **outcomes: int) -> None:
        """Until so many datagrams came to these outcomes, and what they told is kept."""
        wanted: dict[Outcome, int] = outcomes  # type: ignore[assignment]
        try:
            wait_until(lambda: all(self.receiver.tallies.get(one, 0) >= count for one, count in wanted.items()))
        except AssertionError:
            pytest.fail(f"wanted {wanted}, got {self.receiver.tallies}", pytrace=True)

    def stop(self) -> None:
        """End it; all it has is kept."""
        self.receiver.stop()
        self.thread.join(30)
        assert not self.thread.is_alive()


Receive = Callable[..., Receiving]


@pytest.fixture
def receive(engine: Engine, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receive]:
    """`receive(hosts={"name": "address"}, **settings)`: a receiver on loopback; of `router`, 127.0.0.1, by default.

    Args:
        known: where it reads targets; default: they are always the hosts.
    """
    monkeypatch.setenv("TEST_COMMUNITY", "secret-community")
    monkeypatch.setenv("TEST_PUBLIC", "public")
    monkeypatch.setenv("TEST_PASS", PASSWORD)
    started: list[Receiving] = []

    def start(hosts: dict[str, str] | None = None, *, known: Inventory | None = None, **settings: Any) -> Receiving:
        given = {"listen": ("127.0.0.1:0",), "communities": ("env:TEST_COMMUNITY",), **settings}
        traps = Traps.model_validate(given)
        targets = [_target(engine, name, host) for name, host in (hosts or {"router": "127.0.0.1"}).items()]
        writer = Writer(Spool(tmp_path / f"spool{len(started)}"), database_url)
        writer.start()

        def senders() -> Sources:
            return sources(known.all().values() if known else targets, traps)

        receiver = Receiver(traps, senders, Keeper(writer, "test:1"), tmp_path / "traps")
        thread = threading.Thread(target=receiver.run)
        thread.start()
        started.append(Receiving(receiver, thread, writer, engine, targets))
        return started[-1]

    yield start
    for one in started:
        one.stop()
        one.writer.close(10)


def _target(engine: Engine, name: str, host: str) -> Target:
    with engine.begin() as connection:
        number = connection.exec_driver_sql(
            "INSERT INTO targets (service, name, source, state) VALUES ('snmp', %s, 'test', 'active') "
            "ON CONFLICT (service, name) DO UPDATE SET state = 'active' RETURNING id",
            (name,),
        ).scalar_one()
    return Target(number, "snmp", name, {"host": host}, {})


Send = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def send(tmp_path: Path) -> Send:
    """`send(port, options, *rest, command="snmptrap", check=True)`: run one of Net-SNMP's commands."""

    def run(
        port: int, options: Sequence[str], *rest: str, command: str = "snmptrap", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        home = tmp_path / "net-snmp"
        home.mkdir(exist_ok=True)
        done = subprocess.run(
            [which(command, "snmp"), *options, f"127.0.0.1:{port}", *rest],
            env={"PATH": os.environ["PATH"], "MIBS": "", "SNMP_PERSISTENT_DIR": str(home), "SNMPCONFPATH": str(home)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    return run


def v3_options(user: str, *, password: str = PASSWORD) -> list[str]:
    """Net-SNMP's options for one of the users of `KEYS`."""
    keys = KEYS[user]
    level = "authPriv" if "priv_protocol" in keys else "authNoPriv" if keys else "noAuthNoPriv"
    options = ["-v3", "-u", user, "-l", level]
    if "auth_protocol" in keys:
        options += ["-a", _NET_SNMP[keys["auth_protocol"]], "-A", password]
    if "priv_protocol" in keys:
        options += ["-x", _NET_SNMP[keys["priv_protocol"] + keys.get("key_expansion", "")], "-X", password]
    return options


def users(*names: str, engine_ids: Sequence[str] = (ENGINE_ID,)) -> list[dict[str, Any]]:
    """Settings of these users."""
    return [
        {
            "username": name,
            **KEYS[name],
            **{one.replace("protocol", "key"): "env:TEST_PASS" for one in KEYS[name] if one.endswith("protocol")},
            "engine_ids": tuple(engine_ids),
        }
        for name in names
    ]
