"""The settings of one Netdata agent, and how what it shall look at is named."""

import re
from typing import Annotated

from pydantic import Field, PositiveInt

from nms_workers.transport.http import HttpSettings
from nms_workers.transport.secret import Secret

# One word of Netdata's simple patterns: `*` stands for anything. A space would begin another word, a `!` would turn the
# meaning around, and `,` and `|` part words in some of its selectors.
Pattern = Annotated[str, Field(pattern=r"^[A-Za-z0-9_*][A-Za-z0-9_.:@/*+-]{0,199}$")]
Patterns = Annotated[tuple[Pattern, ...], Field(max_length=100)]

# The id or name of one chart. Some questions take a pattern in its place: it must not be read as one.
CHART = re.compile(r"[^\s!*|,\x00-\x1f\x7f-\x9f][^\s*|,\x00-\x1f\x7f-\x9f]{0,1199}\Z")


class NetdataTarget(HttpSettings):
    """One Netdata agent, 1.x or 2.x, with all nodes that stream to it when it is a parent.

    Args:
        token: a bearer token, for agents of 2.x whose bearer token protection is on.
        api_key: the key of the management API, needed by the actions only: what stands in the file `netdata.api.key`
            of the agent's lib directory (`/var/lib/netdata`).
        charts, exclude_charts: patterns of chart ids or names that are read, or left out; `*` stands for anything:
            `system.*`. Chosen at the agent.
        contexts, exclude_contexts: the same of contexts. Chosen here.
        nodes, exclude_nodes: the same of the nodes of a parent, by their host names.
        max_nodes: how many nodes of a parent are read; more than that is told.
        max_chart_series: how many dimensions of charts are kept of one reading over all nodes; more than that is told.
            The target's `max_series` must be larger, by the few other series of that poll.
        max_transitions: how many changes of alarms one reading takes at most, for each node in 1.x.
        stale_after: seconds that the last value of a chart may be behind the newest that was read of the same node;
            after that the chart is collected no more, and has no value.
    """

    api_key: Secret | None = None
    charts: Patterns = ()
    exclude_charts: Patterns = ()
    contexts: Patterns = ()
    exclude_contexts: Patterns = ()
    nodes: Patterns = ()
    exclude_nodes: Patterns = ()
    max_nodes: PositiveInt = 200
    max_chart_series: PositiveInt = 9_500
    max_transitions: Annotated[int, Field(ge=1, le=10_000)] = 1000
    stale_after: PositiveInt = 600
