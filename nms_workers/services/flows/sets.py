"""The data sets of NetFlow v9 and IPFIX, and the bodies of v5 and v7: grouped by what they look like, read together."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nms_workers.services.flows.batch import Batch, together
from nms_workers.services.flows.decoded import InterfaceName, Reason
from nms_workers.services.flows.elements import REVERSED
from nms_workers.services.flows.plan import Plan, options
from nms_workers.services.flows.record import FLOW, Flows
from nms_workers.services.flows.templates import Early, Limits, Sampling, Stream, Template

_CHUNK = 2048  # records: about as many flows as fit into the second cache of a core
_TEXT = 255  # characters of a name that an exporter gives
_SWAPPED = (
    ("source_address", "destination_address"),
    ("post_nat_source_address", "post_nat_destination_address"),
    ("source_port", "destination_port"),
    ("post_nat_source_port", "post_nat_destination_port"),
    ("source_mac", "destination_mac"),
    ("source_as", "destination_as"),
    ("source_prefix_length", "destination_prefix_length"),
    ("ingress_interface", "egress_interface"),
    ("vlan", "post_vlan"),
)


class Context(NamedTuple):
    """What the records of a set need to know of their datagram. Times in microseconds since 1970."""

    origin: int
    received: int
    export: int  # by the exporter's clock
    anchor: int  # the same, or the time of receipt where that clock cannot be right
    uptime: int  # of the exporter then, milliseconds; -1: not known
    domain: int
    version: int
    interval: int  # sampling, where records do not say; 0: not known


_CONTEXT = np.dtype([(name, "u4" if name in {"origin", "domain", "interval"} else "i8") for name in Context._fields])


class DataSets:
    """The sets of a batch."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self._clock = batch.templates.limits.clock * 1e6
        self._groups: dict[Plan, list[tuple[bytes, int, Context, Sampling | None]]] = {}

    def add(self, plan: Plan, payload: bytes, count: int, context: Context, sampling: Sampling | None = None) -> None:
        """Take `count` records of flows; `payload` is exactly these. `sampling`: where it depends on the record."""
        self._groups.setdefault(plan, []).append((payload, count, context, sampling))

    def trusted(self, context: Context) -> Context:
        """The context of a datagram; where the exporter's clock cannot be right, that is counted and ours is taken."""
        if abs(context.received - context.export) <= self._clock:
            return context
        self.batch.problem(context.origin, Reason.CLOCK_REPLACED)
        return context._replace(anchor=context.received)

    def data(self, stream: Stream, template: int, payload: bytes, context: Context, room: int) -> int | None:
        """Take a data set.

        Args:
            room: records that the datagram may still have.

        Returns:
            how many records of flows or options it held; None where its template is not known: it is held.
        """
        known = stream.templates.get(template)
        if known is None:
            if not self.batch.templates.hold(stream, template, Early(payload, context, context.received)):
                self.batch.problem(context.origin, Reason.NO_TEMPLATE)
            return None
        known.seen = context.received
        if stream.early:  # a template that came from a file (`Templates.load`) has released nothing yet
            self.learned(stream, template)
        if known.scope:
            return self._options(stream, known, payload, context, room)
        return self._flows(stream, known.plan, payload, context, room)

    def learned(self, stream: Stream, template: int) -> None:
        """A template came: read what waited for it."""
        for early in self.batch.templates.release(stream, template):
            context = early.context._replace(origin=self.batch.origin(stream.key.address))
            self.data(stream, template, early.payload, context, self.batch.templates.limits.records)

    def _flows(self, stream: Stream, plan: Plan, payload: bytes, context: Context, room: int) -> int:
        if plan.variable:
            payload, count, whole = plan.compact(payload, room + 1)
            self.batch.problem(context.origin, Reason.BAD_LENGTH, not whole)
        else:
            count = len(payload) // plan.size
            if context.version == 9:
                count = _without_padding(payload, plan.size, count)
        if count > room:
            self.batch.problem(context.origin, Reason.TOO_MANY_RECORDS, count - room)
        taken = min(count, room)
        if not plan.flows:
            self.batch.skip("record", count)
        elif taken:
            told = stream.sampling
            sampling = told if told.by_sampler or told.by_interface else None
            if told.default or stream.boot:
                context = context._replace(interval=told.default, uptime=_uptime(context, stream.boot))
            self.add(plan, payload[: taken * plan.size], taken, context, sampling)
        return count

    def _options(self, stream: Stream, known: Template, payload: bytes, context: Context, room: int) -> int:
        count = 0
        for record in options(known.fields, payload):
            if count == room:
                self.batch.problem(context.origin, Reason.TOO_MANY_RECORDS)
                break
            if record is None:
                self.batch.problem(context.origin, Reason.BAD_OPTIONS)
                break
            count += 1
            if _remember(stream, record, self.batch.templates.limits.samplers):
                self.batch.templates.changed = True
            if "interface_name" in record or "interface_description" in record:
                index = record.get("ingress_interface") or record.get("egress_interface") or b""
                names = (_text(record.get(word, b"")) for word in ("interface_name", "interface_description"))
                self.batch.decoded.interfaces.append(InterfaceName(context.origin, _int(index), *names))
        return count

    def finish(self) -> None:
        """Read all groups."""
        for plan, sets in self._groups.items():
            payload = b"".join([one[0] for one in sets])
            contexts = np.array([one[2] for one in sets], _CONTEXT)
            counts = np.array([one[1] for one in sets])
            contexts = np.repeat(contexts, counts)
            flows = np.zeros(len(contexts), FLOW)
            replaced = np.zeros(len(contexts), bool)
            back: list[Flows] = []
            samplings = _Samplings([one[3] for one in sets], counts)
            for start in range(0, len(flows), _CHUNK):
                part = slice(start, start + _CHUNK)
                context, out = contexts[part], flows[part]
                records = plan.fill(payload, start, out)
                out["observation_domain"] = context["domain"]
                out["export_version"] = context["version"]
                replaced[part] = _times(plan, records, out, context, self.batch.templates.limits)
                _sample(plan, records, out, context["interval"], samplings.part(part))
                if plan.both_ways:
                    back.append(_reversed(plan, records, out))
            for index, times in zip(*np.unique(contexts["origin"][replaced], return_counts=True), strict=True):
                self.batch.problem(int(index), Reason.TIME_REPLACED, int(times))
            for some in (flows, together(back)) if back else ():
                went = (some["octets"] != 0) | (some["packets"] != 0)  # a record tells of both ways; one may be empty
                self.batch.add(some[went], contexts["origin"][went], contexts["received"][went])
            if not back:
                self.batch.add(flows, contexts["origin"], contexts["received"])


