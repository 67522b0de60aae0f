"""A dry run of every action: it tells what is there now, and changes nothing at a real server."""

from typing import Any

import pytest

from nms_workers.errors import Refused
from nms_workers.jobs.preview import tried
from nms_workers.services.fail2ban.service import Fail2ban
from tests.servers import Fail2banServer
from tests.services.fail2ban.conftest import Connect
from tests.services.fail2ban.support import act, done

THERE, NOT_THERE = "192.0.2.1", "192.0.2.2"
SET = {"bantime": 600, "findtime": 60, "maxretry": 2}
WOULD: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # arguments, and some of what is there now
    "ban_ip": ({"address": NOT_THERE}, {"banned": False}),
    "unban_ip": ({"address": THERE}, {"banned": True}),
    "unban_all": ({}, {"banned": 1, "first": [f"nms/{THERE}"]}),
    "set_jail": ({"bantime": 5}, SET),
    "restore_jail": ({"before": SET | {"maxretry": 9}}, SET),
    "add_ignore": ({"address": NOT_THERE}, {"ignored": ["127.0.0.9"]}),
    "del_ignore": ({"address": "127.0.0.9"}, {"ignored": ["127.0.0.9"]}),
    "reload_jail": ({}, SET),
    "start_jail": ({"jail": "other"}, {"running": False}),
    "stop_jail": ({}, {"running": True, "banned": 1}),
}


def test_every_action_changes_nothing(server: Fail2banServer, connect: Connect) -> None:
    assert WOULD.keys() == Fail2ban.actions().keys()
    client = connect(server)
    act(client, "ban_ip", jail="nms", address=THERE)
    act(client, "stop_jail", jail="other")
    before = (client.get_jails(), [ban.address for ban in client.get_banned()], done(server))
    for name, (arguments, there) in WOULD.items():
        declared = Fail2ban.actions()[name]
        change = tried(declared, lambda: client, declared.validate({"jail": "nms"} | arguments))
        assert change is not None, name
        assert change.changed, name
        assert change.before.items() >= there.items(), name
        assert change.message.startswith(f"{name}, where there is now {{"), name
    assert (client.get_jails(), [ban.address for ban in client.get_banned()], done(server)) == before


def test_what_would_change_nothing_or_be_refused_says_so(server: Fail2banServer, connect: Connect) -> None:
    client, ban = connect(server), Fail2ban.actions()["ban_ip"]
    act(client, "ban_ip", jail="nms", address=THERE)
    change = tried(ban, lambda: client, ban.validate({"jail": "nms", "address": THERE}))
    assert change is not None
    assert (change.changed, change.message) == (False, f"{THERE} is banned by nms already")
    with pytest.raises(Refused, match="no jail 'nope' runs"):
        tried(ban, lambda: client, ban.validate({"jail": "nope", "address": THERE}))
