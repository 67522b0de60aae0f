"""Settings of the receiver, the user's names, and who is known by which address."""

from pathlib import Path

import pytest

from nms_workers.errors import ConfigError
from nms_workers.fleet.inventory import Target
from nms_workers.settings import Settings, Traps
from nms_workers.traps import ber
from nms_workers.traps.names import Names
from nms_workers.traps.sources import sources
from nms_workers.traps.usm import Usm

OWN = """
[notification.doorOpened]
oid = "1.3.6.1.4.1.99999.1.0.1"
severity = "error"
condition = "doorOpened"
state = "firing"
per = ["doorIndex"]

[notification.coldStart]
oid = "1.3.6.1.6.3.1.1.5.1"
severity = "critical"

[object.doorIndex]
oid = "1.3.6.1.4.1.99999.1.1.1"
words = { 1 = "front" }
"""


def test_names_of_the_user_come_before_ours(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(OWN)
    names = Names([path])

    door, cold = names.notification("1.3.6.1.4.1.99999.1.0.1"), names.notification("1.3.6.1.6.3.1.1.5.1")

    assert (door.name, door.severity, cold.severity) == ("doorOpened", "error", "critical")
    front = ("1.3.6.1.4.1.99999.1.1.1.4", ber.INTEGER, b"\x01")
    assert names.variable(front).value == "front"
    assert names.tells(door, [front]) == ("firing", ("4",))
    assert names.notification("1.3.6.1.6.3.1.1.5.4").name == "linkUp"


MIBS = {
    "SNMPv2-SMI": """
org OBJECT IDENTIFIER ::= { iso 3 }
dod OBJECT IDENTIFIER ::= { org 6 }
internet OBJECT IDENTIFIER ::= { dod 1 }
private OBJECT IDENTIFIER ::= { internet 4 }
enterprises OBJECT IDENTIFIER ::= { private 1 }
""",
    "GATE-MIB": """
IMPORTS OBJECT-TYPE, NOTIFICATION-TYPE, enterprises FROM SNMPv2-SMI;
gates OBJECT IDENTIFIER ::= { enterprises 99999 }
gateState OBJECT-TYPE SYNTAX INTEGER { shut(1), open(2) }
    MAX-ACCESS read-only STATUS current DESCRIPTION "" ::= { gates 1 }
gateMoved NOTIFICATION-TYPE OBJECTS { gateState } STATUS current DESCRIPTION "" ::= { gates 0 7 }
""",
}


@pytest.fixture
def mibs(tmp_path: Path) -> Path:
    folder = tmp_path / "mibs"
    folder.mkdir()
    for module, text in MIBS.items():
        (folder / f"{module}.txt").write_text(f"{module} DEFINITIONS ::= BEGIN{text}END\n")
    return folder


def test_mib_files_name_what_no_other_file_does(mibs: Path, tmp_path: Path) -> None:
    gate, state = "1.3.6.1.4.1.99999.0.7", ("1.3.6.1.4.1.99999.1.0", ber.INTEGER, b"\x02")
    names = Names(mibs=(mibs,))
    assert (names.notification(gate).name, names.notification(gate).severity) == ("gateMoved", "warning")
    assert names.variable(state)[:] == ("gateState", "gateState", "0", "open")
    assert names.notification("1.3.6.1.6.3.1.1.5.4").name == "linkUp"

    own = tmp_path / "own.toml"
    ends = 'condition = "gate"\nok = { object = "gateState", values = [1] }'
    own.write_text(f'[notification.gate]\noid = "{gate}"\nseverity = "error"\n{ends}\n')
    names = Names([own], (mibs,))
    assert names.notification(gate).name == "gate"
    assert names.tells(names.notification(gate), [state]) == ("firing", ("",))


def test_mib_files_that_cannot_be_used_are_told(mibs: Path) -> None:
    (mibs / "SNMPv2-SMI.txt").unlink()
    with pytest.raises(ConfigError, match="GATE-MIB cannot be used"):
        Names(mibs=(mibs,))
    with pytest.raises(ConfigError, match="cannot be read"):
        Names(mibs=(mibs / "nowhere",))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        pytest.param("[notification.x]\noid = 'abc'", "abc", id="no-oid"),
        pytest.param(
            "[notification.x]\noid = '1.3.6'\nstate = 'firing'", "a condition needs a state", id="no-condition"
        ),
        pytest.param(
            "[notification.x]\noid = '1.3.6'\nstate = 'firing'\ncondition = 'x'\nper = ['nothing']",
            "there is no object nothing",
            id="unknown-object",
        ),
        pytest.param("[notification.x]\noid = '1.3.6'\nloud = true", "loud", id="unknown-key"),
        pytest.param("[notification.x", "cannot be used", id="no-toml"),
    ],
)
def test_names_that_cannot_be_used_are_refused(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text)

    with pytest.raises(ConfigError, match=why):
        Names([path])


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('listen = ["0.0.0.0"]', "write an address and a port"),
        ('listen = ["::1:162"]', "write an address and a port"),
        ('listen = ["127.0.0.1:١٦٢"]', "write an address and a port"),
        ('sources = { "router1" = "router1" }', "write an address"),
        ('communities = ["public"]', "secrets never stand in the settings"),
        ('users = [{ username = "a", priv_protocol = "des", priv_key = "env:X" }]', "encryption needs authentication"),
        ('users = [{ username = "a", auth_protocol = "sha1" }]', "belong together"),
        ('users = [{ username = "a", engine_ids = ["80"] }]', "pattern"),
        ('users = [{ username = "a" }, { username = "a" }]', "a user is named twice"),
        ('window = "0s"', "is not a duration"),
    ],
    ids=range(10),
)
def test_settings_are_checked(tmp_path: Path, line: str, why: str) -> None:
    path = tmp_path / "nms.toml"
    path.write_text(f"[traps]\n{line}\n", encoding="utf-8")

    with pytest.raises(ConfigError, match=why):
        Settings.load(path)


def test_addresses_have_one_form() -> None:
    assert Traps.model_validate({"listen": ("[::0]:1162", "127.0.0.1:162")}).listen == ("[::]:1162", "127.0.0.1:162")


def test_targets_are_known_by_every_address_they_have(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "own").write_text("own-community\n")
    monkeypatch.setenv("TEST_COMMUNITY", "everybody")
    router = Target(1, "snmp", "router", {"host": "2001:db8::1", "community": f"file:{tmp_path / 'own'}"}, {})
    local = Target(2, "snmp", "local", {"host": "localhost"}, {})
    other = Target(3, "redis", "router2", {"host": "192.0.2.1"}, {})
    settings = Traps.model_validate(
        {
            "communities": ("env:TEST_COMMUNITY", "env:TEST_NOWHERE"),
            "sources": {"192.0.2.5": "router", "192.0.2.6": "nobody"},
        }
    )

    known = sources([router, local, other], settings)

    assert known.targets[bytes.fromhex("20010db8000000000000000000000001")] == router
    assert known.targets[bytes([192, 0, 2, 5])] == router
    assert known.targets[bytes([127, 0, 0, 1])] == local
    assert bytes([192, 0, 2, 1]) not in known.targets
    assert known.believes(router, b"own-community")
    assert not known.believes(local, b"own-community")
    assert known.believes(None, b"everybody")
    assert not known.believes(None, b"")


def test_a_broken_engine_file_is_told_and_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "engine").write_text("nonsense")

    with pytest.raises(ConfigError, match="our engine's id cannot be kept"):
        Usm([], tmp_path)

    assert (tmp_path / "engine").read_text() == "nonsense"
