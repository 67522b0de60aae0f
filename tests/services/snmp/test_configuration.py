"""Configurations, read from and put back to a router of the tests' own by the real drivers."""

import stat
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from nms_workers.errors import AuthError, ConfigError, ParseError, Refused, TargetError, Unreachable
from nms_workers.records import Entity, Event, Record, Sample
from nms_workers.services.snmp.archive import Archive
from nms_workers.services.snmp.client import SnmpClient
from nms_workers.services.snmp.configuration import Configuration
from nms_workers.services.snmp.drivers import drivers
from nms_workers.services.snmp.masking import families
from nms_workers.services.snmp.service import Snmp
from nms_workers.services.snmp.target import SnmpTarget
from tests.metric_contract import undeclared
from tests.servers import PASSWORD
from tests.services.snmp.ios import Router
from tests.services.snmp.test_actions import act, undo

LINES = [
    "hostname edge-7",
    "enable secret 9 $9$abcdefgh$topsecretdigest",
    "username nms privilege 15 password 7 0822455D0A16",
    "interface GigabitEthernet0/1",
    " description uplink",
    "snmp-server community hunter2 RO",
    "end",
]
SECRETS = ("topsecretdigest", "0822455D0A16", "hunter2")

Start = Callable[..., Router]
Reach = Callable[..., SnmpClient]


@pytest.fixture
def start() -> Iterator[Start]:
    """`start(**options)`: a router of this test's own."""
    running: list[Router] = []

    def make(lines: list[str] = LINES, **options: Any) -> Router:
        router = Router(lines, PASSWORD, **options)
        running.append(router.__enter__())
        return router

    yield make
    for router in running:
        router.__exit__(None, None, None)


@pytest.fixture
def reach(tmp_path: Path) -> Reach:
    """`reach(router, **configuration)`: a client whose target says how the configuration of the router is read."""

    def make(router: Router, **configuration: Any) -> SnmpClient:
        access = {
            "driver": "cisco_ios",
            "username": "nms",
            "password": "env:TEST_PASS",
            "port": router.port,
            "archive": str(tmp_path / "archive"),
            "known_hosts": str(router.known_hosts(tmp_path / "known_hosts")),
        }
        settings = {"host": "127.0.0.1", "community": "env:TEST_PUBLIC", "configuration": access | configuration}
        return SnmpClient(SnmpTarget.model_validate(settings))

    return make


def read(client: SnmpClient) -> list[Record]:
    return list(Snmp.polls()["configuration"].run(client))


def entity(records: list[Record]) -> Entity:
    (found,) = [one for one in records if isinstance(one, Entity)]
    return found


def changes(records: list[Record]) -> list[Event]:
    return [one for one in records if isinstance(one, Event)]


@pytest.mark.parametrize("driver", ["cisco_ios", "ios"])
def test_a_change_is_told_with_its_difference_and_without_secrets(start: Start, reach: Reach, driver: str) -> None:
    router = start()
    client = reach(router, driver=driver)
    first = read(client)
    assert changes(first) == []
    assert entity(read(client)).key == entity(first).key, "its head says when it was printed, which is no change"
    assert undeclared(Snmp, iter(first)) == []

    router.lines[4] = " description downlink"
    router.lines[5] = "snmp-server community hunter3 RO"
    second = read(client)
    (event,) = changes(second)
    assert entity(second).key != entity(first).key
    diff = event.attributes["diff"].splitlines()
    assert [line for line in diff if line[0] in "+-"] == [
        "- description uplink",
        "-snmp-server community <masked> RO",
        "+ description downlink",
        "+snmp-server community <masked> RO",
    ]
    assert (event.attributes["before"], event.attributes["after"]) == (entity(first).key, entity(second).key)
    assert event.message == "the configuration changed: 2 lines came, 2 went"
    told = repr([first, second])
    assert [secret for secret in (*SECRETS, "hunter3", PASSWORD) if secret in told] == []
    assert "enable secret <masked>" in entity(second).attributes["text"].splitlines()


