"""Docker: what is polled, and the actions."""

from collections.abc import Iterator

from nms_workers.errors import Refused
from nms_workers.records import Record, Sample
from nms_workers.service import Service, poll
from nms_workers.services.docker import readings
from nms_workers.services.docker.client import DockerClient
from nms_workers.services.docker.model import Summary
from nms_workers.services.docker.target import DockerTarget
from nms_workers.services.docker.together import read_each


class Docker(Service):
    """Containers: reads Docker engines (and Podman's socket), and acts on the containers that carry our label."""

    kind = "docker"
    Target = DockerTarget
    client = DockerClient

    @poll(every="30s", enumerates=("engine",))
    def engine(self, client: DockerClient) -> Iterator[Record]:
        """Version and host of the engine, and how many containers and images it has."""
        yield from readings.of_engine(client.get_version(), client.get_docker_info())

    @poll(
        every="15s",
        enumerates=(
            "container", "container_unhealthy", "container_restarting", "container_oom_killed", "container_dead",
        ),
    )  # fmt: skip
    def containers(self, client: DockerClient) -> Iterator[Record]:
        """State, health, restarts and limits of each container; what is wrong with one fires."""
        found = client.get_containers()
        yield Sample("docker_containers_left_out", max(0, len(found) - client.target.max_containers))
        settings = client.target
        kept = found[: settings.max_containers]
        for _, one in read_each(kept, client.get_container, at_once=settings.connections, limit=settings.stats_timeout):
            yield from readings.of_container(one)
        _all_read(client, found)

    @poll(every="30s", enumerates=("measurements",))
    def stats(self, client: DockerClient) -> Iterator[Record]:
        """CPU with throttling, memory, network, block I/O and processes of each running container."""
        found = [one for one in client.get_containers(all=False) if one.state in {"running", "paused"}]
        settings, unknown = client.target, set[str]()
        kept = found[: settings.max_containers]
        for container, stats in read_each(
            kept, client.get_stats, at_once=settings.connections, limit=settings.stats_timeout
        ):
            yield from readings.of_stats(container.name, stats)
            unknown.update(readings.unknown_stats(stats))
        yield from readings.of_unknown(settings.url, sorted(unknown))
        _all_read(client, found)

    @poll(every="10s")
    def events(self, client: DockerClient) -> Iterator[Record]:
        """What happened at the engine: each thing once, with the engine's own time."""
        yield from client.new_events()

    @poll(every="60s", enumerates=("network", "volume", "image", "in_network"))
    def objects(self, client: DockerClient) -> Iterator[Record]:
        """Networks and who is in them, volumes, images."""
        found = client.get_containers()
        settings = client.target
        kept = found[: settings.max_containers]
        read = read_each(kept, client.get_container, at_once=settings.connections, limit=settings.stats_timeout)
        yield from readings.of_networks(client.get_networks(), [one for _, one in read])
        yield from readings.of_volumes(client.get_volumes())
        yield from readings.of_images(client.get_images())
        _all_read(client, found)

    @poll(every="15m", deadline="5m")
    def disk(self, client: DockerClient) -> Iterator[Record]:
        """What images, containers, volumes and the build cache take on disk; the engine looks at every file for it."""
        yield from readings.of_disk(client.get_disk_usage(), client.target.max_containers)

    @poll(every="60s")
    def swarm(self, client: DockerClient) -> Iterator[Record]:
        """Tasks of the services of a swarm, where the engine is a manager of one."""
        if (client.get_docker_info().get("Swarm") or {}).get("ControlAvailable"):
            yield from readings.of_swarm(*client.get_swarm())


def _all_read(client: DockerClient, found: list[Summary]) -> None:
    """Raises `Refused` when there were more than one poll reads, so that none of them counts as gone."""
    limit = client.target.max_containers
    if len(found) > limit:
        raise Refused(f"{len(found)} containers are more than max_containers ({limit})", hint="raise max_containers")
