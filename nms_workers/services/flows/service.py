"""Flows: what is read of what the collector keeps, and the action."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, StringConstraints

from nms_workers.arguments import AddressToCutOff
from nms_workers.change import Change
from nms_workers.records import Record
from nms_workers.service import Service, action, poll
from nms_workers.services.flows import block, readings
from nms_workers.services.flows.client import FlowsClient
from nms_workers.services.flows.target import FlowsTarget

TargetName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:@/-]{0,99}$")]
JailName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.][A-Za-z0-9_.-]{0,63}$")]
Within = Annotated[int, Field(ge=1, le=7 * 86_400)]  # seconds
BanSeconds = Annotated[int, Field(ge=1, le=1_000_000_000)]


class Flows(Service):
    """NetFlow, IPFIX and sFlow: who talks to whom, as exporters tell the collector.

    The collector is a process of its own (`nms-workers flows`); it receives, decodes and stores. A target is a view of
    what it keeps: of all exporters, or of those that it names. Port scans and fan-outs that the collector finds become
    events of the view that shows the exporter.
    """

    kind = "flows"
    Target = FlowsTarget
    client = FlowsClient

    @poll(every="60s", enumerates=("exporter", "exporter_silent"))
    def exporters(self, client: FlowsClient) -> Iterator[Record]:
        """Rates, losses and templates of each exporter; an event while one that used to send is silent."""
        yield from readings.of_exporters(client)

    @poll(every="60s", volatile=True)
    def interfaces(self, client: FlowsClient) -> Iterator[Record]:
        """Rates of each interface that flows went through, and how much of it they use where SNMP tells its speed."""
        yield from readings.of_interfaces(client)

    @poll(every="5m", deadline="2m", enumerates=("volume_anomaly",))
    def anomalies(self, client: FlowsClient) -> Iterator[Record]:
        """An event while an exporter or a conversation has far more than in the hours before."""
        yield from readings.of_anomalies(client)

    @action()
    def block_source(  # noqa: PLR0913, PLR0917 - the arguments of the job
        self,
        client: FlowsClient,
        fail2ban: TargetName,
        jail: JailName,
        source: AddressToCutOff,
        within: Within = 3600,
        seconds: BanSeconds | None = None,
        dry_run: bool = False,
    ) -> Change:
        """Have the fail2ban target ban a source of flows; what was seen of it is the evidence in that job's audit.

        `seconds` is what `ban_ip` takes. The ban is a job of its own: guards look at it, and it is undone like others.
        """
        seen = block.evidence(client, source, within)
        wanted = block.ban(seen, fail2ban, jail, seconds)
        what = f"{jail} of {fail2ban} {'would be' if dry_run else 'is'} asked to ban {wanted.arguments['address']}"
        return Change(True, what, {"seen": seen}, {"ban": wanted.arguments}, (wanted,))
