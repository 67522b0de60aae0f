"""What an agent tells, in words of ours: the same whichever API it has. Times are seconds since 1970."""

from typing import Annotated, Any, Literal
from urllib.parse import quote

from msgspec import Meta, Struct


class Dimension(Struct, frozen=True):
    """One line of a chart, with its last value; None where it has none."""

    name: str
    value: float | None = None


class Chart(Struct, frozen=True):
    """A chart with the last value of each dimension, by the dimension's id. Counters have become rates already."""

    name: str
    family: str
    context: str
    units: str
    last_updated: int
    dimensions: dict[str, Dimension]


class ChartInfo(Struct, frozen=True):
    """What a chart is. `dimensions` are ids and their `name`s, `chart_labels` what its collector told of it."""

    id: str
    name: str
    family: str = ""
    context: str = ""
    title: str = ""
    units: str = ""
    plugin: str | None = None
    module: str | None = None
    update_every: int = 1
    first_entry: int = 0
    last_entry: int = 0
    dimensions: dict[str, dict[str, str]] = {}
    chart_labels: dict[str, str] = {}


class Context(Struct, frozen=True):
    """What charts of one kind have in common, over all nodes; `first` and `last` are times of its data."""

    title: str = ""
    units: str = ""
    family: str = ""
    first: int = 0
    last: int = 0


class Node(Struct, frozen=True):
    """The agent's own host, or one whose agent streams to it.

    Args:
        guid: the machine GUID of its agent.
        name: its host name, with the GUID behind it where several nodes of the parent have the same.
        reachable: whether it is collected just now.
        own: whether it is the agent's own host.
    """

    guid: str
    name: str
    reachable: bool
    own: bool

    @property
    def path(self) -> str:
        """What stands before the path of a request that asks for this node."""
        return "" if self.own else f"/host/{quote(self.guid, safe='')}"


class NodeInfo(Struct, frozen=True):
    """What is known of a node: `about` for people, `numbers` as the table of this API (1 or 3) reads them."""

    api: int
    node: Node
    about: dict[str, Any]
    numbers: dict[str, Any]


class Info(Struct, frozen=True):
    """What an agent says of itself.

    Args:
        api: 1 or 3.
        about: version, host name, operating system and the like.
        numbers: the rest, as the table of this API reads it.
        databases: the tiers of its database (`tier0`), as the table of this API reads them.
    """

    api: int
    guid: str
    name: str
    version: str
    about: dict[str, Any]
    numbers: dict[str, Any]
    databases: dict[str, dict[str, Any]]


class Alarm(Struct, frozen=True):
    """An alarm as it stands. `status` is `CRITICAL`, `WARNING`, `CLEAR`, `UNDEFINED`, `UNINITIALIZED` or `REMOVED`.

    Args:
        context: of its chart; empty in 1.x.
        since: when it came into this status.
        silenced: whether nobody is notified; None where the API does not tell.
    """

    node: Node
    chart: str
    name: str
    status: str
    value: float | None
    units: str
    info: str
    context: str
    family: str
    component: str
    recipient: str
    since: int
    silenced: bool | None


class Transition(Struct, frozen=True):
    """An alarm went from one status to another. `id` grows with time, in 1.x for each node by itself."""

    node: Node
    id: int
    chart: str
    name: str
    context: str
    old: str
    new: str
    old_value: float | None
    value: float | None
    units: str
    info: str
    at: int


class Query(Struct, frozen=True):
    """Which values of which chart: `after` and `before` are times, or seconds before `before` and before now."""

    node: Node
    chart: str
    after: int
    before: int
    points: int
    group: str


class Data(Struct, frozen=True):
    """Values of one chart over time.

    Args:
        dimensions: their names.
        rows: newest first: the time, and a value for each dimension, None where there is none.
    """

    dimensions: tuple[str, ...]
    rows: tuple[tuple[int, tuple[float | None, ...]], ...]


class Silencer(Struct, frozen=True, omit_defaults=True):
    """Which alarms: those that match all patterns that are given."""

    alarm: str = ""
    chart: str = ""
    context: str = ""
    hosts: str = ""


class Silencers(Struct, frozen=True):
    """What the health management of an agent holds back.

    Args:
        all: every alarm, whatever the silencers say.
        type: `SILENCE`: nobody is notified; `DISABLE`: they are not evaluated; `None`: the silencers have no effect.
    """

    all: bool
    type: Literal["None", "SILENCE", "DISABLE"]
    silencers: Annotated[list[Silencer], Meta(max_length=1000)] = []
