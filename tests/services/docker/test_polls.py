"""What the polls tell of a real engine, against what it says itself and what the kernel says."""

import time

import docker
import psutil
import pytest

from nms_workers.errors import Refused
from nms_workers.records import Entity, Event, Link, Record
from nms_workers.services.docker.client import DockerClient
from nms_workers.services.docker.service import Docker
from tests.conftest import StartServer
from tests.metric_contract import never_emitted, undeclared
from tests.servers import DockerServer
from tests.servers.docker import IMAGE
from tests.services.docker.conftest import Connect
from tests.services.docker.support import make, read
from tests.services.records import await_true, events, value, values

ILL = {"test": ["CMD-SHELL", "echo not so well; exit 1"], "interval": 200_000_000, "retries": 1}

# What the engine of the tests never tells, and why.
NEVER = {
    "docker_storage_pool_bytes": "of the storage driver devicemapper",
    "docker_storage_pool_block_size_bytes": "of the storage driver devicemapper",
    "docker_container_memory_events_total": "of control groups version 2",
    "docker_container_memory_limit_hits_total": "left out by the engine while it is 0",
    "docker_container_blkio_bytes_total": "of a kernel that counts block I/O for control groups version 1",
    "docker_container_blkio_operations_total": "the same",
    "docker_container_blkio_queued_operations": "the same",
    "docker_container_blkio_service_seconds_total": "the same",
    "docker_container_blkio_wait_seconds_total": "the same",
    "docker_container_blkio_merged_operations_total": "the same",
    "docker_container_blkio_busy_seconds_total": "the same",
    "docker_container_blkio_sectors_total": "the same",
    "docker_swarm_nodes": "of a manager of a swarm: test_a_swarm",
    "docker_swarm_managers": "the same",
    "docker_swarm_service_tasks_desired": "the same",
    "docker_swarm_service_tasks_running": "the same",
}


def entities(records: list[Record], kind: str) -> dict[str, Entity]:
    return {one.key: one for one in records if isinstance(one, Entity) and one.kind == kind}


def test_what_is_emitted_and_what_is_declared(client: DockerClient, plain: docker.APIClient) -> None:
    plain.create_volume("data")
    make(plain, "web", healthcheck=ILL, host={"mem_limit": "64m", "pids_limit": 20, "binds": ["data:/data"]})
    plain.wait(make(plain, "done", command=["sleep", "1"]))  # what ends sooner may have no last run
    records = [record for poll in Docker.polls() for record in read(client, poll)]
    assert undeclared(Docker, records) == []
    assert set(never_emitted(Docker, records)) - NEVER.keys() == set()
    assert value(records, "docker_unknown_fields", answer="info") == 0
    assert value(records, "docker_unknown_fields", answer="stats") == 0


def test_the_engine(client: DockerClient, plain: docker.APIClient) -> None:
    records, info = read(client, "engine"), plain.info()
    assert value(records, "docker_memory_total_bytes") == psutil.virtual_memory().total
    assert value(records, "docker_cpus") == psutil.cpu_count()
    assert value(records, "docker_images") == info["Images"]
    assert entities(records, "engine")[info["ID"]].attributes["storage_driver"] == "overlay2"


def test_state_and_limits(client: DockerClient, plain: docker.APIClient) -> None:
    limits = {"mem_limit": "64m", "cpu_quota": 50_000, "pids_limit": 20, "restart_policy": {"Name": "no"}}
    key = make(plain, "web", host=limits)
    plain.wait(make(plain, "failed", command=["sh", "-c", "sleep 1; exit 3"]))
    records = read(client, "containers")
    of = {"container": "web"}
    assert value(records, "docker_container_running", **of) == 1
    assert value(records, "docker_container_spec_memory_limit_bytes", **of) == 64 << 20
    assert value(records, "docker_container_spec_cpus", **of) == 0.5
    assert value(records, "docker_container_spec_processes_limit", **of) == 20
    assert value(records, "docker_container_exit_code", container="failed") == 3
    assert value(records, "docker_container_last_run_seconds", container="failed") > 0
    assert entities(records, "container")[key].attributes["image"] == IMAGE
    assert 0 <= value(records, "docker_container_uptime_seconds", **of) < 60