class _Samplings:
    """The intervals by sampler and interface of the streams of a group."""

    def __init__(self, told: list[Sampling | None], counts: NDArray[Any]) -> None:
        self.tables = [one for one in {id(one): one for one in told}.values() if one is not None]
        index = {id(one): at for at, one in enumerate(self.tables)}
        self._which = np.repeat([index.get(id(one), -1) for one in told], counts) if self.tables else None

    def part(self, part: slice) -> "tuple[list[Sampling], NDArray[Any]] | None":
        """The tables and, for each record of the part, which one is its own (-1: none)."""
        return None if self._which is None else (self.tables, self._which[part])


def _uptime(context: Context, boot: int) -> int:
    """Milliseconds since the exporter came up; only NetFlow has it in its header."""
    return context.export // 1000 - boot & 0xFFFFFFFF if context.uptime < 0 and boot else context.uptime


def _without_padding(payload: bytes, size: int, count: int) -> int:
    """NetFlow v9 pads by more than a record where records are short: wholly zero ones at the end are none."""
    while count and not any(payload[(count - 1) * size : count * size]):
        count -= 1
    return count


def _int(value: bytes) -> int:
    return int.from_bytes(value[-8:])


def _text(value: bytes) -> str:
    text = value[: 4 * _TEXT].split(b"\0")[0].decode(errors="replace")
    return "".join(char for char in text if char.isprintable())[:_TEXT].strip()


def _remember(stream: Stream, record: dict[str, bytes], most: int) -> bool:
    """Take over what an options record says of sampling and of the start of the exporter. Whether it is news."""
    number = {word: _int(value) for word, value in record.items()}
    boot = min(number.get("boot", 0), 1 << 61) or stream.boot
    news, stream.boot = boot != stream.boot, boot
    interval = min(_interval(number), 0xFFFFFFFF)
    if not interval:
        return news
    sampling = stream.sampling
    if "sampler" in number:
        table, key = sampling.by_sampler, number["sampler"] & (1 << 62) - 1
    elif "ingress_interface" in number:
        table, key = sampling.by_interface, number["ingress_interface"] & 0xFFFFFFFF
    else:
        news, sampling.default = news or interval != sampling.default, interval
        return news
    if table.get(key) != interval and (key in table or len(table) < most):
        news, table[key] = True, interval
    return news


