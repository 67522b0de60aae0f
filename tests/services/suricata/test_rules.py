"""Rule files as people write them."""

import pytest

from nms_workers.services.suricata import rules

TEXT = r"""
# a comment with alert in it (msg:"no"; sid:1;) or so
alert tcp any any -> any any (msg:"one; with sid:99; inside"; content:"a\;b"; classtype:misc-attack; sid:10; rev:2;)
#alert tcp any any -> any any (msg:"off"; sid:11;)
# # alert udp any any -> any 53 (msg:"twice off"; sid:12; rev:1;)
drop http any any -> any any (msg:"long"; \
    content:"x"; \
    sid:13;)
alert tcp any any -> any any (msg:"other generator"; gid:3; sid:10;)
alert tcp any any -> any any (msg:"no id";)
not a rule
"""


def test_what_a_file_holds() -> None:
    found = rules.parsed(TEXT, "some.rules")
    assert [(rule.sid, rule.gid, rule.enabled, rule.line) for rule in found] == [
        (10, 1, True, 3),
        (11, 1, False, 4),
        (12, 1, False, 5),
        (13, 1, True, 6),
        (10, 3, True, 9),
    ]
    assert found[0] == rules.Rule(
        10, 1, 2, "alert", "tcp", "one; with sid:99; inside", "misc-attack", True, "some.rules", 3
    )


@pytest.mark.parametrize("sid", [10, 13])
def test_off_and_on_again_is_as_before(sid: int) -> None:
    off = rules.switched(TEXT, sid, enabled=False)
    changed = {rule.sid for rule in rules.parsed(off, "") if not rule.enabled} - {11, 12}
    assert changed == {sid}
    assert len(off.splitlines()) == len(TEXT.splitlines())
    on = rules.switched(off, sid, enabled=True)
    assert rules.parsed(on, "") == rules.parsed(TEXT, "")
    assert rules.switched(on, sid, enabled=True) == on


def test_only_the_rule_of_our_generator_is_switched() -> None:
    off = rules.parsed(rules.switched(TEXT, 10, enabled=False), "")
    assert [rule.enabled for rule in off if rule.sid == 10] == [False, True]


def test_one_that_was_switched_off_twice() -> None:
    on = rules.parsed(rules.switched(TEXT, 12, enabled=True), "")
    assert [rule.enabled for rule in on if rule.sid == 12] == [True]
