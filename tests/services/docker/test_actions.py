"""What actions do to containers of a real engine, seen by the vendor's client and in the kernel's control groups."""

from typing import Any

import docker
import pytest

from nms_workers.errors import Refused
from nms_workers.jobs.preview import tried
from nms_workers.services.docker.client import DockerClient
from nms_workers.services.docker.failures import NotThere
from nms_workers.services.docker.service import Docker
from tests.servers import DockerServer
from tests.services.docker.conftest import Connect
from tests.services.docker.support import act, image, make


def state(api: docker.APIClient, name: str) -> dict[str, Any]:
    return dict(api.inspect_container(name)["State"])


def test_start_and_stop(client: DockerClient, plain: docker.APIClient) -> None:
    make(plain, "web", start=False)
    change = act(client, "start", container="web")
    assert (change.changed, change.before["state"], change.after["state"]) == (True, "created", "running")
    assert state(plain, "web")["Running"]
    assert not act(client, "start", container="web").changed
    assert act(client, "stop", container="web").after["state"] == "exited"
    assert not state(plain, "web")["Running"]
    assert not act(client, "stop", container="web").changed


def test_restart(client: DockerClient, plain: docker.APIClient) -> None:
    make(plain, "web")
    began = state(plain, "web")["StartedAt"]
    change = act(client, "restart", container="web", grace=1)
    assert change.before["started_at"] == began
    assert change.after["started_at"] == state(plain, "web")["StartedAt"] != began


def test_a_start_that_does_not_last_is_no_start(client: DockerClient, plain: docker.APIClient) -> None:
    make(plain, "falls", start=False, command=["sh", "-c", "echo no configuration; exit 4"])
    with pytest.raises(Refused, match="falls ended at once with exit code 4; its last words: no configuration"):
        act(client, "start", container="falls")


def test_a_restart_that_waits_for_health(client: DockerClient, plain: docker.APIClient) -> None:
    check = {"test": ["CMD-SHELL", "echo ill; exit 1"], "interval": 200_000_000, "retries": 2}
    make(plain, "ill", healthcheck=check)
    with pytest.raises(Refused, match="ill is unhealthy; its last words: ill"):
        act(client, "restart", container="ill", grace=1, healthy=20)


def test_pause_and_unpause(client: DockerClient, plain: docker.APIClient) -> None:
    make(plain, "web")
    assert not act(client, "unpause", container="web").changed
    assert act(client, "pause", container="web").after["state"] == "paused"
    assert state(plain, "web")["Paused"]
    assert not act(client, "pause", container="web").changed
    assert act(client, "unpause", container="web").after["state"] == "running"
    assert not state(plain, "web")["Paused"]


def test_limits_are_in_force(client: DockerClient, plain: docker.APIClient, engine: DockerServer) -> None:
    key = make(plain, "web", host={"mem_limit": "64m"})
    change = act(client, "set_limits", container="web", memory="256m", cpus=0.5, pids=33)
    assert change.before == {"memory": 64 << 20, "cpus": 0.0, "pids": 0}
    assert change.after == {"memory": 256 << 20, "cpus": 0.5, "pids": 33}
    assert engine.limit(key, "memory", "memory.limit_in_bytes") == str(256 << 20)
    period = int(engine.limit(key, "cpu", "cpu.cfs_period_us"))
    assert int(engine.limit(key, "cpu", "cpu.cfs_quota_us")) == period // 2
    assert engine.limit(key, "pids", "pids.max") == "33"
    assert not act(client, "set_limits", container="web", memory="256m").changed

    back = act(client, "restore_limits", container="web", before=change.before)
    assert back.after["memory"] == 64 << 20
    assert engine.limit(key, "memory", "memory.limit_in_bytes") == str(64 << 20)
    assert engine.limit(key, "pids", "pids.max") == "max"
    assert int(engine.limit(key, "cpu", "cpu.cfs_quota_us")) >= period * plain.info()["NCPU"]  # all of them


def test_limits_of_one_whose_cpus_were_given_as_a_quota(
    client: DockerClient, plain: docker.APIClient, engine: DockerServer
) -> None:
    key = make(plain, "web", host={"cpu_quota": 20_000, "cpu_period": 50_000})
    change = act(client, "set_limits", container="web", cpus=1.5)
    assert (change.before["cpus"], change.after["cpus"]) == (0.4, 1.5)
    assert engine.limit(key, "cpu", "cpu.cfs_quota_us") == "75000"


def test_what_we_may_not_act_on(connect: Connect, engine: DockerServer, plain: docker.APIClient) -> None:
    make(plain, "foreign", labels={})
    make(plain, "worker")
    make(plain, "beat", labels={"nms.service": "true", "nms.fleet": "true"})
    client = connect(url=engine.url, own=("worker",))
    with pytest.raises(Refused, match=r"foreign does not carry the label nms\.service=true"):
        act(client, "stop", container="foreign")
    for name in ("worker", "beat"):
        with pytest.raises(Refused, match=rf"{name} is a container of the fleet itself \(give own = true"):
            act(client, "stop", container=name, grace=1)
        assert state(plain, name)["Running"]
        assert act(client, "stop", container=name, grace=1, own=True).changed
    assert state(plain, "foreign")["Running"]
    free = connect(url=engine.url, act_on_unlabelled=True)
    assert act(free, "stop", container="foreign", grace=1).changed
    with pytest.raises(NotThere, match="No such container"):
        act(free, "stop", container="nobody")


