"""What the library says of a real engine."""

import time

import docker

from nms_workers.services.docker.client import DockerClient
from tests.services.docker.support import make
from tests.services.records import await_true, value


def test_version_and_info(client: DockerClient, plain: docker.APIClient) -> None:
    about = plain.version()
    found = client.get_version()
    assert (found.version, found.api, found.product) == (about["Version"], about["ApiVersion"], "Docker")
    assert client.get_docker_info()["ID"] == plain.info()["ID"]


def test_logs_of_both_streams_with_their_times(client: DockerClient, plain: docker.APIClient) -> None:
    key = make(plain, "talks", command=["sh", "-c", "echo one; echo two >&2; printf three"])
    plain.wait(key)
    lines = client.get_service_logs("talks")
    assert {(one.stream, one.text) for one in lines} == {("stdout", "one"), ("stderr", "two"), ("stdout", "three")}
    assert all(one.at > 1_600_000_000_000_000_000 and not one.cut for one in lines)
    assert [one.text for one in client.get_service_logs("talks", tail=1)] == [lines[-1].text]
    after = list(client.read_logs("talks", since=lines[-1].at))
    assert after[-1].text == lines[-1].text
    assert len(after) < 3


def test_a_log_with_a_terminal(client: DockerClient, plain: docker.APIClient) -> None:
    plain.wait(make(plain, "tty", command=["sh", "-c", "echo one; echo two >&2"], tty=True))
    assert [(one.stream, one.text) for one in client.get_service_logs("tty")] == [("stdout", "one"), ("stdout", "two")]


def test_services_are_found_by_their_labels(client: DockerClient, plain: docker.APIClient) -> None:
    named = {"nms.service.name": "prom", "nms.service.type": "prometheus", "nms.service.port": "9090"}
    make(plain, "web", labels={"nms.service": "true"} | named | {"nms.service.target.timeout": "5"})
    make(plain, "other", labels={})
    (found,) = client.discover_services()
    assert (found.container, found.name, found.type, found.port) == ("web", "prom", "prometheus", 9090)
    assert found.settings == {"timeout": "5"}
    inspected = plain.inspect_container("web")["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    assert found.addresses == {"bridge": inspected}


def test_health_of_all(client: DockerClient, plain: docker.APIClient) -> None:
    check = {"test": ["CMD-SHELL", "echo why; exit 1"], "interval": 300_000_000, "retries": 1}
    make(plain, "ill", healthcheck=check)
    make(plain, "well")
    make(plain, "off", start=False)
    await_true(lambda: plain.inspect_container("ill")["State"]["Health"]["Status"] == "unhealthy")
    found = {one.container: one for one in client.health_check_all()}
    assert {name: one.healthy for name, one in found.items()} == {"ill": False, "well": None, "off": False}
    assert found["ill"].failing_streak >= 1
    assert found["ill"].output == "why\n"


def test_events(client: DockerClient, plain: docker.APIClient) -> None:
    key = make(plain, "web")
    events = [one for one in client.events(0, until=time.time_ns()) if one.actor.id == key]
    assert [one.action for one in events] == ["create", "start"]
    assert events[0].name == "web"
    assert events[0].at < events[1].at


def test_a_log_that_is_followed_ends_with_its_container(client: DockerClient, plain: docker.APIClient) -> None:
    make(plain, "talks", command=["sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.2; done; head -c 300000 /dev/zero"])
    lines = list(client.read_logs("talks", follow=True))
    assert [one.text for one in lines[:3]] == ["1", "2", "3"]
    assert sum(len(one.text) for one in lines[3:]) <= 300_000
    assert not plain.inspect_container("talks")["State"]["Running"]


def test_events_as_they_happen(client: DockerClient, plain: docker.APIClient) -> None:
    began = client.now()
    happened = client.events(began)
    key = make(plain, "web")
    seen: list[str] = []
    for one in happened:
        seen += [one.action] if one.actor.id == key else []
        if one.action == "start":
            break
    assert seen == ["create", "start"]


def test_the_metrics_of_one(client: DockerClient, plain: docker.APIClient) -> None:
    make(plain, "web")
    told = client.get_service_metrics("web")
    assert value(told, "docker_container_running", container="web") == 1
    assert value(told, "docker_container_processes", container="web") >= 1