def test_measurements_are_those_of_the_control_group(
    client: DockerClient, plain: docker.APIClient, engine: DockerServer
) -> None:
    busy = ["sh", "-c", "while :; do :; done"]
    key = make(plain, "busy", command=busy, host={"mem_limit": "64m", "cpu_quota": 20_000})
    await_true(lambda: "nr_throttled 0\n" not in engine.limit(key, "cpu", "cpu.stat"))
    plain.pause(key)  # from here on nothing moves
    records, of = read(client, "stats"), {"container": "busy"}
    throttled = dict(line.split() for line in engine.limit(key, "cpu", "cpu.stat").splitlines())
    used = int(engine.limit(key, "cpuacct", "cpuacct.usage")) / 1e9
    assert value(records, "docker_container_cpu_usage_seconds_total", **of) == pytest.approx(used, abs=0.05)
    told = value(records, "docker_container_cpu_cfs_throttled_periods_total", **of)
    assert 0 < told <= int(throttled["nr_throttled"])
    assert value(records, "docker_container_memory_limit_bytes", **of) == 64 << 20
    assert value(records, "docker_container_processes", **of) == int(engine.limit(key, "pids", "pids.current"))
    memory = dict(line.split() for line in engine.limit(key, "memory", "memory.stat").splitlines())
    rss = value(records, "docker_container_memory_part_bytes", **of, part="rss", scope="all")
    assert rss == pytest.approx(int(memory["total_rss"]), abs=1 << 20)


def test_traffic_of_a_container(client: DockerClient, plain: docker.APIClient) -> None:
    make(plain, "first")
    address = plain.inspect_container(make(plain, "second"))["NetworkSettings"]["IPAddress"]
    plain.exec_start(plain.exec_create("first", ["ping", "-c", "5", "-i", "0.1", "-s", "20000", address])["Id"])
    records = read(client, "stats")
    for name, way in (("first", "transmit"), ("second", "receive")):
        of = {"container": name, "interface": "eth0"}
        assert 100_000 < value(records, f"docker_container_network_{way}_bytes_total", **of) < 200_000


def test_an_ill_container_fires_and_stops_to(client: DockerClient, plain: docker.APIClient) -> None:
    ill = {"test": ["CMD-SHELL", "echo why; [ -e /tmp/well ]"], "interval": 200_000_000, "retries": 1}
    make(plain, "web", healthcheck=ill)
    assert [one.kind for one in events(await_true(lambda: _with_events(client)))] == ["container_unhealthy"]
    records = read(client, "containers")
    (event,) = events(records)
    assert (event.state, event.fingerprint) == ("firing", "container_unhealthy:web")
    assert event.attributes["output"] == "why\n"
    assert value(records, "docker_container_health_failing_streak", container="web") >= 1
    assert value(records, "docker_container_health", container="web", state="unhealthy") == 1
    plain.exec_start(plain.exec_create("web", ["touch", "/tmp/well"])["Id"])
    await_true(lambda: not events(read(client, "containers")))


def _with_events(client: DockerClient) -> list[Record]:
    records = read(client, "containers")
    return records if events(records) else []


def test_a_container_that_its_memory_limit_ended(client: DockerClient, plain: docker.APIClient) -> None:
    eat = ["sh", "-c", "x=a; while :; do x=$x$x; done"]
    plain.wait(make(plain, "eats", command=eat, host={"mem_limit": "8m", "memswap_limit": "8m"}), timeout=60)
    records = read(client, "containers")
    assert value(records, "docker_container_oom_killed", container="eats") == 1
    assert [one.fingerprint for one in events(records)] == ["container_oom_killed:eats"]


def test_one_that_restarts_over_and_over_stalls_nothing(client: DockerClient, plain: docker.APIClient) -> None:
    make(plain, "falls", command=["sh", "-c", "exit 1"], host={"restart_policy": {"Name": "always"}})
    make(plain, "web")
    await_true(lambda: plain.inspect_container("falls")["RestartCount"] >= 2)
    for _ in range(10):
        began = time.monotonic()
        records = [*read(client, "containers"), *read(client, "stats")]
        assert time.monotonic() - began < 15  # seconds, on a busy machine
        assert value(records, "docker_container_processes", container="web") > 0
        assert value(records, "docker_container_restarts_total", container="falls") >= 2
    loops = await_true(
        lambda: [one for one in events(read(client, "containers")) if one.kind == "container_restarting"]
    )
    assert loops[0].fingerprint == "container_restarting:falls"


