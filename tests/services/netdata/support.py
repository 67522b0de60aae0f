"""How the tests of this service read, act, and find out what is true."""

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

import requests

from nms_workers.change import Change
from nms_workers.records import Record, SampleBlock
from nms_workers.services.netdata.client import NetdataClient
from nms_workers.services.netdata.service import Netdata
from tests.contract.vendor import Contract, description

SECONDS = 30.0


def read(client: NetdataClient, poll: str) -> list[Record]:
    """Every record of one run of a poll."""
    return list(Netdata.polls()[poll].run(client))


def act(client: NetdataClient, action: str, **arguments: Any) -> Change:
    """Run an action as a job does: its arguments come as JSON and are validated."""
    declared = Netdata.actions()[action]
    return declared.run(client, **declared.validate(arguments))


def charts(records: Iterable[Record]) -> dict[tuple[str, str, str], float]:
    """The values of chart dimensions by node, chart and dimension; fails when one is there twice."""
    found: dict[tuple[str, str, str], float] = {}
    for record in records:
        if isinstance(record, SampleBlock):
            for series, number in zip(record.layout.members, record.values, strict=True):
                labels = dict(series.labels)
                key = labels["node"], labels["chart"], labels["dimension"]
                assert key not in found
                found[key] = float(number)
    return found


def plain(url: str, path: str) -> Any:
    """The JSON at a path, without our code."""
    answer = requests.get(f"{url}{path}", timeout=SECONDS)
    assert answer.ok, f"{path}: {answer.status_code} {answer.text[:500]}"
    return answer.json()


def contract() -> Contract:
    """What Netdata says of its API; skips the test where that is not there.

    It wants an answer of `data` to have exactly one of two shapes, of which the one allows whatever the other does.
    """
    said = deepcopy(description("netdata/netdata-swagger.yaml"))
    schema = said["paths"]["/api/v3/data"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    schema["anyOf"] = schema.pop("oneOf")
    return Contract(said)
