"""The section [guards]: its faults are named with their line, and a change of it is obeyed by workers that run."""

import textwrap
from pathlib import Path

import pytest

from nms_workers.cli.admin import EXAMPLE
from nms_workers.errors import ConfigError
from nms_workers.runtime import Runtime
from nms_workers.settings import Guards, Settings

WINDOW = "[[guards.windows]]\nrule = 'only'\n"
LIMIT = "[[guards.limits]]\nper = 'action'\njobs = 5\nwithin = '1m'\n"
FAULTS = [
    ("[guards]\nprotected = ['10.1.2.3/8']\n", 2, "guards.protected.0", "not a valid IPv4 or IPv6 network"),
    ("[guards]\nprotected = ['10.0.0.0/8', 'gate']\n", 2, "guards.protected.1", "not a valid IPv4 or IPv6 network"),
    ("[guards]\nprotect = []\n", 2, "guards.protect", "not permitted"),
    ("[guards]\nwidest_ipv4 = 33\n", 2, "guards.widest_ipv4", "less than or equal to 32"),
    ("[guards]\nwidest_ipv6 = -1\n", 2, "guards.widest_ipv6", "greater than or equal to 0"),
    ("[guards]\nfind = ['gateway']\n", 2, "guards.find.0", "Input should be 'interfaces'"),
    ("[guards]\ndeny = ['redis.flushbd']\n", 2, "guards.deny", "no action is named 'redis.flushbd'"),
    ("[guards]\nallow = ['redis']\n", 2, "guards.allow.0", "match pattern"),
    ("[guards]\nallow = ['redis.flushdb\\n']\n".replace("'", '"'), 2, "guards.allow.0", "match pattern"),
    ("[guards]\ndeny = ['redis.flushbd@cache']\n", 2, "guards.deny", "no action is named 'redis.flushbd@cache'"),
    ("[guards]\ndeny = ['redis.flushdb@']\n", 2, "guards.deny.0", "match pattern"),
    ("[guards]\ndeny = ['redis.flushdb@ca che']\n", 2, "guards.deny.0", "match pattern"),
    ("[guards]\nnat64 = ['2001:db8::/60']\n", 2, "guards.nat64.0", "a NAT64 prefix is /32, /40"),
    ("[guards]\nfree_interfaces = ['--all eth0']\n", 2, "guards.free_interfaces.0", "match pattern"),
    ("[workers]\nedge_processes = 0\n", 2, "workers.edge_processes", "greater than or equal to 1"),
    (LIMIT + "actions = ['redis.*@cache']\n", 5, "guards.limits.0.actions.0", "match pattern"),
    (LIMIT + "actions = ['redis.x*']\n", 5, "guards.limits.0.actions.0", "match pattern"),
    (LIMIT + LIMIT + "actions = ['gopher.*']\n", 9, "guards.limits.1.actions", "no action is named 'gopher.*'"),
    (LIMIT.replace("5", "0"), 3, "guards.limits.0.jobs", "greater than or equal to 1"),
    (LIMIT.replace("1m", "8d"), 4, "guards.limits.0.within", "less than or equal"),
    (WINDOW, 1, "guards.windows.0", "either cron and lasts, or since and until"),
    (WINDOW + "cron = '0 2 * * *'\n", 1, "guards.windows.0", "either cron and lasts, or since and until"),
    (WINDOW + "cron = '0 2 * * *'\nlasts = '1h'\nsince = 2026-01-01T00:00:00Z\n", 1, "guards.windows.0", "either cron"),
    (WINDOW + "cron = '0 25 * * *'\nlasts = '1h'\n", 1, "guards.windows.0", "Bad hour"),
    (WINDOW + "cron = '0 0 31 2 *'\nlasts = '1h'\n", 1, "guards.windows.0", "'0 0 31 2 *'"),
    (WINDOW + "cron = '* * * * * *'\nlasts = '1h'\n", 1, "guards.windows.0", "has not five fields"),
    (WINDOW + "cron = '0 2 * * *'\nlasts = '1h'\nzone = 'Europe/Atlantis'\n", 1, "guards.windows.0", "no time zone"),
    (WINDOW + "cron = '0 2 * * *'\nlasts = '1h'\nzone = '/etc/passwd'\n", 1, "guards.windows.0", "no time zone"),
    (WINDOW + "since = 2026-01-01T00:00:00\nuntil = 2026-01-02T00:00:00Z\n", 3, "guards.windows.0.since", "timezone"),
    (WINDOW + "since = 2026-01-02T00:00:00Z\nuntil = 2026-01-02T00:00:00Z\n", 1, "guards.windows.0", "ends before"),
    (WINDOW.replace("only", "maybe"), 2, "guards.windows.0.rule", "'only' or 'never'"),
]


@pytest.mark.parametrize(("text", "line", "where", "why"), FAULTS)
def test_a_fault_has_its_line_and_the_reason(tmp_path: Path, text: str, line: int, where: str, why: str) -> None:
    path = tmp_path / "nms.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as fault:
        Settings.load(path)
    told = [one for one in str(fault.value).splitlines() if one.startswith(f"{path}:{line}: {where}: ")]
    assert told, str(fault.value)
    assert why in told[0]


def test_the_example_shows_the_defaults() -> None:
    assert Settings.load(EXAMPLE).guards == Guards()


def test_the_whole_section_is_read(tmp_path: Path) -> None:
    path = tmp_path / "nms.toml"
    path.write_text(
        textwrap.dedent("""
            [guards]
            protected = ["10.0.0.0/8", "2001:db8::/32", "192.0.2.1"]
            find = ["fleet"]
            deny = ["redis.*", "*.flushdb", "*@attic"]
            nat64 = ["2001:db8:64::/96"]
            free_interfaces = ["eth0", "wan*"]

            [[guards.limits]]
            per = "requester"
            jobs = 3
            within = "1h"

            [[guards.windows]]
            rule = "only"
            actions = ["redis.flushdb"]
            cron = "0 2 * * sun"
            lasts = "90m"
            zone = "Europe/Berlin"

            [[guards.windows]]
            rule = "never"
            since = 2026-12-24T00:00:00+01:00
            until = 2027-01-02T00:00:00+01:00
            """)
    )
    guards = Settings.load(path).guards
    assert list(map(str, guards.protected)) == ["10.0.0.0/8", "2001:db8::/32", "192.0.2.1/32"]
    assert [(one.per, one.jobs, one.within) for one in guards.limits] == [("requester", 3, 3600.0)]
    assert guards.deny == ("redis.*", "*.flushdb", "*@attic")
    assert (list(map(str, guards.nat64)), guards.free_interfaces) == (["2001:db8:64::/96"], ("eth0", "wan*"))
    weekly, once = guards.windows
    assert (weekly.cron, weekly.lasts, weekly.zone) == ("0 2 * * sun", 5400.0, "Europe/Berlin")
    assert once.since is not None
    assert once.since.isoformat() == "2026-12-24T00:00:00+01:00"


def test_a_process_that_runs_obeys_what_is_written_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "nms.toml"
    path.write_text("")
    monkeypatch.setenv("NMS_CONFIG", str(path))
    here = Runtime(Settings.load(path))
    assert here.settings_now().guards == Guards()
    path.write_text("[guards]\ndeny = ['redis.*']\n")
    assert here.settings_now().guards.deny == ("redis.*",)
    path.write_text("[guards]\ndeny = ['redis.*', ]\nprotected = ['nonsense']\n")
    assert here.settings_now().guards.deny == ("redis.*",), "a broken file changes nothing"
    assert here.settings.guards == Guards()