def test_names_that_lead_elsewhere(client: DockerClient) -> None:
    for name in ("../volumes", "web/json?x=", "-rf", "", "web\n", "wéb"):
        with pytest.raises(Refused, match="container"):
            act(client, "stop", container=name)


def test_exec_is_off_unless_it_is_allowed(connect: Connect, engine: DockerServer, plain: docker.APIClient) -> None:
    make(plain, "web")
    with pytest.raises(Refused, match=r"switched off \(set allow_exec = true"):
        act(connect(url=engine.url), "exec", container="web", command=["true"])
    client = connect(url=engine.url, allow_exec=True)
    change = act(client, "exec", container="web", command=["sh", "-c", "echo out; echo err >&2; pwd"], folder="/tmp")
    assert change.after == {"exit_code": 0, "cut": False, "stdout": "out\n/tmp\n", "stderr": "err\n"}
    with pytest.raises(Refused, match="cat in web ended with 1: cat: can't open '/no'"):
        act(client, "exec", container="web", command=["cat", "/no"])
    many = act(client, "exec", container="web", command=["head", "-c", "300000", "/dev/zero"])
    assert many.after["cut"] is True
    assert len(many.after["stdout"]) == 32_768
    with pytest.raises(Refused, match="writes more than"):
        act(client, "exec", container="web", command=["yes"])


def test_prune_takes_what_its_dry_run_shows(client: DockerClient, plain: docker.APIClient) -> None:
    make(plain, "ended", command=["true"])
    plain.wait("ended")
    make(plain, "foreign", command=["true"], labels={})
    plain.wait("foreign")
    make(plain, "runs")
    plain.create_volume("unused", labels={"nms.service": "true"})
    plain.create_volume("precious")
    plain.create_network("empty", labels={"nms.service": "true"})
    first = image(plain, "app:1", "ENV A=1")
    image(plain, "app:1", "ENV A=2")  # the first lost its name
    kinds = ["containers", "images", "volumes", "networks"]
    shown = act_dry(client, kinds)
    assert shown == {
        "containers": ["ended"], "images": [first[:19]], "networks": ["empty"], "volumes": ["unused"],
    }  # fmt: skip
    assert act_dry(client, kinds) == shown
    change = act(client, "prune", kinds=kinds, hours=0)
    assert change.before == change.after["removed"] == shown
    assert {one["Names"][0] for one in plain.containers(all=True)} == {"/foreign", "/runs"}
    assert {one["Name"] for one in plain.volumes()["Volumes"]} == {"precious"}
    assert not plain.networks(names=["empty"])
    assert first not in {one["Id"] for one in plain.images()}
    assert not act(client, "prune", kinds=kinds, hours=0).changed


def act_dry(client: DockerClient, kinds: list[str]) -> dict[str, Any]:
    declared = Docker.actions()["prune"]
    change = declared.run(client, **declared.validate({"kinds": kinds, "hours": 0}), dry_run=True)
    assert change.changed
    return dict(change.before)


def test_prune_leaves_what_is_young(client: DockerClient, plain: docker.APIClient) -> None:
    make(plain, "ended", command=["true"])
    plain.wait("ended")
    assert not act(client, "prune", kinds=["containers"], hours=1).changed


def test_a_dry_run_changes_nothing(client: DockerClient, plain: docker.APIClient) -> None:
    make(plain, "web")
    make(plain, "off", start=False)
    plain.pause(make(plain, "frozen"))
    plain.create_network("seg", labels={"nms.service": "true"})
    plain.create_network("second")
    plain.connect_container_to_network("web", "second")
    plain.create_volume("data", labels={"nms.service": "true"})
    newer = image(plain, "newer:1", "ENV A=2")
    web, seg = {"container": "web"}, {"network": "seg"}
    each: dict[str, dict[str, Any]] = {
        "restart": web, "start": {"container": "off"}, "stop": web, "pause": web,
        "unpause": {"container": "frozen"}, "set_limits": web | {"pids": 9},
        "restore_limits": web | {"before": {"memory": 0, "cpus": 0, "pids": 9}},
        "pull_and_recreate": web | {"image": "newer:1", "pull": False},
        "restore_image": web | {"before": {"image_id": newer}},
        "ensure_network": {"network": "new"}, "remove_network": seg, "connect": web | seg,
        "disconnect": web | {"network": "second"}, "ensure_volume": {"volume": "new"},
        "remove_volume": {"volume": "data"},
    }  # fmt: skip
    before = everything(plain)
    for name, arguments in each.items():
        declared = Docker.actions()[name]
        change = tried(declared, lambda: client, declared.validate(arguments))
        assert change is not None, name
        assert change.changed, f"{name}: {change.message}"
        assert everything(plain) == before, name
    elsewhere = {"exec", "prune", "backup_volume", "restore_volume", "restore_previous", "verify_backup"}
    assert each.keys() | elsewhere == Docker.actions().keys()


def everything(api: docker.APIClient) -> dict[str, Any]:
    containers = {one["Names"][0]: (one["Id"], one["State"]) for one in api.containers(all=True)}
    places = {
        name: sorted(api.inspect_container(key)["NetworkSettings"]["Networks"]) for name, (key, _) in containers.items()
    }
    limits = [api.inspect_container("web")["HostConfig"][name] for name in ("Memory", "NanoCpus", "PidsLimit")]
    networks = sorted(one["Name"] for one in api.networks())
    volumes = sorted(one["Name"] for one in api.volumes()["Volumes"])
    return {"containers": containers, "places": places, "limits": limits, "networks": networks, "volumes": volumes}
