"""How the tests of this service read, act, and make containers."""

from typing import Any

import docker

from nms_workers.change import Change
from nms_workers.records import Record
from nms_workers.services.docker.client import DockerClient
from nms_workers.services.docker.service import Docker
from tests.servers.docker import IMAGE

LABEL = {"nms.service": "true"}
FOREVER = ["sh", "-c", "trap exit TERM; while :; do sleep 1 & wait; done"]  # ends at once when it is told to


def read(client: DockerClient, poll: str) -> list[Record]:
    """Every record of one run of a poll."""
    return list(Docker.polls()[poll].run(client))


def act(client: DockerClient, action: str, **arguments: Any) -> Change:
    """Run an action as a job does: its arguments come as JSON and are validated."""
    declared = Docker.actions()[action]
    return declared.run(client, **declared.validate(arguments))


def make(
    api: docker.APIClient, name: str, *, start: bool = True, host: dict[str, Any] | None = None, **options: Any
) -> str:
    """A container of busybox; its full id. `host` are the SDK's options of `create_host_config`."""
    made = {"image": IMAGE, "command": FOREVER, "labels": LABEL} | options
    found = api.create_container(name=name, host_config=api.create_host_config(**(host or {})), **made)
    if start:
        api.start(found["Id"])
    return str(found["Id"])


def image(api: docker.APIClient, tag: str, *changes: str) -> str:
    """An image like busybox with these lines of a Dockerfile; its id."""
    made = api.create_container(IMAGE)
    repository, _, name = tag.rpartition(":")
    found = api.commit(made["Id"], repository=repository, tag=name, changes=list(changes))
    api.remove_container(made["Id"])
    return str(found["Id"])


def inside(api: docker.APIClient, container: str, *command: str) -> tuple[int, str]:
    """Exit code and output of a command in a container."""
    key = api.exec_create(container, list(command))["Id"]
    output = api.exec_start(key).decode()
    return int(api.exec_inspect(key)["ExitCode"]), output