def test_the_last_change_is_told_by_another_worker_as_the_same_event(start: Start, reach: Reach) -> None:
    router = start()
    read(reach(router))
    router.lines.insert(1, "ip routing")
    told = changes(read(reach(router)))
    again = changes(read(reach(router)))
    assert told == again, "equal in time and text: the history has it once"


def test_it_is_shown_and_versions_are_compared(start: Start, reach: Reach) -> None:
    router = start()
    client = reach(router)
    old = entity(read(client)).key
    router.lines.remove(" description uplink")
    new = entity(read(client)).key
    shown = act(client, "show_configuration")
    assert not shown.changed
    assert shown.after["versions"] == [old, new]
    assert [secret for secret in SECRETS if secret in repr(shown)] == []
    assert " description uplink" in act(client, "show_configuration", version=old).after["configuration"]
    assert "- description uplink" in act(client, "show_configuration", version=new, against=old).after["diff"]
    with pytest.raises(Refused, match=f"there are {old}, {new}"):
        act(client, "show_configuration", version="20200101T000000000000Z")
    with pytest.raises(Refused, match="version"):
        act(client, "show_configuration", version="../../etc/passwd")


@pytest.mark.timeout(300)
def test_a_version_is_put_back_with_its_secrets_and_that_is_undone(start: Start, reach: Reach) -> None:
    router = start()
    client = reach(router, driver="ios")
    old = entity(read(client)).key
    router.lines[0:2] = ["hostname edge-7", "enable secret 9 $9$zzzzzzzz$another"]
    changed = list(router.lines)

    dry = Snmp.actions()["restore_configuration"]
    seen = dry.run(client, **dry.validate({"version": old}), dry_run=True)
    assert (seen.changed, router.lines, router.startup) == (True, changed, LINES)
    assert "+enable secret <masked>" in seen.after["diff"]

    change = act(client, "restore_configuration", version=old)
    assert (change.changed, router.lines, router.startup) == (True, LINES, LINES)
    assert "topsecretdigest" not in repr(change)
    assert not act(client, "restore_configuration", version=old).changed

    back = undo(client, "restore_configuration", change, version=old)
    assert (back.changed, router.lines) == (True, changed)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ({"deaf_to": "uplink"}, "took the configuration, and has another"),
        ({"refuses": "uplink"}, "did not take the configuration"),
    ],
    ids=["half", "refused"],
)
def test_a_device_that_does_not_take_it_is_found_out(
    start: Start, reach: Reach, fault: dict[str, str], why: str
) -> None:
    router = start(**fault)
    client = reach(router, driver="ios")
    old = entity(read(client)).key
    router.lines.remove(" description uplink")
    with pytest.raises(Refused, match=why) as caught:
        act(client, "restore_configuration", version=old)
    assert [secret for secret in SECRETS if secret in str(caught.value)] == []


def test_a_driver_that_only_reads_puts_nothing_back(start: Start, reach: Reach) -> None:
    router = start()
    client = reach(router)
    old = entity(read(client)).key
    router.lines.remove(" description uplink")
    with pytest.raises(Refused, match="these can put back: ios, nxos_ssh, eos"):
        act(client, "restore_configuration", version=old)
    assert " description uplink" not in router.lines


@pytest.mark.parametrize("driver", ["cisco_ios", "ios"])
@pytest.mark.parametrize(
    ("settings", "outcome", "words"),
    [
        ({"password": "env:TEST_WRONG"}, AuthError, "does not accept our user"),
        ({"known_hosts": "/dev/null"}, Unreachable, "host key"),
        ({"port": 1}, Unreachable, "does SSH listen there"),
        ({"password": "env:TEST_NOT_SET"}, ConfigError, "TEST_NOT_SET is not set"),
        ({"max_bytes": 50}, ParseError, "raise max_bytes"),
    ],
    ids=["password", "host key", "port", "secret", "size"],
)
def test_what_goes_wrong_is_told(  # noqa: PLR0917 - two tables
    start: Start, reach: Reach, driver: str, settings: dict[str, Any], outcome: type[Exception], words: str
) -> None:
    with pytest.raises(outcome, match=words) as caught:
        read(reach(start(), driver=driver, **settings))
    assert [secret for secret in (*SECRETS, PASSWORD, "wrong pass") if secret in str(caught.value)] == []


