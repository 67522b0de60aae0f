"""The settings of one GNS3 server, and what its objects may be called."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from nms_workers.transport.http import HttpSettings

NodeType = Literal[
    "atm_switch", "cloud", "docker", "dynamips", "ethernet_hub", "ethernet_switch", "frame_relay_switch", "iou", "nat",
    "qemu", "traceng", "virtualbox", "vmware", "vpcs",
]  # fmt: skip

# What we give. Some node types turn other names into host names (RFC 1123), and would then be created again and again.
NodeName = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9 ._()+-]{0,98}[A-Za-z0-9)+])?$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]

# What others gave, or an id. Looked up in what the server lists, never put into a path.
Reference = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f]{1,255}$")]
End = Annotated[str, Field(pattern=r"^[^:\x00-\x1f\x7f-\x9f]{1,255}(:[^\x00-\x1f\x7f-\x9f]{1,100})?$")]

Stagger = Annotated[float, Field(ge=0, le=60, allow_inf_nan=False)]


class Gns3Target(HttpSettings):
    """One GNS3 server (controller), 2.2 or 3.

    Args:
        username, password: of a GNS3 user. Sent with each request to 2.2; version 3 gives a token for them, which is
            renewed before it ends.
        token: a token (JWT) of version 3 that somebody else keeps fresh, in place of username and password.
        max_projects: how many projects one poll reads at most.
        settle: seconds that a node may take from its command being done to being in the new state.
    """

    max_projects: PositiveInt = 500
    settle: NonNegativeFloat = 10.0
