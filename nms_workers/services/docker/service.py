"""Docker: what is polled, and the actions."""

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Any, Literal

from pydantic import Field

from nms_workers.change import Change
from nms_workers.errors import Refused
from nms_workers.records import Record, Sample
from nms_workers.service import Service, action, poll
from nms_workers.services.docker import containers, execution, networks, prune, readings, recreation, volumes
from nms_workers.services.docker.client import DockerClient
from nms_workers.services.docker.model import Summary
from nms_workers.services.docker.target import DockerTarget, Image, Name
from nms_workers.services.docker.together import read_each

Memory = Annotated[str, Field(pattern=r"^[0-9]{1,15}[kmg]?$")]
Cpus = Annotated[float, Field(ge=0, le=4096, allow_inf_nan=False)]
Pids = Annotated[int, Field(ge=0, le=4_194_304)]
Grace = Annotated[int, Field(ge=0, le=300)]
Seconds = Annotated[float, Field(gt=0, le=3000, allow_inf_nan=False)]
Hours = Annotated[float, Field(ge=0, le=87_600, allow_inf_nan=False)]
Word = Annotated[str, Field(max_length=8192, pattern=r"^[^\x00]*$")]
Command = Annotated[tuple[Word, ...], Field(min_length=1, max_length=100)]
User = Annotated[str, Field(pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.-]{0,31}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,31})?)?$")]
Folder = Annotated[str, Field(pattern=r"^(/[^\x00-\x1f\x7f]{0,1000})?$")]
Kinds = Annotated[tuple[prune.Kind, ...], Field(min_length=1, max_length=5)]
Backup = Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9_.-]{0,300})?$")]
Driver = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./:-]{0,100}$")]
Subnet = IPv4Network | IPv6Network