def test_another_host_key_than_the_known_one_is_refused(start: Start, reach: Reach) -> None:
    router, other = start(), start()
    other.port = router.port
    client = reach(router)
    other.known_hosts(client.target.configuration.known_hosts)  # type: ignore[union-attr, arg-type]
    with pytest.raises(Unreachable, match="host key"):
        read(client)


def test_a_device_that_shows_nothing_is_not_taken_for_an_empty_one(start: Start, reach: Reach) -> None:
    with pytest.raises(ParseError, match="shows no configuration"):
        read(reach(start(), driver="dell_os10"))


def test_a_target_without_configuration_is_not_asked(connect: Callable[..., SnmpClient]) -> None:
    client = connect()
    assert read(client) == []
    with pytest.raises(ConfigError, match="under `configuration`"):
        Configuration(client.target)


@pytest.mark.parametrize(
    "settings",
    [{"driver": "telepathy"}, {"username": "a b"}, {"username": "x\n"}, {"password": None}, {"password": "plain"}],
    ids=lambda settings: next(iter(settings.items()))[0] + repr(next(iter(settings.values()))),
)
def test_settings_that_cannot_be(settings: dict[str, Any], tmp_path: Path) -> None:
    access = {"driver": "ios", "username": "nms", "password": "env:X", "archive": str(tmp_path)} | settings
    with pytest.raises(ValidationError) as caught:
        SnmpTarget.model_validate({"host": "a", "community": "env:X", "configuration": access})
    assert "plain" not in str(caught.value)


@pytest.mark.parametrize("missing", ["netmiko", "napalm", "paramiko"])
def test_without_the_extra_it_is_told_what_to_install(
    start: Start, reach: Reach, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [one for one in sys.modules if one.partition(".")[0] == missing] or [missing]:
        monkeypatch.setitem(sys.modules, name, None)  # as the interpreter marks what cannot be imported
    with pytest.raises(ConfigError, match=r"pip install nms-workers\[config\]"):
        read(reach(start()))


def test_no_secret_is_logged(start: Start, reach: Reach, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"):
        read(reach(start(), driver="ios"))
    assert [secret for secret in (*SECRETS, PASSWORD) if secret in caplog.text] == []


def test_each_driver_is_one_of_its_library_and_has_masks() -> None:
    import napalm  # noqa: PLC0415 - takes seconds
    from netmiko import platforms  # noqa: PLC0415

    for name, row in drivers().items():
        assert row.masks in families()
        if row.library == "netmiko":
            assert name in platforms
            assert row.show
        else:
            assert callable(napalm.get_network_driver(name).load_replace_candidate)


def test_versions_are_private_bounded_and_in_order(tmp_path: Path) -> None:
    archive, moment = Archive(tmp_path / "a", keep=3), datetime(2026, 6, 1, tzinfo=UTC)
    made = [archive.put(f"text {n}", moment) for n in range(5)]  # five in one moment, as by a clock that stands still
    assert archive.versions() == made[-3:]
    assert [archive.text(one.name) for one in made[-3:]] == ["text 2", "text 3", "text 4"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a").iterdir()} == {0o600}
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700
    (tmp_path / "b").write_text("no folder")
    with pytest.raises(ConfigError, match="cannot be used"):
        Archive(tmp_path / "b", keep=3).put("text", moment)


def test_the_lines_are_counted(start: Start, reach: Reach) -> None:
    samples = {one.metric: one.value for one in read(reach(start())) if isinstance(one, Sample)}
    assert samples["snmp_configuration_lines"] == len(LINES) + 1  # the comment before its head
    assert abs(samples["snmp_configuration_changed_timestamp_seconds"] - datetime.now(UTC).timestamp()) < 3600
    assert issubclass(AuthError, TargetError)
