"""The settings of one target of traffic control: a network namespace of the host the worker runs on."""

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from nms_workers.service import TargetSettings

_NAMESPACE = r"^([A-Za-z0-9_][A-Za-z0-9_.:-]{0,254}|(/[A-Za-z0-9_][A-Za-z0-9_.:-]{0,254}){1,16})?$"


class TrafficControlTarget(TargetSettings):
    """One network namespace of this host: its interfaces and their queueing.

    Args:
        netns: a name as `ip netns list` shows it, or the path of a namespace (`/proc/4711/ns/net`); default: the
            namespace the worker itself runs in.
        interfaces: glob patterns of the interfaces that are polled; actions name theirs.
        max_objects: how many interfaces, qdiscs, classes and filters one poll tells of at most, each.
        timeout: seconds for one look at the kernel or one change.
    """

    netns: Annotated[str, Field(pattern=_NAMESPACE)] = ""
    interfaces: tuple[str, ...] = Field(default=("*",), min_length=1, max_length=100)
    max_objects: PositiveInt = 2000
    timeout: PositiveFloat = 5.0
