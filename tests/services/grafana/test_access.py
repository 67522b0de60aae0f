"""Who asks, as whom, and where: credentials, organisations, sub-paths, and what is no Grafana."""

import pytest

from nms_workers.errors import AuthError, ParseError, Refused, Timeout, Unreachable
from nms_workers.services.grafana.service import Grafana
from tests.services.grafana.conftest import Connect, Start
from tests.services.grafana.support import fill, read, read_until_error
from tests.services.records import entities, value
from tests.stubs.grafana import Account, GrafanaStub
from tests.transport.sites import Call, Site

POLLS = [name for name in Grafana.polls() if name != "health"]


@pytest.mark.parametrize("poll", POLLS)
@pytest.mark.parametrize(
    "login",
    [
        {"token": "env:TEST_WRONG"},
        {"username": "admin", "password": "env:TEST_WRONG"},
        {"username": "nobody", "password": "env:TEST_GRAFANA_PASSWORD"},
    ],
    ids=["token", "password", "user"],
)
def test_credentials_that_are_not_accepted(
    grafana: GrafanaStub, connect: Connect, monkeypatch: pytest.MonkeyPatch, poll: str, login: dict[str, str]
) -> None:
    monkeypatch.setenv("TEST_WRONG", "glsa_not_this_one")
    with pytest.raises(AuthError, match="check username and password, or the token") as error:
        read(connect(grafana, **{"token": None} | login), poll)
    assert "glsa_not_this_one" not in str(error.value)
    assert "s3cret" not in str(error.value)


def test_health_needs_no_credentials(grafana: GrafanaStub, connect: Connect) -> None:
    assert value(read(connect(grafana, token=None), "health"), "grafana_database_up") == 1


@pytest.mark.parametrize("poll", ["datasources", "users"])
def test_a_role_that_may_not(grafana: GrafanaStub, connect: Connect, poll: str) -> None:
    grafana.accounts[1].roles = {1: "Viewer"}
    with pytest.raises(Refused, match=r"Permissions needed.*give the service account or user a role that has it"):
        read(connect(grafana), poll)


def test_an_organisation_beside_the_first(grafana: GrafanaStub, connect_admin: Connect) -> None:
    fill(grafana)
    grafana.orgs[7] = "Branch"
    grafana.accounts[0].roles[7] = "Admin"
    grafana.add_dashboard("far", "Far away", org=7)
    client = connect_admin(grafana, org_id=7)
    assert entities(read(client, "organisation"), "organisation") == {"7": {"name": "Branch"}}
    assert set(entities(read(client, "dashboards"), "dashboard")) == {"far"}
    assert {one.headers["X-Grafana-Org-Id"] for one in grafana.seen} == {"7"}
    read(connect_admin(grafana), "organisation")
    assert "X-Grafana-Org-Id" not in grafana.seen[-1].headers


def test_below_a_path(start: Start, connect: Connect) -> None:
    stub = start(12, path="/monitoring/grafana")
    fill(stub)
    client = connect(stub)
    for poll in ("health", "dashboards", "datasources", "alerts"):
        assert read(client, poll), poll
    assert len(client.get_dashboard("hosts").dashboard) > 3


def test_the_path_was_forgotten(start: Start, connect: Connect) -> None:
    stub = start(12, path="/grafana")
    bare = stub.url.removesuffix("/grafana")
    with pytest.raises(Refused, match=r"has moved to .*/grafana/api/health.*set url to that place"):
        read(connect(stub, url=bare), "health")


@pytest.mark.parametrize(
    ("status", "body"),
    [(404, b"no such page"), (200, b'{"status": "ok"}'), (200, b"[1]"), (404, b'{"message": "Not found"}')],
    ids=["404", "another shape", "a list", "404 with words"],
)
def test_what_is_no_grafana(connect: Connect, grafana: GrafanaStub, status: int, body: bytes) -> None:
    with (
        Site({"*": lambda call: call.answer(status, body)}) as site,
        pytest.raises(ParseError, match=r"is no Grafana.*check host, port and path of the url"),
    ):
        read(connect(grafana, url=site.url), "health")


def test_a_login_page_in_front_of_it(connect: Connect, grafana: GrafanaStub) -> None:
    page = b'<!doctype html><form><input name="p" type="password"></form>'
    with Site({"*": lambda call: call.answer(body=page)}) as site, pytest.raises(AuthError, match="login page"):
        read(connect(grafana, url=site.url), "dashboards")
    moved = {"*": lambda call: call.answer(302, Location="/login?redirectTo=%2F")}
    with Site(moved) as site, pytest.raises(AuthError, match="login page"):
        read(connect(grafana, url=site.url), "dashboards")


def _proxy_without_grafana(call: Call) -> None:
    if call.path.endswith("/health"):
        call.answer(503, b"<html>no upstream</html>")
    else:
        call.answer(body=b'[{"uid": "a", "name": "a", "type": "x"}]')


def test_grafana_goes_away_while_data_sources_are_asked(connect: Connect, grafana: GrafanaStub) -> None:
    """That says nothing of the data source."""
    with Site({"*": _proxy_without_grafana}) as site:
        records, error = read_until_error(connect(grafana, url=site.url), "datasources")
    assert isinstance(error, Unreachable)
    assert entities(records, "datasource") == {}


def test_an_answer_larger_than_allowed(grafana: GrafanaStub, connect: Connect) -> None:
    for number in range(50):
        grafana.add_dashboard(f"d{number}", f"Dashboard {number}")
    with pytest.raises(ParseError, match="raise max_body"):
        read(connect(grafana, max_body=1000), "dashboards")


def test_a_stall_ends_in_time(connect: Connect, grafana: GrafanaStub) -> None:
    with Site({"*": Call.stall}) as site, pytest.raises(Timeout):
        read(connect(grafana, url=site.url, timeout={"read": 0.3, "total": 0.5}), "alerts")


def test_who_is_in_two_organisations_sees_one_at_a_time(grafana: GrafanaStub, connect: Connect) -> None:
    grafana.orgs[2] = "Two"
    grafana.accounts.append(Account("both", password="x", roles={1: "Admin", 2: "Viewer"}))
    users = entities(read(connect(grafana), "users"), "user")
    assert {one["login"]: one["role"] for one in users.values()} == {"admin": "Admin", "both": "Admin"}
