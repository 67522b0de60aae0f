"""What vendors give as examples in their own descriptions, mounted in place of a server: our clients read them right.

No stub of ours stands between: a field that we misread, or a request that the vendor does not describe, fails here.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import responses

from nms_workers.errors import Refused
from nms_workers.records import Entity, Event, Sample
from nms_workers.services.gns3.client import Gns3Client
from nms_workers.services.gns3.target import Gns3Target
from nms_workers.services.prometheus.client import PrometheusClient
from nms_workers.services.prometheus.service import Prometheus
from nms_workers.services.prometheus.target import PrometheusTarget
from tests.contract.vendor import SPECS, description

PROMETHEUS, GNS3 = "http://prometheus.example:9090", "http://gns3.example:3080"


@pytest.fixture
def mounted() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


class TestPrometheus:
    """The description of Prometheus 3 has an example of every answer."""

    def examples(self, path: str, code: str = "200", method: str = "get") -> list[Any]:
        answers = description("prometheus/openapi_3.1.yaml")["paths"][path][method]["responses"]
        return [one["value"] for one in answers[code]["content"]["application/json"]["examples"].values()]

    @pytest.fixture
    def client(self, mounted: responses.RequestsMock) -> Iterator[PrometheusClient]:
        for path, methods in description("prometheus/openapi_3.1.yaml")["paths"].items():
            for method in {"get", "post"} & methods.keys():
                content = methods[method]["responses"].get("200", {}).get("content", {})
                if "application/json" in content and "{" not in path:
                    mounted.add(
                        method.upper(), f"{PROMETHEUS}/api/v1{path}", json=self.examples(path, method=method)[0]
                    )
        client = PrometheusClient(PrometheusTarget(url=PROMETHEUS))
        yield client
        client.close()

    def test_values_of_queries(self, mounted: responses.RequestsMock, client: PrometheusClient) -> None:
        for answer in self.examples("/query", method="post"):
            mounted.upsert("POST", f"{PROMETHEUS}/api/v1/query", json=answer)
            found, told = client.query("up"), answer["data"]["result"]
            assert found.kind == answer["data"]["resultType"]
            if found.kind in {"scalar", "string"}:
                told = [{"metric": {}, "values": [told]}] if found.kind == "scalar" else []
            points = [one.get("values") or ([one["value"]] if "value" in one else []) for one in told]
            assert [(row.labels, row.points) for row in found.rows] == [
                (one["metric"], [(moment, float(value)) for moment, value in its])
                for one, its in zip(told, points, strict=True)
            ]

    def test_the_head(self, client: PrometheusClient) -> None:
        told = self.examples("/status/tsdb")[0]["data"]["headStats"]
        samples = {one.metric: one.value for one in Prometheus.polls()["tsdb"].run(client) if isinstance(one, Sample)}
        assert samples["prometheus_head_series"] == told["numSeries"]
        assert samples["prometheus_head_chunks"] == told["chunkCount"]
        assert samples["prometheus_head_oldest_timestamp_seconds"] == told["minTime"] / 1000

    def test_targets_and_alerts(self, client: PrometheusClient) -> None:
        targets = [one for one in Prometheus.polls()["targets"].run(client) if isinstance(one, Entity)]
        assert len(targets) == len(self.examples("/targets")[0]["data"]["activeTargets"]) > 0
        alerts = [one for one in Prometheus.polls()["alerts"].run(client) if isinstance(one, Event)]
        told = self.examples("/alerts")[0]["data"]["alerts"]
        assert len(alerts) == len([one for one in told if one["state"] == "firing"]) > 0

    def test_rules(self, client: PrometheusClient) -> None:
        told = self.examples("/rules")[0]["data"]["groups"]
        page = client.get_rules()
        assert [(group.name, [rule.name for rule in group.rules or []]) for group in page.groups] == [
            (group["name"], [rule["name"] for rule in group["rules"]]) for group in told
        ]

    @pytest.mark.parametrize("path", ["/targets", "/rules", "/alerts", "/status/tsdb"])
    def test_its_errors(self, path: str, mounted: responses.RequestsMock, client: PrometheusClient) -> None:
        error = self.examples(path, "default")[0]
        mounted.upsert("GET", f"{PROMETHEUS}/api/v1{path}", json=error, status=503)
        read = {
            "/targets": client.get_targets,
            "/rules": client.get_rules,
            "/alerts": client.get_alerts,
            "/status/tsdb": client.get_tsdb,
        }[path]
        with pytest.raises(Refused, match=re.escape(error["error"])):
            read()


class TestGns3:
    """GNS3 2.2 documents its API by recorded exchanges."""

    def recorded(self, name: str) -> tuple[str, Any]:
        """Path and answer of one recorded exchange."""
        path: Path = SPECS / "gns3" / "examples" / f"controller_get_{name}.txt"
        if not path.exists():
            pytest.skip(f"the vendor's examples are not in {SPECS} (NMS_SPECS_DIR)")
        asked, answered = path.read_text(encoding="utf-8").split("HTTP/1.1 200", 1)
        found = re.search(r"^GET (\S+) HTTP", asked, re.MULTILINE)
        assert found, path
        return found[1], json.loads(answered.split("\n\n", 1)[1])

    @pytest.fixture
    def client(self, mounted: responses.RequestsMock) -> Iterator[Gns3Client]:
        for name in (
            "version",
            "computes",
            "projects",
            "projectsprojectidnodes",
            "projectsprojectidlinks",
            "templates",
        ):
            path, answer = self.recorded(name)
            mounted.add("GET", f"{GNS3}{path}", json=answer)
        mounted.add("GET", f"{GNS3}/v3/version", status=404, json={"message": "Not Found"})
        client = Gns3Client(Gns3Target(url=GNS3))
        yield client
        client.close()

    def test_what_it_lists(self, client: Gns3Client) -> None:
        assert client.get_version().version == self.recorded("version")[1]["version"]
        assert [one.compute_id for one in client.get_computes()] == [
            one["compute_id"] for one in self.recorded("computes")[1]
        ]
        assert [str(one.project_id) for one in client.get_projects()] == [
            one["project_id"] for one in self.recorded("projects")[1]
        ]
        assert [str(one.template_id) for one in client.get_templates()] == [
            one["template_id"] for one in self.recorded("templates")[1]
        ]

    def test_nodes_and_links_of_a_project(self, client: Gns3Client) -> None:
        path, told = self.recorded("projectsprojectidnodes")
        nodes = client.get_nodes(UUID(path.split("/")[3]))
        assert [(str(one.node_id), one.name, one.status, one.node_type) for one in nodes] == [
            (one["node_id"], one["name"], one["status"], one["node_type"]) for one in told
        ]
        path, told = self.recorded("projectsprojectidlinks")
        links = client.get_links(UUID(path.split("/")[3]))
        assert [str(one.link_id) for one in links] == [one["link_id"] for one in told]
