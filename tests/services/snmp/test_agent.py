"""A real Net-SNMP agent, by every version and kind of key; compared with Net-SNMP's own command."""

import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from nms_workers.errors import AuthError, Refused, Timeout, Unreachable
from nms_workers.records import SampleBlock
from nms_workers.services.snmp import exact
from nms_workers.services.snmp.client import SnmpClient
from nms_workers.services.snmp.exact import get_next
from nms_workers.services.snmp.service import Snmp
from tests.conftest import StartServer
from tests.metric_contract import undeclared
from tests.servers import Server
from tests.servers.snmpd import AUTH, PRIV
from tests.services.snmp.conftest import USERS, Connect

SYS_NAME, SYS_CONTACT, UPTIME = "1.3.6.1.2.1.1.5.0", "1.3.6.1.2.1.1.4.0", "1.3.6.1.2.1.1.3.0"
LOCATION = "1.3.6.1.2.1.1.6.0"
IF_TABLE, SYSTEM = "1.3.6.1.2.1.2.2.1", "1.3.6.1.2.1.1"
LAST_TABLE = "1.3.6.1.6.3.16.1.5.2.1.6"  # nothing comes after it: the agent answers with endOfMibView

VERSIONS = [{"version": "1"}, {"version": "2c"}, *({"user": user} for user in ("noauth", "auth", "priv"))]


def by_net_snmp(server: Server, base: str) -> list[str]:
    """The object identifiers below a base, by snmpbulkwalk."""
    argv = ["snmpbulkwalk", "-v2c", "-cpublic", "-Onq", "-Cr25", f"{server.host}:{server.port}", base]
    env = {"MIBS": "", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=30, check=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith(".") and "No more variables" not in line]
    return [line.split(" ", 1)[0].lstrip(".") for line in lines]


@pytest.mark.parametrize("how", VERSIONS, ids=lambda how: next(iter(how.values())))
def test_get_and_walk(connect: Connect, snmpd: Server, how: dict[str, Any]) -> None:
    client = connect(**how)
    found = client.get_many([SYS_NAME, UPTIME])
    assert found.keys() == {SYS_NAME, UPTIME}
    assert isinstance(found[UPTIME], int)
    for base in (IF_TABLE, SYSTEM, LAST_TABLE):
        assert [oid for oid, _ in client.walk(base)] == by_net_snmp(snmpd, base)


@pytest.mark.parametrize("user", USERS)
def test_every_way_to_sign_and_to_encrypt(connect: Connect, user: str) -> None:
    """Each is a user of the agent's own."""
    client = connect(user)
    assert client.get(LOCATION) == b"a rack of the tests"
    assert next(client.walk(SYSTEM))[0] == f"{SYSTEM}.1.0"


BACKWARDS = zip(AUTH, reversed(PRIV), strict=True)  # so that short digests have to be made into long keys


@pytest.mark.parametrize("user", [*(f"{auth}{priv}".lower() for auth, priv in BACKWARDS), *map(str.lower, AUTH)])
def test_what_sets_signs_and_encrypts_alike(connect: Connect, user: str) -> None:
    assert exact.get(connect(user).target, [LOCATION]) == {LOCATION: b"a rack of the tests"}


@pytest.mark.parametrize("repetitions", [1, 2, 7, 500])
def test_a_walk_is_whole_whatever_the_repetitions(connect: Connect, snmpd: Server, repetitions: int) -> None:
    client = connect(max_repetitions=repetitions)
    assert [oid for oid, _ in client.walk(IF_TABLE)] == by_net_snmp(snmpd, IF_TABLE)


def test_what_is_not_there(connect: Connect) -> None:
    client = connect()
    assert client.get_many(["1.3.6.1.2.1.99.1.0", SYS_NAME]).keys() == {SYS_NAME}
    assert list(client.walk("1.3.6.1.2.1.99")) == []
    with pytest.raises(Refused, match=r"has no 1\.3\.6\.1\.2\.1\.99\.1\.0"):
        client.get("1.3.6.1.2.1.99.1.0")


@pytest.mark.parametrize("how", [{"version": "2c", "community": "env:TEST_PRIVATE"}, {"user": "priv"}], ids=["2c", "3"])
def test_set_and_read_again(connect: Connect, how: dict[str, Any]) -> None:
    client = connect(**how)
    client.set({SYS_CONTACT: ("text", "somebody")})
    assert client.get(SYS_CONTACT) == b"somebody"