def test_more_containers_than_are_read(connect: Connect, engine: DockerServer, plain: docker.APIClient) -> None:
    for name in ("one", "other", "third"):
        make(plain, name, start=False)
    told: list[Record] = []
    run = Docker.polls()["containers"].run(connect(url=engine.url, max_containers=2))
    with pytest.raises(Refused, match="3 containers are more than max_containers"):
        told.extend(run)
    assert value(told, "docker_containers_left_out") == 1
    assert {labels[0][1] for labels in values(told, "docker_container_running")} == {"one", "other"}


def test_networks_volumes_and_images(client: DockerClient, plain: docker.APIClient) -> None:
    network = plain.create_network("seg", internal=True)["Id"]
    plain.create_volume("data", labels={"nms.why": "test", "proxy.password": "never told"})
    key = make(plain, "web")
    plain.connect_container_to_network(key, network)
    records = read(client, "objects")
    assert entities(records, "network")[network].attributes["internal"] is True
    assert value(records, "docker_network_containers", network="seg") == 1
    assert entities(records, "volume")["data"].attributes["labels"] == {"nms.why": "test"}
    assert "never told" not in str(records)
    places = {one.b[1] for one in records if isinstance(one, Link) and one.a == ("container", key)}
    assert network in places
    assert [one.attributes["tags"] for one in entities(records, "image").values()] == [[IMAGE]]


def test_sizes(client: DockerClient, plain: docker.APIClient) -> None:
    plain.create_volume("data")
    write = "head -c 300000 /dev/zero > /data/f; head -c 100000 /dev/zero > /g"
    plain.wait(make(plain, "web", command=["sh", "-c", write], host={"binds": ["data:/data"]}))
    records = read(client, "disk")
    assert value(records, "docker_container_size_rw_bytes", container="web") == 100_000
    assert value(records, "docker_volume_size_bytes", volume="data") == 300_000
    assert value(records, "docker_volume_references", volume="data") == 1
    assert value(records, "docker_image_containers", image=IMAGE) == 1


def test_events_come_once_each(connect: Connect, engine: DockerServer, plain: docker.APIClient) -> None:
    client = connect(url=engine.url)
    read(client, "events")
    told: list[Event] = []
    for name in ("one", "two", "three"):
        plain.kill(make(plain, name, labels={"proxy.password": "never told"}))
        plain.wait(name)
        told += events(read(client, "events"))
    assert read(client, "events") == []
    happened = [(one.attributes["name"], one.kind) for one in told if one.kind.startswith("container_")]
    each = ["container_create", "container_start", "container_kill", "container_die"]
    for name in ("one", "two", "three"):
        assert [kind for of, kind in happened if of == name] == each
    (died,) = [one for one in told if one.kind == "container_die" and one.attributes["name"] == "two"]
    assert (died.severity, died.state) == ("warning", "occurred")
    assert died.ts is not None
    assert died.attributes["exitCode"] == "137"
    assert "never told" not in str(told)
    again = {
        (one.ts, one.kind, one.fingerprint, one.message) for one in events(read(connect(url=engine.url), "events"))
    }
    assert {(one.ts, one.kind, one.fingerprint, one.message) for one in told} <= again  # a new process: the store knows


def test_events_the_engine_has_forgotten(connect: Connect, engine: DockerServer, plain: docker.APIClient) -> None:
    client = connect(url=engine.url)
    plain.create_volume("data")
    read(client, "events")
    for _ in range(140):
        plain.create_volume("data2")
        plain.remove_volume("data2")
    told = events(read(client, "events"))
    assert [one.kind for one in told].count("events_gap") == 1
    assert told[0].kind == "events_gap"
    assert not events(read(client, "events"))


def test_a_swarm(start_server: StartServer, connect: Connect) -> None:
    engine = start_server("docker")
    assert isinstance(engine, DockerServer)
    with engine.plain() as api:
        api.init_swarm(advertise_addr="127.0.0.1", listen_addr="127.0.0.1")
        template = docker.types.TaskTemplate(docker.types.ContainerSpec(IMAGE, command=["sleep", "1000"]))
        mode = docker.types.ServiceMode("replicated", 2)
        api.create_service(template, name="web", mode=mode)
        client, of = connect(url=engine.url), {"service": "web", "mode": "replicated"}
        records = read(client, "swarm")
        assert undeclared(Docker, records) == []
        assert value(records, "docker_swarm_service_tasks_desired", **of) == 2
        await_true(lambda: value(read(client, "swarm"), "docker_swarm_service_tasks_running", **of) == 2)
        assert value(read(client, "engine"), "docker_swarm_managers") == 1
        api.leave_swarm(force=True)
