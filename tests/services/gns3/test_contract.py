"""What is emitted is what `metrics.csv` declares; what is sent is what version 3 describes of itself."""

import requests
from openapi_core import Config, OpenAPI
from openapi_core.contrib.requests import RequestsOpenAPIRequest

from nms_workers.services.gns3.client import Gns3Client
from nms_workers.services.gns3.service import Gns3
from tests.conftest import StartServer
from tests.metric_contract import never_emitted, undeclared
from tests.services.gns3.conftest import Connect
from tests.services.gns3.support import Plain, act, read, two_linked


def test_what_is_emitted_and_what_is_declared(client: Gns3Client) -> None:
    two_linked(client)
    records = [record for poll in Gns3.polls() for record in read(client, poll)]
    assert undeclared(Gns3, records) == []
    assert never_emitted(Gns3, records) == []


def everything(client: Gns3Client) -> None:
    """Every poll and every action once."""
    two_linked(client)
    ends = {"project": "lab", "a": "PC1", "b": "PC2"}
    act(client, "create_node", project="lab", node="T1", template="VPCS")
    act(client, "start_node", project="lab", stagger=0)
    act(client, "start_capture", **ends)
    act(client, "stop_capture", **ends)
    act(client, "reload_node", project="lab", nodes=["PC1"])
    for poll in Gns3.polls():
        read(client, poll)
    act(client, "stop_node", project="lab")
    act(client, "create_snapshot", project="lab", snapshot="one")
    act(client, "restore_snapshot", project="lab", snapshot="one")
    act(client, "duplicate_project", source="lab", project="lab 2")
    act(client, "delete_link", **ends)
    act(client, "delete_node", project="lab", node="PC1")
    act(client, "close_project", project="lab")
    act(client, "open_project", project="lab")
    act(client, "delete_project", project="lab")


def test_every_request_is_as_the_server_describes(
    session_server: StartServer, connect: Connect, sent: list[requests.PreparedRequest]
) -> None:
    server = session_server("gns3-3.0", "gns3")
    Plain(server).clear()
    described = requests.get(f"{server.url}/openapi.json", timeout=30).json()
    described["servers"] = [{"url": server.url}]
    description = OpenAPI.from_dict(described, config=Config(spec_validator_cls=None))
    everything(connect(server))
    Plain(server).clear()

    for request in sent:
        description.validate_request(RequestsOpenAPIRequest(request))
    verbs = {(str(one.url).rpartition("/")[2], one.method) for one in sent}
    assert {(verb, "POST") for verb in ("start", "stop", "reload", "restore", "duplicate", "open", "close")} < verbs
