"""Guards on a real PostgreSQL: what is refused, in which words, and what may run."""

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
import pytest
import redis
from sqlalchemy import Connection, Engine, text

from nms_workers.errors import Refused
from nms_workers.fleet.inventory import Inventory
from nms_workers.fleet.targets import sync
from nms_workers.jobs.guards import GUARDS, refusal
from nms_workers.jobs.wish import Wish
from nms_workers.settings import Guards, Settings, TargetConfig, Window
from tests.jobs.services.fence.service import Fence
from tests.servers import Server

Ask = Callable[..., str | None]


@pytest.fixture(autouse=True)
def _stores(monkeypatch: pytest.MonkeyPatch, database_url: str, redis_server: Server) -> None:
    monkeypatch.setenv("NMS_DATABASE_URL", database_url)
    monkeypatch.setenv("NMS_REDIS_URL", redis_server.url)


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with engine.begin() as one:
        yield one


@pytest.fixture
def ask(connection: Connection) -> Ask:
    """`ask("ban", address="10.0.0.1")`: why it is refused. `guards` and `wish` set what is not the default."""

    def look(
        action: str, *, guards: dict[str, Any] | None = None, wish: dict[str, Any] | None = None, **arguments: object
    ) -> str | None:
        wanted = {"service": "fence", "action": action, "target": "gate", "requested_by": "ada", "arguments": arguments}
        given = {name: value for name, value in arguments.items() if name != "confirm"}
        settings = Settings(guards=Guards.model_validate(guards or {}))
        return refusal(connection, settings, Wish(**(wanted | (wish or {}))), Fence.actions()[action], given)

    return look


FREE = ["198.51.100.7", "203.0.113.0/24", "2001:db8:77::/64", "::ffff:198.51.100.7", "2002:c633:6407::/48"]


@pytest.mark.parametrize("address", FREE)
def test_what_nobody_needs_may_be_cut_off(ask: Ask, address: str) -> None:
    guards = {"widest_ipv6": 48} if address.endswith("/48") else {}
    assert ask("ban", guards=guards, address=address) is None


NEVER = [
    ("127.0.0.1", "loopback"),
    ("127.9.9.9", "loopback"),
    ("0.0.0.0", "unspecified"),
    ("255.255.255.255", "broadcast"),
    ("224.0.0.5", "multicast"),
    ("169.254.169.254", "link-local"),
    ("::", "unspecified"),
    ("::1", "loopback"),
    ("fe80::1", "link-local"),
    ("ff02::1", "multicast"),
    ("::ffff:127.0.0.1", "loopback"),
    ("::ffff:7f00:1", "loopback"),
    ("0:0:0:0:0:FFFF:7F00:0001", "loopback"),
    ("::127.0.0.1", "loopback"),
    ("::ffff:0:127.0.0.1", "loopback"),
    ("64:ff9b::127.0.0.1", "loopback"),
    ("64:ff9b::7f00:1", "loopback"),
    ("64:ff9b:1::1", "cannot be told"),
    ("2002:7f00:1::", "loopback"),
    ("2002:7f00:1:ffff::/64", "loopback"),
    ("2001::1", "disguised"),
]


@pytest.mark.parametrize(("address", "why"), NEVER)
def test_what_everybody_needs_is_never_cut_off(ask: Ask, address: str, why: str) -> None:
    told = ask("ban", address=address)
    assert told is not None
    assert told.startswith("fence.ban is refused: ")
    assert why in told
    assert "\n" not in told


WIDE = ["0.0.0.0/0", "::/0", "::ffff:0:0/96", "64:ff9b::/96", "2002::/16", "::/96", "2000::/3", "10.0.0.0/8"]
WIDE += ["198.51.100.0/23", "2001:db8::/32", "2001:db8::/63", "::ffff:198.51.0.0/112", "64:ff9b::c633:6400/119"]


@pytest.mark.parametrize("address", WIDE)
def test_what_is_too_wide_is_refused_and_still_is_where_any_width_may_be(ask: Ask, address: str) -> None:
    told = ask("ban", address=address)
    assert told is not None
    assert "is wider than /" in told
    anything = {"widest_ipv4": 0, "widest_ipv6": 0}
    told = ask(
        "ban", guards=anything | {"protected": ["198.51.100.0/24", "10.1.2.3/32", "2001:db8::/64"]}, address=address
    )
    assert told is not None
    assert "would cut off" in told


