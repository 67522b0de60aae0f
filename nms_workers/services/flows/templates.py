"""What has to be remembered between datagrams: templates, options, sequence numbers, and data that came too early."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what exporters can make us hold. Sizes in bytes, times in seconds."""

    exporters: int = 4096  # addresses
    streams: int = 256  # of one exporter: ports and observation domains
    templates: int = 1024  # of one stream
    fields: int = 512  # of one template
    record: int = 4096  # bytes of one fixed record
    records: int = 2048  # of one datagram
    names: int = 100  # unknown fields named
    samplers: int = 4096  # of one stream, and interfaces with a sampling interval
    lifetime: float = 5400.0  # of a template that neither comes again nor is used, and of a silent stream
    held: int = 4096  # data sets waiting for a template
    held_bytes: int = 8_388_608
    held_for: float = 60.0
    clock: float = 3600.0  # an exporter's clock may be off the time of receipt by so much
    late: float = 7200.0  # the end of a flow may lie so long before its export
    age: float = 691_200.0  # the start; softflowd keeps a flow for a week


@dataclass(slots=True)
class Templates:
    """All streams of all exporters. One process, one thread."""

    limits: Limits = field(default_factory=Limits)
    unknown_fields: Counter[str] = field(default_factory=Counter)  # names of elements no table knows, by templates

    @property
    def held(self) -> int:
        """Data sets that wait for their template now."""
        raise NotImplementedError

    def counts(self) -> dict[bytes, int]:
        """How many templates each exporter (packed address) has now."""
        raise NotImplementedError

    def dump(self) -> dict[str, Any]:
        """Everything that should survive a restart, as plain JSON: templates and sampling, by stream."""
        raise NotImplementedError

    def load(self, dumped: object) -> int:
        """Take over what `dump()` gave, an hour or a version ago. How many templates were taken.

        Entries that are too old (by `Limits.lifetime`, against the time of the first datagram) or do not read are left
        out; a file that was tampered with is no error, and never more than the limits allow.
        """
        raise NotImplementedError
