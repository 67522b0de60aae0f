"""Sweeps of loopback addresses with several real agents."""

import time
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nms_workers.change import PROPOSED, Proposal
from nms_workers.errors import ConfigError, Refused
from nms_workers.services.snmp.client import SnmpClient
from nms_workers.services.snmp.discovery import Credential, Device, addresses_of, credentials, sweep
from nms_workers.services.snmp.target import SnmpTarget
from nms_workers.transport.deadline import deadline
from tests.conftest import StartServer
from tests.servers import PASSWORD
from tests.services.snmp.faulty import Agent, Oid
from tests.services.snmp.test_actions import act

NET = "127.77.1.0/28"


@pytest.fixture
def agents(start_server: StartServer) -> int:
    """Two devices at three addresses of `NET`, at the port that is returned."""
    core = start_server("snmpd", lines="sysName core 1\n", addresses=("127.77.1.2", "127.77.1.3"))
    start_server("snmpd", lines="sysName core-2\n", addresses=("127.77.1.5",), at_port=core.port)
    return core.port


def client_of(port: int, **discovery: Any) -> SnmpClient:
    """A client of the first agent, from which may be swept as these settings say."""
    settings = {"host": "127.77.1.2", "port": port, "community": "env:TEST_PUBLIC", "timeout": 0.5, "retries": 1}
    return SnmpClient(SnmpTarget.model_validate(settings | {"discovery": {"networks": [NET]} | discovery}))


def proposals(client: SnmpClient, **arguments: Any) -> list[Proposal]:
    change = act(client, "discover", **arguments)
    return msgspec.convert(change.after[PROPOSED], list[Proposal])


def test_devices_are_found_each_once_and_proposed_with_references(agents: int) -> None:
    first, second = proposals(client_of(agents))
    assert (first.name, first.addresses) == ("core-1", ("127.77.1.2", "127.77.1.3"))
    assert (second.name, second.addresses) == ("core-2", ("127.77.1.5",))
    assert second.settings == {
        "host": "127.77.1.5",
        "port": agents,
        "community": "env:TEST_PUBLIC",
        "timeout": 0.5,
        "retries": 1,
    }
    assert first.identity != second.identity
    assert first.identity.startswith("80001f88"), "an engine id of Net-SNMP"
    assert first.about["object_id"].startswith("1.3.6.1.4.1.8072.")
    assert not first.approved


def test_a_rule_of_the_settings_approves(agents: int) -> None:
    assert [one.approved for one in proposals(client_of(agents, approve=["1.3.6.1.4.1.8072.3"]))] == [True, True]
    assert [one.approved for one in proposals(client_of(agents, approve=["1.3.6.1.4.1.80"]))] == [False, False]


def test_credentials_are_tried_in_order(agents: int, tmp_path: Path) -> None:
    file = tmp_path / "credentials.toml"
    file.write_text(
        f"""
        [[credentials]]
        name = "wrong user"
        version = "3"
        username = "nobody"
        port = {agents}
        [[credentials]]
        name = "good user"
        version = "3"
        username = "priv"
        auth_protocol = "sha1"
        auth_key = "env:TEST_PASS"
        priv_protocol = "aes128"
        priv_key = "env:TEST_PASS"
        port = {agents}
        [[credentials]]
        name = "community"
        community = "env:TEST_PUBLIC"
        port = {agents}
        """
    )
    wrong = Credential("wrong community", {"community": "env:TEST_WRONG", "port": agents, "timeout": 0.3, "retries": 0})
    tried = [wrong, *credentials(file)]
    found = sweep(["127.77.1.5", "127.77.1.9"], tried, rate=1000).devices
    assert [one.credential.name for one in found] == ["good user"]
    by_community = sweep(["127.77.1.5"], tried[-1:], rate=1000).devices
    assert by_community[0].engine_id == found[0].engine_id, "by either version it is the same device"
    told = msgspec.json.encode(found[0].proposal(approved=False)).decode()
    assert "env:TEST_PASS" in told
    assert PASSWORD not in told