@pytest.mark.parametrize(
    "address",
    [
        "10.1.2.3/8",  # host bits
        "::ffff:10.1.2.3/100",
        "010.0.0.1",  # octal to some, decimal to others
        "10.0.0.01",
        "127.1",
        "0x7f.0.0.1",
        "\u0661\u0660.0.0.1",  # Arabic-Indic digits
        "1\uff10.0.0.1",  # a fullwidth zero
        "10.0.0.1/\u0663\u0662",
        "10.0.0.1\n",
        " 10.0.0.1",
        "10.0.0.1\x00",
        "10.0.0.1,127.0.0.1",
        "--all",
        "-1",
        "10.0.0.1/33",
        "10.0.0.1/-1",
        "1.2.3.4/255.0.255.0",
        "localhost",
        "",
        "9" * 10_000,
        0x7F00_0001,  # 127.0.0.1 as a number
        b"\x7f\x00\x00\x01",
        None,
        True,
        1.5,
        ["127.0.0.1"],
        {"address": "127.0.0.1"},
    ],
)
def test_what_is_no_address_is_no_argument(ask: Ask, address: object) -> None:
    with pytest.raises(Refused, match="ban cannot take these arguments"):
        ask("ban", address=address)


@pytest.mark.parametrize(
    "interface", ["--all", "-i", "eth0; reboot", "eth0\n", "", "../eth0", "eth\u0660", "e" * 16, "a b"]
)
def test_an_interface_s_name_cannot_be_an_option(ask: Ask, interface: str) -> None:
    with pytest.raises(Refused, match="interface: String should match pattern"):
        ask("drop", interface=interface, rules=[])


@pytest.mark.parametrize("address", ["fe80::1%eth0", "2001:db8:77::1%--help", "2001:db8:77::1%1"])
def test_an_address_with_a_zone_is_refused(ask: Ask, address: str) -> None:
    with pytest.raises(Refused, match="an address of one interface"):
        ask("ban", address=address)


HOSTILE = "::ffff:127.0.0.1"
FINE = "198.51.100.7"


@pytest.mark.parametrize(
    ("action", "arguments"),
    [
        ("ban_all", {"addresses": [FINE, HOSTILE]}),
        ("ban_all", {"addresses": [], "also": HOSTILE}),
        ("drop", {"interface": "eth0", "rules": [{"drop": FINE}, {"drop": HOSTILE}]}),
        ("drop", {"interface": "eth0", "rules": [], "named": {"x": HOSTILE}}),
    ],
)
def test_a_marked_address_is_found_however_deep_it_lies(ask: Ask, action: str, arguments: dict[str, Any]) -> None:
    told = ask(action, **arguments)
    assert told is not None
    assert "127.0.0.1 would cut off 127.0.0.0/8, loopback (RFC 1122)" in told


def test_what_is_not_marked_is_not_looked_at(ask: Ask) -> None:
    assert ask("unban", address="127.0.0.1") is None
    assert ask("ban_all", addresses=[], also=None) is None


@pytest.mark.parametrize(
    ("address", "guarded"),
    [
        ("10.1.2.3", "10.0.0.0/8"),  # it lies inside
        ("10.1.2.0/24", "10.1.2.3/32"),  # it lies around
        ("::ffff:10.1.2.3", "10.0.0.0/8"),
        ("64:ff9b::a01:203", "10.1.2.3/32"),
        ("10.1.2.3", "64:ff9b::a01:203/128"),  # the protected one is in disguise
        ("2001:db8:77::/64", "2001:db8::/32"),
    ],
)
def test_what_the_settings_protect_cannot_be_cut_off(ask: Ask, address: str, guarded: str) -> None:
    told = ask("ban", guards={"protected": [guarded]}, address=address)
    assert told is not None
    assert "protected by the settings" in told


def test_the_addresses_of_every_interface_of_this_host_are_found(ask: Ask) -> None:
    own = [
        (name, address.address.partition("%")[0])
        for name, addresses in psutil.net_if_addrs().items()
        for address in addresses
        if address.family.name in ("AF_INET", "AF_INET6")
    ]
    assert own
    for interface, address in own:
        told = ask("ban", guards={"find": ["interfaces"]}, address=address)
        assert told is not None
        assert f"this host's own ({interface})" in told or "loopback" in told or "link-local" in told