@pytest.mark.parametrize(
    ("how", "call", "outcome", "words"),
    [
        ({"community": "env:TEST_WRONG"}, lambda c: c.get(UPTIME), Timeout, "agents are silent to a wrong community"),
        ({"user": "priv", "auth_key": "env:TEST_WRONG"}, lambda c: c.get(UPTIME), AuthError, "check username"),
        ({"user": "priv", "priv_key": "env:TEST_WRONG"}, lambda c: c.get(UPTIME), Timeout, "no answer"),
        ({"user": "priv", "username": "nobody"}, lambda c: c.get(UPTIME), AuthError, "check username"),
        ({}, lambda c: c.set({SYS_CONTACT: ("text", "x")}), Refused, "may not do that"),
        (
            {"community": "env:TEST_PRIVATE"},
            lambda c: c.set({UPTIME: ("timeticks", 1)}),
            Refused,
            "the object cannot be written",
        ),
        ({"community": "env:TEST_PRIVATE"}, lambda c: c.set({SYS_CONTACT: ("integer", "x")}), Refused, "is no integer"),
        ({"host": "no-such-host.invalid"}, lambda c: c.get(UPTIME), Unreachable, "no such name"),
    ],
)
def test_what_goes_wrong_is_told(
    connect: Connect, how: dict[str, Any], call: Callable[[SnmpClient], object], outcome: type[Exception], words: str
) -> None:
    client = connect(**{"timeout": 0.3, "retries": 0, **how})
    with pytest.raises(outcome) as caught:
        call(client)
    assert words in str(caught.value)
    assert "pass" not in str(caught.value)


@pytest.mark.parametrize("user", ["priv", "auth"])
def test_a_kept_engine_takes_an_agent_that_began_anew(start_server: StartServer, connect: Connect, user: str) -> None:
    server = start_server("snmpd")
    client = connect(user, port=server.port)
    client.set({SYS_CONTACT: ("text", "before")})
    server.restart()
    client.set({SYS_CONTACT: ("text", "after")})
    assert client.get(SYS_CONTACT) == b"after"


def test_a_key_that_was_wrong_spoils_no_engine(connect: Connect) -> None:
    with pytest.raises(AuthError):
        connect("priv", auth_key="env:TEST_WRONG").set({SYS_CONTACT: ("text", "x")})
    client = connect("priv")
    client.set({SYS_CONTACT: ("text", "y")})
    assert client.get(SYS_CONTACT) == b"y"


def test_engines_are_used_from_many_threads_at_once(connect: Connect) -> None:
    clients = [connect(user) for user in ("priv", "auth", "sha256aes256", "noauth")] * 3
    with ThreadPoolExecutor(len(clients)) as pool:
        asked = [pool.submit(get_next, client.target, UPTIME) for client in clients]
        assert {one.result(30) for one in asked} == {SYS_CONTACT}


def test_nothing_listens(connect: Connect, free_port: Callable[[], int]) -> None:
    with pytest.raises(Unreachable, match="is its SNMP agent running"):
        connect(port=free_port()).get(UPTIME)


def test_the_system_and_its_interfaces(connect: Connect) -> None:
    system = connect().get_system_info()
    assert system["location"] == "a rack of the tests"
    assert system["object_id"].startswith("1.3.6.1.4.1.8072.")
    assert system["services"] == 76
    loopback = next(one for one in connect().get_interface_list() if one["interface"] == "lo")
    assert loopback["type"] == 24
    assert loopback["oper_status"] == 1


def test_the_poll_is_one_block_and_counts_on(connect: Connect) -> None:
    client = connect()
    first, second = (list(client.poll("interfaces")) for _ in range(2))
    (before,), (after,) = first, second
    assert isinstance(before, SampleBlock)
    assert isinstance(after, SampleBlock)
    assert before.layout is after.layout, "the layout is made once"
    lo = {member.metric: at for at, member in enumerate(after.layout.members) if ("interface", "lo") in member.labels}
    octets, uptime = lo["snmp_interface_in_octets_total"], 0
    assert after.layout.members[uptime].metric == "snmp_system_uptime_seconds"
    assert after.values[uptime] >= before.values[uptime] > 0
    assert after.values[octets] >= before.values[octets] > 0  # the agent itself reads the kernel every few seconds
    assert after.values[lo["snmp_interface_oper_status"]] == 1


def test_what_is_emitted_is_declared(connect: Connect) -> None:
    assert undeclared(Snmp, connect().poll("interfaces")) == []
