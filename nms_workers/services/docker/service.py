"""Docker: what is polled, and the actions."""

from collections.abc import Iterator

from nms_workers.records import Record
from nms_workers.service import Service, poll
from nms_workers.services.docker import readings
from nms_workers.services.docker.client import DockerClient
from nms_workers.services.docker.target import DockerTarget


class Docker(Service):
    """Containers: reads Docker engines (and Podman's socket), and acts on the containers that carry our label."""

    kind = "docker"
    Target = DockerTarget
    client = DockerClient

    @poll(every="15s", enumerates=("container",))
    def containers(self, client: DockerClient) -> Iterator[Record]:
        """State and health of each container."""
        for one in client.get_containers():
            yield from readings.of_container(client.get_container(one.id))
