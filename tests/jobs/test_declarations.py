"""What every action of the services that act declares: whether twice is as once, what takes it back, what waits."""

import pytest

from nms_workers.arguments import Changes
from nms_workers.service import services
from nms_workers.settings import Guards

AS_ONCE, NOT_AS_ONCE = True, False

# Twice is as once, also when the first answer was lost: every action looks first, so a second run finds what the first
# did. Not so: what deletes or lifts all that is there when it runs (since the first run others may have added to it),
# and what is an event in itself.
DECLARED = {
    "fail2ban.ban_ip": (AS_ONCE, "unban_ip", "jail"),
    "fail2ban.unban_ip": (AS_ONCE, "ban_ip", "jail"),
    "fail2ban.unban_all": (NOT_AS_ONCE, None, "jail"),
    "fail2ban.set_jail": (AS_ONCE, "restore_jail", "jail"),
    "fail2ban.restore_jail": (AS_ONCE, None, "jail"),
    "fail2ban.add_ignore": (AS_ONCE, "del_ignore", "jail"),
    "fail2ban.del_ignore": (AS_ONCE, "add_ignore", "jail"),
    "fail2ban.reload_jail": (AS_ONCE, None, "jail"),
    "fail2ban.start_jail": (AS_ONCE, "stop_jail", "jail"),
    "fail2ban.stop_jail": (AS_ONCE, "start_jail", "jail"),
    "gns3.create_project": (AS_ONCE, "delete_made", "project"),
    "gns3.open_project": (AS_ONCE, "close_project", "project"),
    "gns3.close_project": (AS_ONCE, None, "project"),
    "gns3.delete_project": (AS_ONCE, None, "project"),
    "gns3.duplicate_project": (AS_ONCE, "delete_made", None),
    "gns3.create_node": (AS_ONCE, "delete_made", "project"),
    "gns3.delete_node": (AS_ONCE, None, "project"),
    "gns3.start_node": (AS_ONCE, "restore_nodes", "project"),
    "gns3.stop_node": (AS_ONCE, "restore_nodes", "project"),
    "gns3.suspend_node": (AS_ONCE, "restore_nodes", "project"),
    "gns3.reload_node": (NOT_AS_ONCE, None, "project"),
    "gns3.restore_nodes": (AS_ONCE, None, "project"),
    "gns3.create_link": (AS_ONCE, "delete_made", "project"),
    "gns3.delete_link": (AS_ONCE, None, "project"),
    "gns3.start_capture": (AS_ONCE, "stop_capture", "project"),
    "gns3.stop_capture": (AS_ONCE, None, "project"),
    "gns3.create_snapshot": (AS_ONCE, "delete_made", "project"),
    "gns3.restore_snapshot": (NOT_AS_ONCE, None, "project"),
    "gns3.delete_made": (AS_ONCE, None, "project"),
    "gns3.build_topology": (AS_ONCE, None, "project"),
    "redis.flushdb": (NOT_AS_ONCE, None, "db"),
    "traffic_control.shape": (AS_ONCE, "restore", "interface"),
    "traffic_control.set_default_class": (AS_ONCE, "restore", "interface"),
    "traffic_control.police": (AS_ONCE, "restore", "interface"),
    "traffic_control.emulate": (AS_ONCE, "restore", "interface"),
    "traffic_control.clear": (AS_ONCE, "restore", "interface"),
    "traffic_control.restore": (AS_ONCE, "restore", "interface"),
}


@pytest.mark.parametrize("kind", ["fail2ban", "gns3", "redis", "traffic_control"])
def test_each_action_declares_it(kind: str) -> None:
    found = {f"{kind}.{n}": (a.idempotent, a.undo, a.serialize_by) for n, a in services()[kind].actions().items()}
    assert found == {name: declared for name, declared in DECLARED.items() if name.startswith(f"{kind}.")}


def test_what_undoes_an_action_is_there_and_gets_what_it_takes() -> None:
    """An undo is called with arguments of the action, and with `before` and `after`: it must need no others."""
    for kind, one in services().items():
        for name, declared in one.actions().items():
            if declared.undo is None:
                continue
            fields = one.actions()[declared.undo].arguments.model_fields
            needed = {field for field, about in fields.items() if about.is_required()}
            assert needed <= {*declared.arguments.model_fields, "before", "after"}, f"{kind}.{name}"


@pytest.mark.parametrize("kind", ["fail2ban", "gns3", "redis", "traffic_control"])
def test_each_tells_in_a_dry_run_what_is_there(kind: str) -> None:
    """That it does is tested at a real server, beside the other tests of the service (`dry_run`)."""
    assert [name for name, one in services()[kind].actions().items() if not one.looks_first] == []


def test_every_interface_that_traffic_control_changes_is_looked_at_by_guards() -> None:
    for name, declared in services()["traffic_control"].actions().items():
        marks = [mark for field in declared.arguments.model_fields.values() for mark in field.metadata]
        assert any(isinstance(mark, Changes) for mark in marks), name
    assert Guards().find, "and guards look by default"