def test_where_the_fleet_s_stores_are_is_found(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = [
        ("NMS_DATABASE_URL", "postgresql://nms:se%3Bcret@198.51.100.1:5432,198.51.100.2/nms", "PostgreSQL"),
        ("NMS_DATABASE_URL", "postgresql:///nms?host=198.51.100.1,198.51.100.2", "PostgreSQL"),
        ("NMS_REDIS_URL", "rediss://:secret@[64:ff9b::198.51.100.2]:6379/0", "Redis"),
    ]
    for variable, url, which in stores:
        with monkeypatch.context() as patched:
            patched.setenv(variable, url)
            told = ask("ban", guards={"find": ["fleet"]}, address="198.51.100.2")
            assert told is not None
            assert f"{which} of the fleet" in told
            assert "cret" not in told
            assert ask("ban", guards={"find": []}, address="198.51.100.2") is None


def test_a_store_whose_address_cannot_be_found_stops_what_cuts_off(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NMS_REDIS_URL", "redis://:secret@nowhere.invalid:6379/0")
    told = ask("ban", address=FINE)
    assert told is not None
    assert "the address of nowhere.invalid, Redis of the fleet, cannot be found" in told
    assert "secret" not in told
    assert ask("unban", address=FINE) is None


def test_every_target_s_own_address_is_found(
    ask: Ask, connection: Connection, engine: Engine, red: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHE_PASSWORD", "198.51.100.99")
    redis_at = {"service": "redis", "password": "env:CACHE_PASSWORD"}
    targets = [
        redis_at | {"name": "a", "host": "198.51.100.10"},
        redis_at | {"name": "b", "sentinels": ["198.51.100.11:26379", "[2001:db8:77::9]:1"], "master_name": "m"},
        redis_at | {"name": "c", "host": "localhost"},
        redis_at | {"name": "d", "host": "198.51.100.12", "paused": True},
        redis_at | {"name": "e", "unix_socket": "/run/redis.sock"},
        redis_at | {"name": "f", "host": "no-such-host.invalid"},
    ]
    settings = Settings(targets=[TargetConfig.model_validate(one) for one in targets])
    assert ask("ban", address="198.51.100.10") is None
    sync(engine, Inventory(red), settings, datetime.now(UTC))
    for address, name in [
        ("198.51.100.10", "a"),
        ("::ffff:198.51.100.11", "b"),
        ("2001:db8:77::/64", "b"),
        ("198.51.100.12", "d"),
    ]:
        told = ask("ban", address=address)
        assert told is not None
        assert f"the target redis/{name}" in told
    assert ask("ban", address="198.51.100.99") is None, "a password is not read"
    assert ask("ban", guards={"find": ["fleet"]}, address="198.51.100.10") is None
    sync(engine, Inventory(red), Settings(targets=[]), datetime.now(UTC))
    assert ask("ban", address="198.51.100.10") is None, "it is gone, and seen to be at once"


def test_a_url_that_is_a_secret_tells_where_its_target_is(
    ask: Ask, engine: Engine, red: "redis.Redis", shelf: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHELF_URL", "redis://:secret@198.51.100.20:6379/0")
    at = [{"service": "shelf", "name": one, "url": f"env:{one}", "key": "k"} for one in ("SHELF_URL", "NOT_SET_HERE")]
    sync(engine, Inventory(red), Settings(targets=[TargetConfig.model_validate(one) for one in at]), datetime.now(UTC))
    told = ask("ban", address="198.51.100.20")
    assert told is not None
    assert "198.51.100.20 would cut off 198.51.100.20, the target shelf/SHELF_URL (198.51.100.20)" in told
    assert "secret" not in told


@pytest.mark.parametrize(
    ("guards", "may"),
    [
        ({}, True),
        ({"deny": ["fence.*"]}, False),
        ({"deny": ["fence.unban"]}, False),
        ({"deny": ["*.unban"]}, False),
        ({"deny": ["*"]}, False),
        ({"deny": ["fence.ban", "redis.*"]}, True),
        ({"allow": ["fence.*"]}, True),
        ({"allow": ["redis.flushdb"]}, False),
        ({"allow": []}, False),
        ({"allow": ["fence.unban"], "deny": ["fence.unban"]}, False),
        ({"deny": ["fence.*@gate"]}, False),
        ({"deny": ["*@g*"]}, False),
        ({"deny": ["fence.*@door", "fence.ban@gate"]}, True),
        ({"allow": ["*@gate"]}, True),
        ({"allow": ["*@door"]}, False),
    ],
)
@pytest.mark.parametrize("wish", [{}, {"job": uuid.uuid4()}, {"undoes": uuid.uuid4()}])
def test_only_what_is_allowed_and_not_denied_may_run(
    ask: Ask, guards: dict[str, Any], may: bool, wish: dict[str, Any]
) -> None:
    told = ask("unban", guards=guards, wish=wish, address=FINE)
    assert (told is None) == may
    assert may or "the settings do not let it run (guards." in str(told)


@pytest.mark.parametrize("confirm", [{}, {"confirm": "door"}, {"confirm": ""}, {"confirm": True}, {"confirm": "GATE"}])
def test_what_destroys_wants_its_target_named(ask: Ask, confirm: dict[str, object]) -> None:
    told = "fence.raze is refused: it destroys data: it needs the argument confirm=gate"
    assert ask("raze", **confirm) == told
    assert ask("raze", confirm="gate") is None
    assert ask("raze", wish={"job": uuid.uuid4()}) is None, "it was confirmed when it was submitted"
    assert ask("raze", wish={"undoes": uuid.uuid4()}) is None, "the one it takes back was"


def _minutes_from_now(minutes: float) -> datetime:
    return datetime.now(UTC) + timedelta(minutes=minutes)


def test_windows_hold_when_it_is_submitted_and_when_it_runs(ask: Ask) -> None:
    later = Window(rule="only", since=_minutes_from_now(30), until=_minutes_from_now(90))
    for wish in ({}, {"job": uuid.uuid4()}, {"after": 10.0}, {"job": uuid.uuid4(), "after": 3600.0}):
        told = ask("unban", guards={"windows": [later]}, wish=wish, address=FINE)
        assert told is not None
        assert "only run in a maintenance window, and the next opens at " in told
    assert ask("unban", guards={"windows": [later]}, wish={"after": 3600.0}, address=FINE) is None, "it is due inside"
    assert ask("unban", guards={"windows": [later]}, wish={"undoes": uuid.uuid4()}, address=FINE) is None
    over = Window(rule="only", since=_minutes_from_now(-30), until=_minutes_from_now(-10))
    assert "none is left" in str(ask("unban", guards={"windows": [over]}, address=FINE))
    now = Window(rule="only", since=_minutes_from_now(-30), until=_minutes_from_now(10))
    assert ask("unban", guards={"windows": [later, now]}, address=FINE) is None, "one that is open is enough"
    freeze = Window(rule="never", since=_minutes_from_now(-30), until=_minutes_from_now(10))
    assert "may run in this window" in str(ask("unban", guards={"windows": [now, freeze]}, address=FINE))
    for others in ("fence.ban", "fence.unban@door"):
        elsewhere = freeze.model_copy(update={"actions": (others,)})
        assert ask("unban", guards={"windows": [elsewhere]}, address=FINE) is None
    here = freeze.model_copy(update={"actions": ("*@gate",)})
    assert "may run in this window" in str(ask("unban", guards={"windows": [here]}, address=FINE))


def test_a_refusal_stands_in_a_table_of_guards_that_has_the_lock_last() -> None:
    """The limit holds a lock until the job is written: whatever resolves names must come before it."""
    assert [guard.look.__name__ for guard in GUARDS][-1] == "_too_often"


def test_every_guard_is_looked_at_again_before_the_run_but_for_what_was_counted_or_confirmed(
    ask: Ask, connection: Connection
) -> None:
    running = {"job": uuid.uuid4()}
    assert "would cut off" in str(ask("ban", wish=running, address="127.0.0.1"))
    assert "wider" in str(ask("ban", wish=running, address="10.0.0.0/8"))
    one = {"limits": [{"per": "requester", "jobs": 1, "within": "1m"}]}
    connection.execute(
        text("""INSERT INTO jobs (id, service, action, target, requested_by, state)
                VALUES (gen_random_uuid(), 'fence', 'unban', 'gate', 'ada', 'queued')""")
    )
    assert ask("unban", guards=one, wish=running, address=FINE) is None, "this job itself was counted"
    assert "'ada' may have 1 in 60 s" in str(ask("unban", guards=one, address=FINE))
