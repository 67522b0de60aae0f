"""Making data sources: twice is as once, others are left alone, and no secret is shown or kept."""

from typing import Any

import pytest

from nms_workers.errors import ConfigError, Refused
from nms_workers.jobs.wish import Wish, checked
from nms_workers.services.grafana.client import GrafanaClient
from nms_workers.services.grafana.service import Grafana
from tests.services.grafana.conftest import Connect
from tests.services.grafana.support import SECRET, SOURCE, act, twice, undo
from tests.stubs.grafana import GrafanaStub


def test_a_new_data_source_and_back(filled: GrafanaStub, client: GrafanaClient) -> None:
    change = twice(client, "create_datasource", **SOURCE)
    made = filled.sources["prom-eu"]
    assert (made["name"], made["url"], made["basicAuth"]) == ("Prometheus EU", "http://prom.example:9090", True)
    assert made["jsonData"] == SOURCE["json_data"]
    assert filled.secrets["prom-eu"] == {"basicAuthPassword": SECRET}
    assert change.after["secrets"] == ["basicAuthPassword"]
    assert SECRET not in repr(change)
    assert undo(client, "create_datasource", SOURCE, change).changed
    assert "prom-eu" not in filled.sources
    assert not undo(client, "create_datasource", SOURCE, change).changed


def test_what_is_kept_of_a_job_is_the_reference() -> None:
    wish = Wish("grafana", "create_datasource", "g", SOURCE, "ann")
    typed, kept = checked(wish, Grafana.actions()["create_datasource"])
    assert kept["secure_json_data"] == {"basicAuthPassword": "env:TEST_PROM_PASSWORD"}
    assert SECRET not in repr((typed, kept))


@pytest.mark.parametrize(
    ("other", "differs"),
    [
        ({"url": "http://elsewhere:9090"}, "url"),
        ({"json_data": {"httpMethod": "GET"}}, "jsonData.httpMethod"),
        ({"uid": "another"}, "uid"),
        ({"name": "Another"}, "name"),
        ({"is_default": True}, "isDefault"),
        ({"secure_json_data": {"httpHeaderValue1": "env:TEST_PROM_PASSWORD"}}, "secureJsonData.httpHeaderValue1"),
    ],
)
def test_a_data_source_that_differs_is_left_alone(
    grafana: GrafanaStub, connect: Connect, other: dict[str, Any], differs: str
) -> None:
    client = connect(grafana)
    act(client, "create_datasource", **SOURCE)
    was = dict(grafana.sources["prom-eu"])
    with pytest.raises(Refused, match=f"'Prometheus EU' is there, and differs in {differs}"):
        act(client, "create_datasource", **SOURCE | other)
    assert grafana.sources["prom-eu"] == was


def test_a_secret_that_grafana_repeats_is_not_shown(client: GrafanaClient) -> None:
    with pytest.raises(Refused, match=r"Validation error.*\*\*\*") as error:
        act(client, "create_datasource", **SOURCE | {"url": "http://refuse-me"})
    assert SECRET not in str(error.value)


def test_a_secret_that_cannot_be_read(filled: GrafanaStub, client: GrafanaClient) -> None:
    asked = SOURCE | {"secure_json_data": {"basicAuthPassword": "env:TEST_NOT_SET"}}
    with pytest.raises(ConfigError, match="TEST_NOT_SET is not set"):
        act(client, "create_datasource", **asked)
    assert "prom-eu" not in filled.sources


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"json_data": {"basicAuthPassword": "x"}}, "readable by everybody: use secure_json_data"),
        ({"json_data": {"apiToken": "x"}}, "readable by everybody"),
        ({"json_data": {"a": [{"client_secret": "x"}]}}, "client_secret would be readable by everybody"),
        ({"secure_json_data": {"basicAuthPassword": "plain"}}, "secure_json_data"),
        ({"url": "http://nms:hush@prom:9090"}, "must not carry credentials"),
        ({"type": "../x"}, "type"),
        ({"name": ".."}, "name"),
        ({"access": "root"}, "access"),
    ],
)
def test_what_no_data_source_may_have(other: dict[str, Any], why: str) -> None:
    with pytest.raises(Refused, match=why) as error:
        Grafana.actions()["create_datasource"].validate(SOURCE | other)
    assert "hush" not in str(error.value)
    assert "plain" not in str(error.value)


def test_a_data_source_from_a_file_is_not_deleted(filled: GrafanaStub, client: GrafanaClient) -> None:
    filled.sources["prom"]["readOnly"] = True
    with pytest.raises(Refused, match=r"read-only \(it comes from a file"):
        act(client, "delete_datasource", name="prom")
    assert "prom" in filled.sources
