"""The Data Plane API, both versions: what is read, what is changed in the process, and what in the file for good."""

from typing import Any

import pytest
from pydantic import ValidationError

from nms_workers.errors import AuthError, ParseError, Refused, TargetError, Timeout
from nms_workers.services.haproxy.client import HaproxyClient
from nms_workers.services.haproxy.service import Haproxy
from tests.contract.vendor import description
from tests.metric_contract import undeclared
from tests.services.haproxy.conftest import Connect
from tests.services.haproxy.support import act, events, read, state, undo
from tests.services.records import entities, value
from tests.services.test_http_faults import FAULTS, Fault
from tests.stubs.dataplane import FILES, DataPlaneStub
from tests.transport.sites import Site

APP1: dict[str, Any] = {"backend": "be_app", "server": "app1"}
NEW: dict[str, Any] = {"backend": "be_app", "server": "new", "address": "192.0.2.20", "port": 8003}


def test_what_is_sent_is_checked_against_the_description(stub: DataPlaneStub, api: HaproxyClient) -> None:
    description(FILES[stub.version])
    act(api, "set_weight", **APP1, weight=7, persist=True)
    assert stub.violations == []
    dataplane = api.dataplane
    assert dataplane is not None
    with pytest.raises(Refused, match="404"):
        dataplane.call("GET", "/configuration/no_such_thing")
    dataplane.call("PUT", "/transactions/t", {"force_reload": "many"}, expect=(404,))
    assert [violation.partition(": ")[0] for violation in stub.violations] == [
        f"GET /v{stub.version}/services/haproxy/configuration/no_such_thing",
        f"PUT /v{stub.version}/services/haproxy/transactions/t?force_reload=many",
    ]
    stub.violations.clear()


def test_what_it_reads(stub: DataPlaneStub, api: HaproxyClient) -> None:
    records = read(api)
    assert value(records, "haproxy_frontend_current_sessions", proxy="fe_web") == 4
    assert value(records, "haproxy_frontend_in_bytes_total", proxy="fe_web") == 1000
    assert value(records, "haproxy_server_status", proxy="be_app", server="app1", state="UP") == 1
    assert value(records, "haproxy_backend_active_servers", proxy="be_app") == 2
    assert set(entities(records, "server")) == {"be_app/app1", "be_app/app2"}
    process = read(api, "info")
    assert value(process, "haproxy_process_idle_time_ratio") == 0.97
    assert value(process, "haproxy_process_max_memory_bytes") == 2 << 20
    assert value(process, "haproxy_process_build_info", version="3.2.4", release_date="") == 1
    tables = read(api, "tables")
    assert value(tables, "haproxy_sticktable_used", table="fe_web", type="ip") == 2
    assert [(one.key, one.data) for one in api.get_table_entries("fe_web", 1)] == [("192.0.2.1", {"conn_cnt": 1})]
    assert undeclared(Haproxy, records + process + tables) == []


def test_certificates(stub: DataPlaneStub, api: HaproxyClient) -> None:
    if stub.version == 2:
        with pytest.raises(Refused, match=r"version 2 .* does not tell certificates \(set socket"):
            read(api, "certificates")
        return
    event = events(read(api, "certificates"))["certificate_expiry:site one.pem"]
    assert (event.state, event.severity) == ("firing", "error")
    assert "/CN=www.example" in event.message


def test_a_server_is_taken_out_and_back(stub: DataPlaneStub, api: HaproxyClient) -> None:
    change = act(api, "set_server_state", **APP1, state="drain")
    assert stub.running["be_app"]["app1"]["admin_state"] == "drain"
    assert not act(api, "set_server_state", **APP1, state="drain").changed
    with pytest.raises(Refused, match="app2 is the last server of be_app"):
        act(api, "set_server_state", backend="be_app", server="app2", state="maint")
    assert undo(api, "set_server_state", change, **APP1).changed
    assert stub.running["be_app"]["app1"]["admin_state"] == "ready"


def test_a_server_of_the_process_alone(stub: DataPlaneStub, api: HaproxyClient) -> None:
    with pytest.raises(Refused, match=r"cannot begin the checks .* \(set socket as well, say persist"):
        act(api, "add_server", **NEW)
    change = act(api, "add_server", **NEW, check=False)
    assert stub.running["be_app"]["new"]["admin_state"] == "ready"
    assert "new" not in stub.configured["be_app"]
    stub.busy = 2
    assert undo(api, "add_server", change, **NEW).changed
    assert "new" not in stub.running["be_app"]


def test_connections_that_do_not_end(stub: DataPlaneStub, api: HaproxyClient) -> None:
    stub.busy = 1000
    with pytest.raises(Refused, match="app1 still has connections after 0 s"):
        act(api, "remove_server", **APP1, wait=0)
    assert stub.running["be_app"]["app1"]["admin_state"] == "ready"


