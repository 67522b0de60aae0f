"""Actions on a real engine: each looks first, is safe to run twice, and is seen in what the engine then does."""

from pathlib import Path
from typing import Any

import pytest

from nms_workers.arguments import CutsOff
from nms_workers.errors import Refused
from nms_workers.services.suricata.client import SuricataClient
from nms_workers.services.suricata.service import Suricata
from tests.servers import SuricataServer
from tests.services.suricata.conftest import Connect, send
from tests.services.suricata.support import act, collect, read, signatures, value

UPLOADED = 'alert http any any -> any any (msg:"up"; flow:to_server; http.uri; content:"/up"; sid:2000001; rev:1;)\n'
BAD = UPLOADED + 'alert nonsense any any -> any any (msg:"bad"; sid:2000002;)\n'


def _loaded(client: SuricataClient) -> float:
    return value(read(client, "rules"), "suricata_rules_loaded", tenant="0")


def _seen(client: SuricataClient, *expected: int) -> bool:
    return set(expected) <= set(signatures(collect(client, lambda records: set(expected) <= set(signatures(records)))))


def test_a_rule_is_switched_on_and_off(suricata: SuricataServer, client: SuricataClient) -> None:
    before = (suricata.rules / "local.rules").read_text()
    on = act(client, "update_rule", sid=1000002, enabled=True)
    assert (on.changed, on.before["enabled"], on.after["enabled"]) == (True, False, True)
    assert not act(client, "update_rule", sid=1000002, enabled=True).changed
    send(suricata, ["http", "/attack"])
    assert _seen(client, 1000001, 1000002)
    assert act(client, "restore_rule", sid=1000002, before=on.before).changed
    assert (suricata.rules / "local.rules").read_text() == before
    assert _loaded(client) == 5
    with pytest.raises(Refused, match="no rule file holds the rule 77"):
        act(client, "update_rule", sid=77, enabled=True)


def test_a_rule_of_several_lines(client: SuricataClient) -> None:
    assert act(client, "update_rule", sid=1000006, enabled=False).changed
    assert _loaded(client) == 4
    assert act(client, "update_rule", sid=1000006, enabled=True).changed
    assert _loaded(client) == 5


def test_an_uploaded_ruleset_goes_live_and_the_old_one_is_kept(
    suricata: SuricataServer, client: SuricataClient
) -> None:
    change = act(client, "upload_ruleset", content=UPLOADED, name="uploaded.rules")
    assert (change.changed, change.before["rules"], change.after["enabled"]) == (True, 0, 1)
    assert not act(client, "upload_ruleset", content=UPLOADED, name="uploaded.rules").changed
    send(suricata, ["http", "/up"])
    assert _seen(client, 2000001)
    newer = UPLOADED.replace("rev:1", "rev:2")
    assert act(client, "upload_ruleset", content=newer, name="uploaded.rules").changed
    assert (suricata.rules / "uploaded.rules").read_text() == newer
    assert (suricata.rules / "uploaded.rules.previous").read_text() == UPLOADED


def test_an_upload_is_taken_back(suricata: SuricataServer, client: SuricataClient) -> None:
    first = act(client, "upload_ruleset", content=UPLOADED, name="uploaded.rules")
    second = act(
        client, "upload_ruleset", content=UPLOADED + UPLOADED.replace("2000001", "2000003"), name="uploaded.rules"
    )
    assert _loaded(client) == 7
    assert act(client, "restore_ruleset", name="uploaded.rules", before=second.before).changed
    assert (suricata.rules / "uploaded.rules").read_text() == UPLOADED
    assert not act(client, "restore_ruleset", name="uploaded.rules", before=second.before).changed
    with pytest.raises(Refused, match="not the file of then"):
        act(client, "restore_ruleset", name="uploaded.rules", before={"digest": "another"})
    assert act(client, "restore_ruleset", name="uploaded.rules", before=first.before).changed
    assert _loaded(client) == 5


