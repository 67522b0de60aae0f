"""Which containers may be acted on, and waiting until what was asked for is so."""

import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from nms_workers.errors import Refused
from nms_workers.services.docker.client import DockerClient
from nms_workers.services.docker.model import LABEL, Container
from nms_workers.transport.deadline import deadline, remaining, time_left

T = TypeVar("T")

FLEET = "nms.fleet"  # the label of containers of the fleet itself
SETTLE = 1.0  # seconds a container has to run to count as started

_PAUSE = 0.1  # seconds between two looks
_ID = re.compile(r"[0-9a-f]{12}")


def find(client: DockerClient, container: str, *, own: bool) -> Container:
    """The container, when it may be acted on.

    Args:
        own: whether it is confirmed that a container of the fleet itself may be.

    Raises:
        NotThere: there is none.
        Refused: it may not.
    """
    found = client.get_container(container)
    if not labelled(client, found.labels):
        hint = f"label it {LABEL}=true, or set act_on_unlabelled = true in the target's settings"
        raise Refused(f"{found.name} does not carry the label {LABEL}=true, so we do not act on it", hint=hint)
    if not own and is_own(client, found):
        raise Refused(f"{found.name} is a container of the fleet itself", hint="give own = true if that is meant")
    return found


def labelled(client: DockerClient, labels: object) -> bool:
    """Whether something with these labels may be acted on."""
    return client.target.act_on_unlabelled or (isinstance(labels, dict) and labels.get(LABEL) == "true")


def is_own(client: DockerClient, container: Container) -> bool:
    """Whether this worker, or another part of the fleet, runs in it."""
    host = socket.gethostname()
    named = container.name in client.target.own or container.labels.get(FLEET) == "true"
    return named or (_ID.fullmatch(host) is not None and container.id.startswith(host))


@contextmanager
def time_kept(seconds: float) -> Iterator[None]:
    """Inside, so much of the time of the job is left over: for putting back what was begun."""
    with deadline(time_left() - seconds):
        yield


def wait(look: Callable[[], T | None], seconds: float, otherwise: str) -> T:
    """What `look` finds when it first finds something.

    Raises:
        Refused: it does not in so many seconds; `otherwise` says what is not so.
    """
    ends = time.monotonic() + seconds
    while (found := look()) is None:
        if time.monotonic() >= ends:
            raise Refused(f"the engine took the command, and {seconds:g} s later {otherwise}", hint="look at its log")
        time.sleep(remaining(_PAUSE))
    return found


def await_up(client: DockerClient, container: str, *, healthy: float | None = None) -> Container:
    """Wait until it is sure that a container stays up.

    Args:
        healthy: seconds its health check has to say so, where it has one; None: running for a moment is enough.

    Raises:
        Refused: it ended, its check says that it is ill, or nothing in that time; with its last words.
    """
    began = time.monotonic()
    while True:
        now = client.get_container(container)
        checked = healthy is not None and now.health.status in {"healthy", "starting", "unhealthy"}
        waited = time.monotonic() - began
        if not now.state.running or now.state.restarting:
            raise Refused(f"{now.name} ended at once with exit code {now.state.exit_code}{_last_words(client, now)}")
        if checked and now.health.status == "unhealthy":
            raise Refused(f"{now.name} is unhealthy{_last_words(client, now)}")
        if waited >= SETTLE and (not checked or now.health.status == "healthy"):
            return now
        if checked and healthy is not None and waited >= healthy:
            raise Refused(f"{now.name} was not healthy after {healthy:g} s{_last_words(client, now)}")
        time.sleep(remaining(_PAUSE))


def _last_words(client: DockerClient, container: Container) -> str:
    log = container.health.log or ()
    said = [str(log[-1].get("Output", ""))] if log else [one.text for one in client.get_service_logs(container.id, 3)]
    words = " ".join("".join(c if c.isprintable() else " " for c in " ".join(said)).split())
    return f"; its last words: {words[-300:]}" if words else ""
