"""From what the decoder gave to one batch as the store takes it, with what each exporter came to in it."""

import ipaddress
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nms_workers.flows import metrics
from nms_workers.flows.enrichment import Known
from nms_workers.services.flows.decoded import Decoded, InterfaceName, Loss, Origin
from nms_workers.services.flows.record import FLOW
from nms_workers.store.flows import Batch, Exporter
from nms_workers.transport.datagrams import Address

_SFLOW = 105
_MOST_NAMES, _LONGEST_NAME = 1000, 64  # of one exporter in one batch; characters


class Exporters:
    """The exporters that are told apart. For one thread.

    Args:
        most: how many. An sFlow agent beyond that is taken for the sender of its datagrams, of which the decoder
            knows so many at most.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._names: dict[Address, str] = {}

    def batch(
        self,
        decoded: Sequence[Decoded],
        datagrams: Mapping[Address, int],
        templates: Mapping[Address, int],
        known: Known,
    ) -> Batch:
        """One batch of all that these hold.

        Args:
            datagrams: how many came from each sender.
            templates: how many each sender has now.
            known: whose target an exporter is.
        """
        places: dict[Address, int] = {}
        versions: dict[Address, set[int]] = {}
        lost: Counter[Address] = Counter()
        names: dict[Address, dict[int, str]] = {}
        exporter = []
        for one in decoded:
            addresses = [self.address(origin) for origin in one.origins]
            here = np.array([places.setdefault(address, len(places)) for address in addresses], np.uint32)
            exporter.append(here[one.origin])
            for loss in one.losses:
                address = addresses[loss.origin]
                versions.setdefault(address, set()).add(loss.version)
                if loss.source is None:  # those of a source are samples of datagrams that are counted already
                    lost[address] += max(0, loss.lost - loss.late)
            for told in one.interfaces:
                _learn(names.setdefault(addresses[told.origin], {}), told)
            self._tell(one, addresses)
        came = self._datagrams(decoded, datagrams)
        for address in came:
            places.setdefault(address, len(places))
        return Batch(
            flows=_together([one.flows for one in decoded], FLOW),
            exporter=_together(exporter, np.dtype(np.uint32)),
            received=_together([one.received for one in decoded], np.dtype(np.int64)),
            exporters=[
                Exporter(
                    address,
                    tuple(sorted(versions.get(address, ()))),
                    came[address],
                    lost[address],
                    templates.get(address, 0),
                    known.target_id(address),
                    names.get(address, {}),
                )
                for address in places
            ],
        )

    def address(self, origin: Origin) -> Address:
        """What names the exporter: the agent that sFlow tells, else the sender."""
        if origin.agent not in self._names:
            if len(self._names) >= self._most and origin.agent != origin.address:
                return origin.address
            self._names[origin.agent] = str(ipaddress.ip_address(origin.agent))
        return origin.agent

    def _datagrams(self, decoded: Sequence[Decoded], came: Mapping[Address, int]) -> Counter[Address]:
        """How many are of each exporter: an sFlow sender may pass on those of several agents."""
        left, found = Counter(came), Counter[Address]()
        for one in decoded:
            for loss in one.losses:
                origin = one.origins[loss.origin]
                if loss.version == _SFLOW and loss.source is None:
                    found[self.address(origin)] += loss.received
                    left[origin.address] -= loss.received
        return found + left

    def _tell(self, one: Decoded, addresses: Sequence[Address]) -> None:
        """To Prometheus."""
        for number, count in enumerate(np.bincount(one.origin, minlength=len(addresses)).tolist()):
            if count:
                metrics.RECORDS.labels(self._name(addresses[number])).inc(count)
        for (number, reason), count in one.problems.items():
            metrics.PROBLEMS.labels(self._name(addresses[number]), reason).inc(count)
        for loss in one.losses:
            self._tell_loss(loss, self._name(addresses[loss.origin]))

    @staticmethod
    def _tell_loss(loss: Loss, name: str) -> None:
        if loss.lost:
            metrics.LOST.labels(name, loss.unit).inc(loss.lost)
        if loss.late:
            metrics.LATE.labels(name, loss.unit).inc(loss.late)

    def _name(self, address: Address) -> str:
        return self._names.get(address) or str(ipaddress.ip_address(address))


def _learn(names: dict[int, str], told: InterfaceName) -> None:
    """Keep a name, if there is room and it can be shown."""
    name = "".join(character for character in told.name if character.isprintable())[:_LONGEST_NAME]
    if name and told.interface and (told.interface in names or len(names) < _MOST_NAMES):
        names[told.interface] = name


def _together(parts: Sequence[NDArray[Any]], dtype: "np.dtype[Any]") -> NDArray[Any]:
    """One array; not a copy when there is one already, as is the case when much comes."""
    return parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, dtype), *parts])