def test_a_bad_ruleset_is_refused_before_it_goes_live(suricata: SuricataServer, client: SuricataClient) -> None:
    act(client, "upload_ruleset", content=UPLOADED, name="uploaded.rules")
    with pytest.raises(Refused, match=r"line 2 of uploaded.rules: .*protocol .nonsense.") as error:
        act(client, "upload_ruleset", content=BAD, name="uploaded.rules")
    assert error.value.hint == "nothing was changed"
    assert (suricata.rules / "uploaded.rules").read_text() == UPLOADED
    assert not (suricata.rules / "uploaded.rules.previous").exists()
    assert _loaded(client) == 6


@pytest.mark.parametrize("existed", [True, False])
def test_what_the_engine_cannot_load_is_rolled_back(suricata: SuricataServer, connect: Connect, existed: bool) -> None:
    if existed:
        act(connect(suricata), "upload_ruleset", content=UPLOADED, name="uploaded.rules")
    blind = connect(suricata, program=Path("/bin/true"))  # a check that lets everything pass
    with pytest.raises(Refused, match=r"could not load the rules in line 2 .*the old one again, and loaded"):
        act(blind, "upload_ruleset", content=BAD, name="uploaded.rules")
    assert (suricata.rules / "uploaded.rules").exists() is existed
    assert _loaded(blind) == (6 if existed else 5)
    assert value(read(blind, "rules"), "suricata_rules_failed", tenant="0") == 0


def test_a_fault_in_another_file_does_not_stand_in_the_way(suricata: SuricataServer, client: SuricataClient) -> None:
    local = suricata.rules / "local.rules"
    local.write_text(local.read_text() + BAD.splitlines()[1].replace("2000002", "1000009") + "\n")
    assert act(client, "upload_ruleset", content=UPLOADED, name="uploaded.rules").changed


def test_settings_that_the_engine_refuses_are_told(untouched: SuricataServer, connect: Connect, tmp_path: Path) -> None:
    broken = tmp_path / "suricata.yaml"
    broken.write_text(untouched.config.read_text().replace("classification.config", "none.config"))
    with pytest.raises(Refused, match=r"refuses its settings: .*please check the .classification-file") as error:
        act(connect(untouched, config=broken), "upload_ruleset", content=UPLOADED, name="uploaded.rules")
    assert error.value.hint == f"suricata -T -c {broken}"
    assert not (untouched.rules / "uploaded.rules").exists()


@pytest.mark.parametrize(
    ("content", "name", "why"),
    [
        (UPLOADED, "other.rules", "Suricata does not load"),
        (UPLOADED, "../uploaded.rules", "name"),
        (UPLOADED, "/etc/uploaded.rules", "name"),
        (UPLOADED, "-S.rules", "name"),
        (UPLOADED, "uploaded.rules\n", "name"),
        (UPLOADED, "uploaded", "name"),
        (UPLOADED, "\uff55ploaded.rules", "name"),
        ("", "uploaded.rules", "content"),
        ("# nothing\n", "uploaded.rules", "no rule that is switched on"),
        (f"# {UPLOADED}", "uploaded.rules", "no rule that is switched on"),
    ],
)
def test_an_upload_that_is_refused(
    untouched: SuricataServer, connect: Connect, content: str, name: str, why: str
) -> None:
    files = sorted(untouched.rules.iterdir())
    with pytest.raises(Refused, match=why):
        act(connect(untouched), "upload_ruleset", content=content, name=name)
    assert sorted(untouched.rules.iterdir()) == files


def test_data_sets(suricata: SuricataServer, client: SuricataClient) -> None:
    uri = {"dataset": "uris", "type": "string", "value": "/wanted"}
    assert act(client, "add_to_dataset", **uri).changed
    assert not act(client, "add_to_dataset", **uri).changed
    address = {"dataset": "addresses", "type": "ipv4", "value": "127.0.0.1"}
    assert act(client, "add_to_dataset", **address).after == {"member": True}
    send(suricata, ["http", "/wanted"])
    assert _seen(client, 1000004, 1000005)
    for one in (uri, address):
        assert act(client, "remove_from_dataset", **one).changed
        assert not act(client, "remove_from_dataset", **one).changed
    assert Suricata.actions()["add_to_dataset"].undo == "remove_from_dataset"