def test_a_server_that_is_added_for_good(stub: DataPlaneStub, api: HaproxyClient) -> None:
    stub.looks = 2
    change = act(api, "add_server", **NEW, weight=5, persist=True)
    assert change.changed
    wanted = {"name": "new", "address": "192.0.2.20", "port": 8003, "weight": 5, "check": "enabled"}
    assert stub.configured["be_app"]["new"] == wanted
    assert state(api, "new") == "UP"
    assert len([path for path in stub.paths("GET") if "/reloads/" in path]) == 3
    assert stub.open == {}
    assert not act(api, "add_server", **NEW, weight=5, persist=True).changed
    with pytest.raises(Refused, match=r"is there already, at 192.0.2.20 port 8003"):
        act(api, "add_server", **(NEW | {"port": 9}), persist=True)
    assert undo(api, "add_server", change, **NEW, persist=True).changed
    assert set(stub.configured["be_app"]) == set(stub.running["be_app"]) == {"app1", "app2"}


def test_a_server_that_is_removed_for_good_comes_back_whole(stub: DataPlaneStub, api: HaproxyClient) -> None:
    stub.configured["be_app"]["app1"] |= {"inter": 2000, "cookie": "one", "slowstart": 5000}
    whole = dict(stub.configured["be_app"]["app1"])
    change = act(api, "remove_server", **APP1, persist=True)
    assert set(stub.configured["be_app"]) == set(stub.running["be_app"]) == {"app2"}
    assert not act(api, "remove_server", **APP1, persist=True).changed
    assert undo(api, "remove_server", change, **APP1).changed
    assert stub.configured["be_app"]["app1"] == whole
    assert state(api, "app1") == "UP"


def test_a_weight_for_good(stub: DataPlaneStub, api: HaproxyClient) -> None:
    with pytest.raises(Refused, match=r"\(say persist, or set socket in"):
        act(api, "set_weight", **APP1, weight=7)
    with pytest.raises(Refused, match="takes no percentage"):
        act(api, "set_weight", **APP1, weight="50%", persist=True)
    change = act(api, "set_weight", **APP1, weight=7, persist=True)
    assert stub.configured["be_app"]["app1"]["weight"] == stub.running["be_app"]["app1"]["weight"] == 7
    assert not act(api, "set_weight", **APP1, weight=7, persist=True).changed
    assert undo(api, "set_weight", change, **APP1).changed
    assert stub.configured["be_app"]["app1"]["weight"] == stub.running["be_app"]["app1"]["weight"] == 10


def test_an_address_for_good(stub: DataPlaneStub, api: HaproxyClient) -> None:
    change = act(api, "set_addr", **APP1, address="192.0.2.99", persist=True)
    assert stub.running["be_app"]["app1"]["address"] == "192.0.2.99"
    assert stub.configured["be_app"]["app1"]["port"] == 8001
    assert undo(api, "set_addr", change, **APP1).changed
    assert stub.running["be_app"]["app1"]["address"] == "192.0.2.10"


def test_what_is_not_in_the_file(stub: DataPlaneStub, api: HaproxyClient) -> None:
    act(api, "add_server", **NEW, check=False)
    with pytest.raises(Refused, match=r"the configuration has no server be_app/new \(was it added at run time"):
        act(api, "set_weight", backend="be_app", server="new", weight=5, persist=True)
    assert stub.open == {}


@pytest.mark.parametrize("outdated", [False, True], ids=["409", "406"])
def test_a_file_that_others_change_meanwhile(stub: DataPlaneStub, api: HaproxyClient, outdated: bool) -> None:
    stub.meddlers, stub.outdated = 3, outdated
    before = stub.file_version
    act(api, "set_weight", **APP1, weight=7, persist=True)
    assert stub.configured["be_app"]["app1"]["weight"] == 7
    begun = [path for path in stub.paths("POST") if "/transactions" in path]
    assert [path.rpartition("=")[2] for path in begun] == [str(before + n) for n in range(4)]
    assert stub.open == {}


def test_a_file_that_others_never_leave_alone(stub: DataPlaneStub, api: HaproxyClient) -> None:
    stub.meddlers = 1000
    with pytest.raises(Refused, match=r"somebody else changed the configuration 5 times .* \(try again later"):
        act(api, "set_weight", **APP1, weight=7, persist=True)
    assert stub.configured["be_app"]["app1"]["weight"] == 10
    assert stub.open == {}


