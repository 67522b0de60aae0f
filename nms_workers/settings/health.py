"""What is found by itself, whether it is healthy, and what is done when it is not."""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import (
    Field,
)

from nms_workers.settings.section import Duration, Interval, Name, Section

TargetPattern = Annotated[str, Field(pattern=r"^(type|name|engine):[A-Za-z0-9_.:@/*?-]{1,100}$")]


NetworkPattern = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.*?-]{1,100}$")]


TargetPatterns = Annotated[tuple[TargetPattern, ...], Field(max_length=1000)]


def picks(patterns: Iterable[str], **facts: str) -> bool:
    """Whether one of these patterns (`type:redis`, `name:web-*`) fits what is known of a target by that word."""
    split = (pattern.partition(":") for pattern in patterns)
    return any(fact in facts and fnmatchcase(facts[fact], wanted) for fact, _, wanted in split)


class DockerDiscovery(Section):
    """Containers that say by their labels what they are become targets; `docs/discovery.md` explains it.

    Args:
        engines: names of docker targets of these settings; none: all of them.
        approve: those that become targets at once, by `type:`, `name:` or `engine:`; the others wait for a person.
        address: where they are reached: at their address in a network that the fleet shares, or at a published port.
        networks: of Docker, whose addresses are taken, the first that fits; patterns with `*`. None: any.
        published_at: the host of published ports that are bound to every address; default: where the engine is.
        resync: how often everything is looked at though no event came.
        max_targets: of one engine; what is over it is told and left out.
    """

    engines: Annotated[tuple[Name, ...], Field(max_length=1000)] = ()
    approve: TargetPatterns = ()
    address: Literal["container", "published"] = "container"
    networks: Annotated[tuple[NetworkPattern, ...], Field(max_length=100)] = ()
    published_at: Annotated[str, Field(pattern=r"^[A-Za-z0-9.:-]{1,253}$")] | None = None
    resync: Annotated[Duration, Field(ge=1, le=86_400)] = 300.0
    max_targets: int = Field(default=1000, ge=1, le=100_000)


class Discovery(Section):
    """What is found without being written down. SNMP agents: see the setting `discovery` of an SNMP target."""

    docker: DockerDiscovery | None = None


class Checks(Section):
    """What tells whether a target is healthy; all of it must be well.

    Args:
        poll: how its newest polls ended; when none ended since the last look, whether its port opens.
        tcp: whether its port opens; a number: this port.
        http: a path below the target's URL, asked with its credentials, that must answer with 2xx; or a whole URL.
        docker: the health that its container has of its own, where it is one.
        command: a program and its arguments on the host of the control worker, which must end with 0. Only where
            `health.commands` allows it.
    """

    poll: bool = True
    tcp: bool | Annotated[int, Field(ge=1, le=65_535, strict=True)] = False
    http: Annotated[str, Field(pattern=r"^(https?://[^\s@]+|/[^\s]*)$", max_length=1000)] | None = None
    docker: bool = True
    command: Annotated[tuple[Annotated[str, Field(max_length=1000)], ...], Field(max_length=50)] = ()


class Repair(Section):
    """Unhealthy containers are restarted, never more often than this.

    Args:
        allow: beside those with the label `nms.restart=true`.
        attempts, within: so many restarts of one target in this time; then it is given up, until it is healthy again.
        backoff: before the second attempt; twice as long before each one after it.
        per_minute: restarts of all targets together.
    """

    allow: TargetPatterns = ()
    attempts: int = Field(default=5, ge=1, le=100)
    within: Annotated[Duration, Field(le=7 * 86_400)] = 3600.0
    backoff: Annotated[Duration, Field(le=86_400)] = 30.0
    per_minute: int = Field(default=3, ge=1, le=1000)


class Health(Section):
    """Whether targets are healthy, and what is done when they are not; `docs/health.md` explains it.

    Args:
        every: how often all targets are looked at.
        failures, successes: in a row, before a target is unhealthy, or healthy again.
        timeout: seconds of one check.
        checks: by kind of service, where a target does not say it itself.
        commands: whether checks may run programs.
    """

    every: Interval = 30.0
    failures: int = Field(default=3, ge=1, le=100)
    successes: int = Field(default=2, ge=1, le=100)
    timeout: Annotated[Duration, Field(le=30)] = 5.0
    checks: dict[str, Checks] = Field(default_factory=dict)
    commands: bool = False
    repair: Repair = Repair()