@pytest.mark.parametrize(
    ("kind", "value", "why"),
    [
        ("ipv4", "not-an-ip", "no address"),
        ("ipv4", "::1", "no IPv4 address"),
        ("ipv4", "١٢٧.0.0.1", "no address"),
        ("md5", "abc", "32 hexadecimal digits"),
        ("string", "", "1 to 4096"),
        ("colour", "red", "type"),
    ],
)
def test_a_value_that_is_none_of_its_type(
    untouched: SuricataServer, connect: Connect, kind: str, value: str, why: str
) -> None:
    with pytest.raises(Refused, match=why):
        act(connect(untouched), "add_to_dataset", dataset="addresses", type=kind, value=value)


def test_a_data_set_that_is_not_there(client: SuricataClient) -> None:
    with pytest.raises(Refused, match="set not found or wrong type") as error:
        act(client, "add_to_dataset", dataset="nowhere", type="ipv4", value="192.0.2.1")
    assert "rule in force" in error.value.hint


def test_host_bits(suricata: SuricataServer, client: SuricataClient) -> None:
    bit: dict[str, Any] = {"address": "127.0.0.1", "hostbit": "marked"}
    change = act(client, "add_hostbit", **bit, expire=100)
    assert change.before == {"hostbits": {}}
    assert 0 < change.after["hostbits"]["marked"] <= 100
    assert not act(client, "add_hostbit", **bit, expire=50).changed
    send(suricata, ["http", "/found"])
    assert _seen(client, 1000003)
    assert act(client, "remove_hostbit", **bit).after == {"hostbits": {}}
    assert not act(client, "remove_hostbit", **bit).changed
    with pytest.raises(Refused, match="is a network"):
        act(client, "add_hostbit", address="127.0.0.0/8", hostbit="marked", expire=10)
    with pytest.raises(Refused, match="hostbit not found"):
        act(client, "add_hostbit", address="127.0.0.1", hostbit="nobody", expire=10)
    field = Suricata.actions()["add_hostbit"].arguments.model_fields["address"]
    assert CutsOff() in field.metadata  # guards look at it


def test_memory_caps(client: SuricataClient) -> None:
    change = act(client, "set_memcap", part="flow", memcap="32mb")
    assert (change.changed, change.before, change.after) == (True, {"memcap": "16mb"}, {"memcap": "32mb"})
    assert not act(client, "set_memcap", part="flow", memcap="32mb").changed
    assert value(read(client, "memcaps"), "suricata_memcap_bytes", part="flow") == 32 << 20
    assert act(client, "restore_memcap", part="flow", before=change.before).after == {"memcap": "16mb"}
    with pytest.raises(Refused, match="no limit that can be set"):
        act(client, "restore_memcap", part="flow", before={"memcap": "unlimited"})
    with pytest.raises(Refused, match="Memcap value not found"):
        act(client, "set_memcap", part="nobody", memcap="32mb")
    with pytest.raises(Refused, match="less than the memory in use"):
        act(client, "set_memcap", part="flow", memcap="1kb")
    with pytest.raises(Refused, match="memcap"):
        act(client, "set_memcap", part="flow", memcap="٣mb")


def test_rules_are_loaded_while_another_load_goes_on(
    client: SuricataClient, connect: Connect, suricata: SuricataServer
) -> None:
    client.ask("ruleset-reload-nonblocking")
    assert act(connect(suricata), "reload_rules").after["rules_loaded"] == 5


def test_every_action_runs_beside_its_engine() -> None:
    assert all(one.undo in (None, *Suricata.actions()) for one in Suricata.actions().values())
    assert {one.runs_at for one in Suricata.actions().values()} == {"edge"}