def test_a_reload_that_fails_is_put_back(stub: DataPlaneStub, api: HaproxyClient) -> None:
    stub.refusal = "[ALERT] config : cannot bind socket\n [127.0.0.1:80]"
    before = dict(stub.configured["be_app"]["app1"])
    with pytest.raises(
        Refused, match=r"did not take .*, and it was put back: \[ALERT\] config : cannot bind socket \["
    ):
        act(api, "set_weight", **APP1, weight=7, persist=True)
    assert stub.configured["be_app"]["app1"] == before
    assert stub.running["be_app"]["app1"]["weight"] == 10


@pytest.mark.parametrize("action", ["add_server", "remove_server"])
def test_a_reload_that_fails_is_put_back_whole(stub: DataPlaneStub, api: HaproxyClient, action: str) -> None:
    before = {name: dict(one) for name, one in stub.configured["be_app"].items()}
    stub.refusal = "no"
    with pytest.raises(Refused, match="it was put back: no"):
        act(api, action, **(NEW if action == "add_server" else APP1), persist=True)
    assert stub.configured["be_app"] == before


def test_a_reload_that_fails_and_cannot_be_put_back(stub: DataPlaneStub, api: HaproxyClient) -> None:
    stub.refusal, stub.refuses_all = "no disk", True
    with pytest.raises(
        Refused, match=r"\(no disk\), and it could not be put back: .* \(the file differs from what runs"
    ):
        act(api, "set_weight", **APP1, weight=7, persist=True)


def test_a_reload_that_takes_too_long(stub: DataPlaneStub, api: HaproxyClient, connect: Connect) -> None:
    stub.looks = 1_000_000
    settings = api.target.model_dump(mode="json", exclude_unset=True)
    hasty = connect(dataplane=settings["dataplane"] | {"reload_timeout": 0.3})
    with pytest.raises(Timeout, match=r"has not ended in 0.3 s \(it goes on by itself"):
        act(hasty, "set_weight", **APP1, weight=7, persist=True)


def test_too_many_transactions(stub: DataPlaneStub, api: HaproxyClient) -> None:
    stub.open = {f"t{n}": (7, {}) for n in range(20)}
    with pytest.raises(Refused, match="reached the maximum amount"):
        act(api, "set_weight", **APP1, weight=7, persist=True)


def test_a_change_that_is_refused_leaves_no_transaction(stub: DataPlaneStub, api: HaproxyClient) -> None:
    configuration = api.configuration
    assert configuration is not None
    with pytest.raises(Refused, match="object app1 already exists"):
        configuration.add("be_app", "app1", {"address": "192.0.2.1", "port": 1})
    with pytest.raises(Refused, match="404"):
        configuration.add("nope", "app1", {"address": "192.0.2.1", "port": 1})
    assert stub.open == {}


def test_names_are_looked_up_and_not_followed(stub: DataPlaneStub, api: HaproxyClient) -> None:
    with pytest.raises(Refused, match="there is no backend nope"):
        api.get_servers_state("nope")
    with pytest.raises(Refused, match="has no server nope"):
        act(api, "set_server_state", backend="be_app", server="nope", state="drain")


def test_credentials_that_are_not_accepted(
    stub: DataPlaneStub, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_WRONG", "not-the-password")
    client = connect(dataplane={"url": stub.url, "username": "nms", "password": "env:TEST_WRONG"})
    with pytest.raises(AuthError, match="check username and password") as error:
        read(client)
    assert "not-the-password" not in str(error.value)


def test_something_that_is_no_data_plane_api(stub: DataPlaneStub, connect: Connect) -> None:
    login = {"username": "nms", "password": "env:TEST_DATAPLANE_PASSWORD"}
    client = connect(dataplane={"url": f"{stub.url}/elsewhere", **login})
    stub._contract = None  # paths that no description has, on purpose
    with pytest.raises(ParseError, match=r"is no Data Plane API \(check host and port"):
        read(client)


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_each_fault_of_http_has_its_outcome(connect: Connect, monkeypatch: pytest.MonkeyPatch, fault: Fault) -> None:
    monkeypatch.setenv("TEST_SECRET", "s3cr3t-t0ken-value")
    login = {"username": "nms", "password": "env:TEST_SECRET", "retry": {"attempts": 1}}
    with Site({"*": fault.route}) as site:
        limits = {"connect": 1, "read": 0.5, "total": 1}
        with pytest.raises(TargetError) as caught:
            read(connect(dataplane={"url": site.url, "timeout": limits, **login}))
    assert caught.value.outcome == fault.outcome, caught.value
    assert fault.words in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


def test_a_target_without_any_way(connect: Connect) -> None:
    with pytest.raises(ValidationError, match="set url, socket or dataplane"):
        connect()
    with pytest.raises(ValidationError, match="write url, and a target for each process"):
        connect(urls=["http://a", "http://b"])
    with pytest.raises(ValidationError, match="write url: the Data Plane API of this one"):
        connect(dataplane={"urls": ["http://a", "http://b"]})