def _interval(number: dict[str, int]) -> int:
    if packets := number.get("sampling_packets", 0):
        return (packets + number.get("sampling_space", 0)) // packets
    if size := number.get("sampling_size", 0):
        return number.get("sampling_population", 0) // size
    return number.get("sampling_interval", 0)


def _times(
    plan: Plan, records: NDArray[np.void], out: Flows, context: NDArray[np.void], limits: Limits
) -> NDArray[np.bool_]:
    """Set start and end. Which records said something that cannot be."""
    export, anchor = context["export"], context["anchor"]
    uptime = plan.uptimes(records, export, context["uptime"])
    start = plan.before(records, "start", export, uptime)
    end = plan.before(records, "end", export, uptime)
    lasted = plan.durations(records)
    none = np.zeros(len(out), "i8")
    if end is None:
        end = none if start is None else start if lasted is None else start - lasted
    if start is None:
        start = end if lasted is None else end + lasted
    ahead = -int(limits.ahead * 1e6)
    late = (end < ahead) | (end > int(limits.late * 1e6))
    end = np.where(late, 0, end)
    wrong = (start < ahead) | (start > int(limits.age * 1e6)) | (start < end)
    out["flow_end"] = anchor - end
    out["flow_start"] = anchor - np.where(wrong, end, start)
    return late | wrong


def _sample(
    plan: Plan, records: NDArray[np.void], out: Flows, default: NDArray[Any],
    samplings: tuple[list[Sampling], NDArray[Any]] | None,
) -> None:  # fmt: skip
    """Set the sampling interval and what follows from it: the record's own, its sampler's, its interface's, all's."""
    if "sampling_packets" in plan.sources:
        packets = plan.number(records, "sampling_packets").astype("u8")
        space = plan.number(records, "sampling_space").astype("u8") if "sampling_space" in plan.sources else 0
        interval = (packets + space) // np.maximum(packets, 1)
    elif "sampling_size" in plan.sources and "sampling_population" in plan.sources:
        size = plan.number(records, "sampling_size").astype("u8")
        interval = plan.number(records, "sampling_population") // np.maximum(size, 1)
    elif "sampling_interval" in plan.sources:
        interval = out["sampling_interval"]
    else:
        interval = np.zeros(len(out), "u4")
    if samplings is not None:
        tables, which = samplings
        if "sampler" in plan.sources:
            found = _looked_up([one.by_sampler for one in tables], which, plan.number(records, "sampler"))
            interval = np.where(interval == 0, found, interval)
        found = _looked_up([one.by_interface for one in tables], which, out["ingress_interface"])
        interval = np.where(interval == 0, found, interval)
    interval = np.where(interval == 0, default, interval)
    out["sampling_interval"] = np.minimum(interval, 0xFFFFFFFF)
    scale(out)


def _looked_up(tables: list[dict[int, int]], which: NDArray[Any], keys: NDArray[Any]) -> NDArray[Any]:
    found = np.zeros(len(keys), "u4")
    for at, table in enumerate(tables):
        if not table:
            continue
        mine = which == at
        unique, inverse = np.unique(keys[mine], return_inverse=True)
        found[mine] = np.array([table.get(int(key), 0) for key in unique], "u4")[inverse]
    return found


def scale(out: Flows) -> None:
    """Set the counters that are multiplied by the sampling interval; what is too large for 64 bits is the largest."""
    interval = np.maximum(out["sampling_interval"], 1).astype("u8")
    sampled = bool((interval > 1).any())
    for name in ("octets", "packets"):
        if sampled:
            out[f"{name}_scaled"] = np.minimum(out[name], np.uint64(0xFFFF_FFFF_FFFF_FFFF) // interval) * interval
        else:
            out[f"{name}_scaled"] = out[name]


def _reversed(plan: Plan, records: NDArray[np.void], out: Flows) -> Flows:
    """The other way of flows that were told in both (RFC 5103)."""
    back = out.copy()
    for one, other in _SWAPPED:
        back[one], back[other] = out[other], out[one]
    for name in REVERSED:
        back[name] = plan.number(records, f"reverse_{name}") if f"reverse_{name}" in plan.sources else 0
    scale(back)
    return back
