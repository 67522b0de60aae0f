"""The place where bans are measured: what it reads in the server's log, and what it says without a server."""

from pathlib import Path

import pytest

from nms_workers.bench.at_fail2ban import AtFail2ban
from nms_workers.bench.place import BenchError

LOG = """\
2026-11-22 17:00:00,250 fail2ban.jail           [1]: INFO    Jail 'bench0' started
2026-11-22 17:00:01,001 fail2ban.actions        [1]: NOTICE  [bench0] Ban 198.18.0.1
2026-11-22 17:00:01,002 fail2ban.actions        [1]: NOTICE  [bench1] Ban 198.18.0.2
2026-11-22 17:00:01,003 fail2ban.actions        [1]: NOTICE  [bench1] 198.18.0.2 already banned
2026-11-22 17:00:02,000 fail2ban.actions        [1]: NOTICE  [bench0] Unban 198.18.0.1
2026-11-22 17:00:03,500 fail2ban.actions        [1]: NOTICE  [bench0] Ban 198.18.0.1
2026-11-22 17:00:04,000 fail2ban.actions        [1]: NOTICE  [bench0] Ban 203.0.113.1
"""


@pytest.mark.real("fail2ban")
def test_a_ban_that_was_made_twice_is_seen_twice(tmp_path: Path) -> None:
    place = AtFail2ban(tmp_path)
    (tmp_path / "fail2ban.log").write_text(LOG)
    first, second = 1_795_366_801.001, 1_795_366_803.5
    assert dict(place.effects()) == {0: [first, second], 1: [1_795_366_801.002]}


def test_without_the_program_it_says_how_to_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BenchError, match="no fail2ban-server on this machine") as failure:
        AtFail2ban(tmp_path)
    assert failure.value.hint == "install Debian's package fail2ban, or measure --at redis"
