"""The settings of one view of the flows."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, IPvAnyNetwork, PositiveInt

from nms_workers.service import TargetSettings
from nms_workers.transport.secret import Secret

Seconds = Annotated[float, Field(gt=0, le=30 * 86_400)]


class FlowsTarget(TargetSettings):
    """A view of what the flow collector keeps: of all exporters, or of some. Durations are seconds.

    Args:
        exporters: networks of the exporters that it shows; empty: all.
        url: of the PostgreSQL that has the flows; default: the fleet's own history.
        statement_timeout: of one query.
        max_exporters, max_interfaces: at most so many have series, those with the most traffic.
        silent_after: an exporter that sent nothing for so long is worth an event.
        forget_after: and after so long it is none any more.
        anomaly_least: bytes a second; less is no anomaly.
        anomaly_factor: how many times its usual rate a conversation or an exporter must have to be one.
        anomaly_hours: so many hours before are its past; a fourth of them must be known.
        anomaly_conversations: the largest ones of now are looked at.
        country, autonomous_systems: databases in MaxMind's format that name what an address belongs to.
    """

    exporters: Annotated[tuple[IPvAnyNetwork, ...], Field(max_length=1000)] = ()
    url: Secret | None = None
    statement_timeout: Annotated[float, Field(gt=0, le=600)] = 30.0
    max_exporters: PositiveInt = Field(default=1000, le=10_000)
    max_interfaces: PositiveInt = Field(default=5000, le=50_000)
    silent_after: Seconds = 300.0
    forget_after: Seconds = 7 * 86_400.0
    anomaly_least: float = Field(default=1e6, gt=0)
    anomaly_factor: float = Field(default=4.0, ge=1)
    anomaly_hours: int = Field(default=24, ge=4, le=24 * 14)
    anomaly_conversations: PositiveInt = Field(default=200, le=10_000)
    country: Path | None = None
    autonomous_systems: Path | None = None