class Docker(Service):
    """Containers: reads Docker engines (and Podman's socket), and acts on the containers that carry our label.

    Only containers, networks and volumes with the label `nms.service=true` are acted on, unless the target's settings
    say `act_on_unlabelled`. One of the fleet itself (named in `own`, labelled `nms.fleet=true`, or the one that the
    worker runs in) needs `own = true` at the action too. Backups lie on the host of the worker that makes them: name
    one with `worker` at the target, or have `backups.folder` on a file system that all share.
    """

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
        yield from readings.of_networks(client.get_networks(), found[: client.target.max_containers])
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

    @action(looks_first=True, serialize_by="container", deadline="600s", idempotent=False)
    def restart(
        self,
        client: DockerClient,
        container: Name,
        grace: Grace = 10,
        healthy: Seconds | None = None,
        own: bool = False,
    ) -> Change:
        """Stop a container, kill it after `grace` seconds, and start it; with `healthy` wait so long for its health."""
        return containers.restart(client, container, own=own, grace=grace, healthy=healthy)

    @action(looks_first=True, serialize_by="container", deadline="600s", undo="stop")
    def start(self, client: DockerClient, container: Name, healthy: Seconds | None = None, own: bool = False) -> Change:
        """Start a container, and see that it stays up."""
        return containers.start(client, container, own=own, healthy=healthy)

    @action(looks_first=True, serialize_by="container", deadline="600s", undo="start")
    def stop(self, client: DockerClient, container: Name, grace: Grace = 10, own: bool = False) -> Change:
        """Ask a container to end, and kill it after `grace` seconds."""
        return containers.stop(client, container, own=own, grace=grace)

    @action(looks_first=True, serialize_by="container", undo="unpause")
    def pause(self, client: DockerClient, container: Name, own: bool = False) -> Change:
        """Freeze the processes of a container."""
        return containers.pause(client, container, own=own)

    @action(looks_first=True, serialize_by="container", undo="pause")
    def unpause(self, client: DockerClient, container: Name, own: bool = False) -> Change:
        """Let the processes of a paused container go on."""
        return containers.unpause(client, container, own=own)

    @action(looks_first=True, serialize_by="container", undo="restore_limits")
    def set_limits(  # noqa: PLR0913, PLR0917 - the arguments of the job
        self,
        client: DockerClient,
        container: Name,
        memory: Memory | None = None,
        cpus: Cpus | None = None,
        pids: Pids | None = None,
        own: bool = False,
    ) -> Change:
        """Change limits of a container while it runs: memory (`512m`, `2g`), CPUs, processes; 0: all there is."""
        limit = None if memory is None else containers.size(memory)
        return containers.set_limits(client, container, own=own, memory=limit, cpus=cpus, pids=pids)

    @action(looks_first=True, serialize_by="container")
    def restore_limits(
        self, client: DockerClient, container: Name, before: dict[str, Any], own: bool = False
    ) -> Change:
        """Give a container the limits it had before `set_limits`."""
        memory, cpus, pids = int(before.get("memory", 0)), float(before.get("cpus", 0)), int(before.get("pids", 0))
        return containers.set_limits(client, container, own=own, memory=memory, cpus=cpus, pids=pids)

    @action(looks_first=True, serialize_by="container", deadline="1800s", undo="restore_image")
    def pull_and_recreate(  # noqa: PLR0913, PLR0917 - the arguments of the job
        self,
        client: DockerClient,
        container: Name,
        image: Image | Literal[""] = "",
        pull: bool = True,
        healthy: Seconds = 120.0,
        grace: Grace = 10,
        own: bool = False,
    ) -> Change:
        """Make a container anew from the newest of its image or from another; the old one is back if it is not well."""
        return recreation.pull_and_recreate(
            client, container, own=own, image=image, pull=pull, healthy=healthy, grace=grace
        )

    @action(looks_first=True, serialize_by="container", deadline="1800s")
    def restore_image(
        self, client: DockerClient, container: Name, before: dict[str, Any], grace: Grace = 10, own: bool = False
    ) -> Change:
        """Make a container anew from the image it had before `pull_and_recreate`."""
        return recreation.restore_image(client, container, before, own=own, grace=grace)

    @action(looks_first=True, serialize_by="container", deadline="600s", idempotent=False)
    def exec(  # noqa: PLR0913, PLR0917 - the arguments of the job
        self,
        client: DockerClient,
        container: Name,
        command: Command,
        user: User = "",
        folder: Folder = "",
        own: bool = False,
    ) -> Change:
        """Run a command (a list of words, no shell) in a container, where the settings allow it."""
        return execution.run(client, container, command, own=own, user=user, folder=folder)

    @action(looks_first=True, deadline="600s", confirm=True)
    def prune(self, client: DockerClient, kinds: Kinds, hours: Hours = 24.0, dry_run: bool = False) -> Change:
        """Remove what nobody uses: ended containers and untagged images older than `hours`, volumes, networks."""
        return prune.prune(client, kinds, hours, dry_run=dry_run)

    @action(looks_first=True, serialize_by="network", undo="remove_network")
    def ensure_network(
        self,
        client: DockerClient,
        network: Name,
        internal: bool = False,
        subnet: Subnet | None = None,
        driver: Driver = "bridge",
    ) -> Change:
        """Have a network (`nms-monitoring`, `nms-network`, `nms-security`), `internal` without a way out of it."""
        return networks.ensure(client, network, internal=internal, subnet=subnet, driver=driver)

    @action(looks_first=True, serialize_by="network", confirm=True)
    def remove_network(self, client: DockerClient, network: Name) -> Change:
        """Remove a network that no container is in."""
        return networks.remove(client, network)

    @action(looks_first=True, serialize_by="container", undo="disconnect")
    def connect(
        self, client: DockerClient, container: Name, network: Name, aliases: tuple[Name, ...] = (), own: bool = False
    ) -> Change:
        """Put a container into a network, under more names there if given."""
        return networks.connect(client, container, network, aliases, own=own)

    @action(looks_first=True, serialize_by="container", undo="connect")
    def disconnect(self, client: DockerClient, container: Name, network: Name, own: bool = False) -> Change:
        """Take a container out of a network."""
        return networks.disconnect(client, container, network, own=own)

    @action(looks_first=True, serialize_by="volume", undo="remove_volume")
    def ensure_volume(self, client: DockerClient, volume: Name, driver: Driver = "local") -> Change:
        """Have a volume."""
        return volumes.ensure(client, volume, driver)

    @action(looks_first=True, serialize_by="volume", confirm=True)
    def remove_volume(self, client: DockerClient, volume: Name) -> Change:
        """Remove a volume that no container has, with what is in it."""
        return volumes.remove(client, volume)

    @action(looks_first=True, serialize_by="volume", runs_at="edge", deadline="3600s")
    def backup_volume(
        self, client: DockerClient, volume: Name, hold: volumes.Hold = "pause", own: bool = False
    ) -> Change:
        """Write a backup of a volume, while the containers that use it are paused, stopped, or left alone (`none`)."""
        return volumes.backup(client, volume, hold, own=own)

    @action(
        looks_first=True, serialize_by="volume", runs_at="edge", deadline="3600s", confirm=True, undo="restore_previous"
    )
    def restore_volume(self, client: DockerClient, volume: Name, backup: Backup = "", own: bool = False) -> Change:
        """Put a volume back to a backup, the newest if none is named; what is in it now is backed up first."""
        return volumes.restore(client, volume, backup, own=own)

    @action(looks_first=True, serialize_by="volume", runs_at="edge", deadline="3600s", confirm=True)
    def restore_previous(self, client: DockerClient, volume: Name, before: dict[str, Any], own: bool = False) -> Change:
        """Put a volume back to what it held before `restore_volume`."""
        if not before.get("backup"):
            raise Refused(f"{volume} was not there before", hint="remove_volume removes it")
        return volumes.restore(client, volume, str(before["backup"]), own=own)

    @action(serialize_by="volume", runs_at="edge", deadline="3600s")
    def verify_backup(self, client: DockerClient, volume: Name, backup: Backup = "") -> Change:
        """Read a whole backup, the newest if none is named: checksum, key, compression, every entry."""
        return volumes.check(client, volume, backup)


def _all_read(client: DockerClient, found: list[Summary]) -> None:
    """Raises `Refused` when there were more than one poll reads, so that none of them counts as gone."""
    limit = client.target.max_containers
    if len(found) > limit:
        raise Refused(f"{len(found)} containers are more than max_containers ({limit})", hint="raise max_containers")