def test_only_what_the_settings_name_is_swept(agents: int) -> None:
    client = client_of(agents)
    assert [one.name for one in proposals(client, networks=["127.77.1.5/32"])] == ["core-2"]
    for network in ("127.77.0.0/16", "127.77.2.0/28", "192.0.2.0/30", "::1/128"):
        with pytest.raises(Refused, match=r"discovery\.networks"):
            act(client, "discover", networks=[network])
    with pytest.raises(Refused, match="more than 4 addresses"):
        act(client_of(agents, max_addresses=4), "discover")
    bare = SnmpClient(SnmpTarget.model_validate({"host": "127.77.1.2", "community": "env:TEST_PUBLIC"}))
    with pytest.raises(ConfigError, match="under `discovery`"):
        act(bare, "discover")


def test_it_keeps_to_its_rate_and_shows_how_far_it_is(free_port: Callable[[], int]) -> None:
    nobody = Credential("x", {"community": "env:TEST_PUBLIC", "port": free_port()})
    seen: list[tuple[int, int]] = []
    began = time.monotonic()
    swept = sweep(addresses_of([ip_network(NET)], 16), [nobody], 20, lambda *so_far: seen.append(so_far))
    assert time.monotonic() - began >= 13 / 20, "14 requests, 50 ms apart"
    assert seen == [(n, 0) for n in range(1, 15)]
    assert str(swept) == "0 devices at 14 of 14 addresses"


def test_what_was_found_until_the_time_was_used_up_is_kept(agents: int) -> None:
    addresses = ["127.77.1.5", *map(str, ip_network("127.78.0.0/22").hosts())]
    one = Credential("x", {"community": "env:TEST_PUBLIC", "port": agents})
    with deadline(1.5):
        swept = sweep(addresses, [one], 50)
    assert [device.name for device in swept.devices] == ["core-2"]
    assert 1 <= swept.asked < 200
    assert str(swept).endswith("then the time was used up")


def test_silent_addresses_are_waited_for_side_by_side() -> None:
    """Sixty agents that do not know the community would take a minute one after the other."""
    rows: dict[Oid, int | bytes] = {(1, 3, 6, 1, 2, 1, 1, 5, 0): b"slow"}
    with Agent(rows) as agent:
        silent = {"community": "env:TEST_PUBLIC", "port": agent.port, "timeout": 1.0, "retries": 0}
        agent.how.stall_after = 0
        began = time.monotonic()
        swept = sweep(["127.0.0.1"] * 60, [Credential("x", silent)], 1000)
    assert (swept.asked, swept.devices) == (60, ())
    assert agent.requests == 60
    assert time.monotonic() - began < 30


def test_an_agent_without_engine_id_is_known_by_the_moment_it_came_up() -> None:
    one = Credential("x", {})

    def device(address: str, boot: float, engine: str = "") -> Device:
        return Device((address,), one, "a", "1.3.6.1.4.1.9", "", engine, boot)

    assert device("192.0.2.1", 100.0).is_one_with(device("192.0.2.2", 103.0))
    assert not device("192.0.2.1", 100.0).is_one_with(device("192.0.2.2", 900.0))
    assert device("192.0.2.1", 100.0, "8000").is_one_with(device("192.0.2.2", 900.0, "8000"))
    assert not device("192.0.2.1", 100.0, "8000").is_one_with(device("192.0.2.2", 100.0, "8001"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("credentials = 5", "holds no credentials"),
        ("[[credentials]]\nname = 'a'\ncommunity = 'public'", "the credential a cannot be used"),
        ("[[credentials]]\nname = 'a'\nversion = '3'\n", "needs a username"),
        ("[[credentials]]\nname = 'a'\ncommunity = 'env:X'\nhost = 'b'", "belongs to one device"),
        ("[[credentials", "cannot be read"),
        ("", "holds no credentials"),
    ],
)
def test_credentials_that_cannot_be(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(ConfigError, match=why) as caught:
        credentials(tmp_path / "c.toml")
    assert "public" not in str(caught.value)


def test_a_secret_that_cannot_be_read_is_told_before_anybody_is_asked() -> None:
    with Agent({(1, 3, 6, 1, 2, 1, 1, 5, 0): b"x"}) as agent:
        missing = Credential("x", {"community": "env:TEST_NOT_SET", "port": agent.port})
        with pytest.raises(ConfigError, match="TEST_NOT_SET is not set"):
            sweep(["127.0.0.1"], [missing], 100)
        with pytest.raises(ConfigError, match="0 credentials"):
            sweep(["127.0.0.1"], [], 100)
        assert agent.requests == 0
