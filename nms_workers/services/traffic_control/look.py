"""What is ours at one interface, and what is in the way of it, as the kernel has it now.

Ours can be told from everything else by its place:

* an htb qdisc `4e4d:` at the root, in it the trunk `4e4d:1`, a class for each shape from `4e4d:10` to `4e4d:ffef` (the
  low two bits say how many filters lead to it, less one) and the class of the rest, `4e4d:fff0`;
* u32 filters of the preferences 0x4000 to 0x43ff on it that lead to these classes: the closer a match, the earlier;
* a netem qdisc `4e4e:` at the root;
* an ifb device `nms-in<index of the interface>` with a tbf qdisc `4e4d:`, and on the ingress qdisc `ffff:` of the
  interface one filter of preference 0x4000 that redirects to it.
"""

import math
import struct
from collections import Counter
from dataclasses import dataclass, field
from socket import ntohs

from nms_workers.errors import Refused
from nms_workers.services.traffic_control.kernel import Message, Socket, dump, no_interface
from nms_workers.services.traffic_control.match import Key, Match, Selector, match_of, single, specificity
from nms_workers.services.traffic_control.tree import Emulation, Limits, Part, Policer, Shape, burst_of

ROOT, INGRESS, INGRESS_PARENT = 0xFFFFFFFF, 0xFFFF0000, 0xFFFFFFF1
MAJOR = 0xFFFF0000
OURS, EMULATION = 0x4E4D0000, 0x4E4E0000
TRUNK, REST = OURS | 1, OURS | 0xFFF0
FIRST_SHAPE, LAST_SHAPE = OURS | 0x10, OURS | 0xFFEF
FIRST_PREFERENCE, LAST_PREFERENCE = 0x4000, 0x43FF
ALL_PACKETS = 0x0003  # ETH_P_ALL

_TICKS = 15.625  # of 64 ns, in which the kernel keeps times, in a microsecond
_NETWORK, _MACHINE = struct.Struct(">II"), struct.Struct("=i")  # a key: mask and value, then its offset
_KEY_SIZE = 16
_KEYS_AT = 20  # in the attribute: its header and the fields before the keys


@dataclass(frozen=True)
class Filter:
    """One u32 filter that leads to a class of ours."""

    info: int  # preference and EtherType, as the kernel packs them
    handle: int
    classid: int
    selector: Selector


@dataclass(frozen=True)
class Line:
    """One class of ours and the filters that lead to it."""

    classid: int
    limits: Limits
    filters: tuple[Filter, ...]
    match: Match | None  # None: it was left unfinished, or is the class of the rest


@dataclass(frozen=True)
class Found:
    """What is there.

    Args:
        name, index: the interface.
        root: kind and handle of its root qdisc; a handle of 0 is the kernel's own choice.
        trunk: the class that ours borrow from is there.
        rest: limits of what no shape matches.
        shapes: complete ones by match.
        unfinished: classes of ours that no complete shape has.
        per_info: how many filters share a preference and EtherType.
        guests: our qdisc and those of our classes that something of somebody else hangs on.
        ingress: there is an ingress qdisc; `ingress_guests`: with filters of somebody else.
        ifb: index of our ifb device; `redirects`: filters that lead to it.
    """

    name: str
    index: int
    root: tuple[str, int]
    trunk: bool = False
    rest: Limits | None = None
    shapes: dict[Match, Line] = field(default_factory=dict)
    unfinished: tuple[Line, ...] = ()
    per_info: Counter[int] = field(default_factory=Counter)
    guests: frozenset[int] = frozenset()
    policer: Policer | None = None
    ingress: bool = False
    ingress_guests: bool = False
    ifb: int = 0
    redirects: tuple[int, ...] = ()
    emulation: Emulation | None = None

    @property
    def has_trunk(self) -> bool:
        """Our htb qdisc is at the root."""
        return self.root == ("htb", OURS)

    @property
    def settled(self) -> bool:
        """Nothing was left unfinished by a change that died."""
        empty = self.has_trunk and not (self.shapes or self.rest or self.guests)
        return not self.unfinished and not empty and bool(self.ifb) == bool(self.policer)

    def part(self, like: Part) -> Part:
        """The same parts of what is there as `like` names."""
        said = like.model_fields_set
        values: dict[str, object] = {}
        if "shapes" in said:
            limits = {match: line.limits for match, line in self.shapes.items()}
            values["shapes"] = tuple(Shape(match=s.match, limits=limits.get(s.match)) for s in like.shapes)
        known = {"default_class": self.rest, "ingress": self.policer, "emulation": self.emulation}
        return Part.model_validate(values | {name: value for name, value in known.items() if name in said})

    def nothing(self) -> Part:
        """That nothing of ours is there any more."""
        shapes = tuple(Shape(match=match) for match in self.shapes)
        return Part(shapes=shapes, default_class=None, ingress=None, emulation=None)


def ifb_name(index: int) -> str:
    """The name of our ifb device for the interface of this index."""
    return f"nms-in{index}"


def preference(selector: Selector) -> int:
    """The closer a match, the lower, so the earlier; one preference holds filters of one EtherType only."""
    return LAST_PREFERENCE - 2 * specificity(selector) - (selector[0] == 0x86DD)


def look(socket: Socket, name: str) -> Found:
    """Read one interface.

    Raises:
        pyroute2.netlink.exceptions.NetlinkError: put in words by `kernel.ask`.
        Refused: there is no such interface, or a class of ours has values that we never give.
    """
    links = dump(lambda: socket.link("dump", ifname=name))
    if not links:
        raise no_interface(name)
    index = links[0]["index"]
    qdiscs = dump(lambda: socket.get_qdiscs(index=index))
    root = next((q for q in qdiscs if q["parent"] == ROOT), None)
    found: dict[str, object] = {"root": (root.get_attr("TCA_KIND"), root["handle"]) if root else ("noqueue", 0)}
    if found["root"] == ("htb", OURS):
        found |= _tree(socket, index, qdiscs)
    if root and found["root"] == ("netem", EMULATION):
        found["emulation"] = emulation_of(root.get_attr("TCA_OPTIONS"))
    return Found(name=name, index=index, **found, **_ingress(socket, index, qdiscs))  # type: ignore[arg-type]


def _tree(socket: Socket, index: int, qdiscs: list[Message]) -> dict[str, object]:
    classes = dump(lambda: socket.get_classes(index=index))
    rows = [f for f in dump(lambda: socket.get_filters(index=index, parent=OURS)) if f["handle"] & 0xFFF]
    filters = [one for row in rows if (one := _filter(row))]
    guests = {OURS for row in rows if not _filter(row)}
    guests |= {q["parent"] for q in qdiscs if q["parent"] & MAJOR == OURS and q["handle"]}
    shapes: dict[Match, Line] = {}
    unfinished, rest = [], None
    for one in classes:
        classid = one["handle"]
        if classid == REST:
            rest = _limits(one)
        elif FIRST_SHAPE <= classid <= LAST_SHAPE and one["parent"] == TRUNK:
            line = _line(one, [f for f in filters if f.classid == classid])
            if line.match is None or line.match in shapes:
                unfinished.append(line)
            else:
                shapes[line.match] = line
        elif classid != TRUNK:
            guests.add(one["parent"] if one["parent"] != ROOT else OURS)
    return {
        "trunk": any(one["handle"] == TRUNK for one in classes),
        "rest": rest,
        "shapes": shapes,
        "unfinished": tuple(unfinished),
        "per_info": Counter(row["info"] for row in rows),
        "guests": frozenset(guests),
    }


def _line(one: Message, filters: list[Filter]) -> Line:
    complete = len(filters) == (one["handle"] & 3) + 1
    match = match_of(f.selector for f in filters) if complete else None
    return Line(one["handle"], _limits(one), tuple(filters), match)


def _limits(one: Message) -> Limits:
    parms = one.get_attr("TCA_OPTIONS").get_attr("TCA_HTB_PARMS")
    burst = burst_of(parms["rate"], microseconds(parms["buffer"]))
    try:
        return Limits(rate=parms["rate"] * 8, ceil=parms["ceil"] * 8, burst=burst, priority=parms["prio"])
    except ValueError as exc:
        raise Refused(
            f"the class {handle_text(one['handle'])} has values that were not given here",
            hint="somebody changed it by hand: delete it by `tc class del`",
        ) from exc


def _filter(row: Message) -> Filter | None:
    """A filter of ours; None for one of somebody else."""
    options = row.get_attr("TCA_OPTIONS")
    if row.get_attr("TCA_KIND") != "u32" or not FIRST_PREFERENCE <= row["info"] >> 16 <= LAST_PREFERENCE:
        return None
    classid = options.get_attr("TCA_U32_CLASSID") or 0
    if not FIRST_SHAPE <= classid <= LAST_SHAPE:
        return None
    selector = (ntohs(row["info"] & 0xFFFF), keys_of(options.get_attr("TCA_U32_SEL")))
    return Filter(row["info"], row["handle"], classid, selector)


def match_of_filter(row: Message) -> Match | None:
    """What one filter of ours looks for; None for a filter of somebody else."""
    one = _filter(row)
    return single(one.selector) if one else None


def keys_of(selector: Message) -> frozenset[Key]:
    """The keys of a u32 selector, byte by byte.

    pyroute2 0.9.7 decodes them four bytes too early, so they are read from the bytes themselves.
    """
    keys: set[Key] = set()
    for i in range(selector["nkeys"]):
        at = selector.offset + _KEYS_AT + i * _KEY_SIZE
        mask, value = _NETWORK.unpack_from(selector.data, at)
        (start,) = _MACHINE.unpack_from(selector.data, at + _NETWORK.size)
        for n in range(4):
            shift = 24 - 8 * n
            if bits := mask >> shift & 0xFF:
                keys.add((start + n, value >> shift & 0xFF, bits))
    return frozenset(keys)


def _ingress(socket: Socket, index: int, qdiscs: list[Message]) -> dict[str, object]:
    ifb = _ifb(socket, index)
    there = any(q["handle"] == INGRESS for q in qdiscs)
    rows = [f for f in dump(lambda: socket.get_filters(index=index, parent=INGRESS)) if f["handle"]] if there else []
    rows = [row for row in rows if row["handle"] & 0xFFF or row.get_attr("TCA_KIND") != "u32"]
    redirects = [row["info"] for row in rows if ifb and _leads_to(row) == ifb]
    return {
        "ingress": there,
        "ingress_guests": len(rows) > len(redirects),
        "ifb": ifb,
        "redirects": tuple(redirects),
        "policer": _policer(socket, ifb) if redirects else None,
    }


def _ifb(socket: Socket, index: int) -> int:
    found = dump(lambda: socket.link("dump", ifname=ifb_name(index)))
    if not found:
        return 0
    info = found[0].get_attr("IFLA_LINKINFO")
    if info is None or info.get_attr("IFLA_INFO_KIND") != "ifb":
        raise Refused(f"the name {ifb_name(index)} is taken by a device that is no ifb", hint="rename that device")
    return int(found[0]["index"])


def _leads_to(row: Message) -> int:
    """Index of the device that a filter redirects to, 0 for none."""
    options = row.get_attr("TCA_OPTIONS")
    actions = options.get_attr("TCA_U32_ACT") if options and row.get_attr("TCA_KIND") == "u32" else None
    first = actions.get_attr("TCA_ACT_PRIO_1") if actions else None
    if first is None or first.get_attr("TCA_ACT_KIND") != "mirred":
        return 0
    return int(first.get_attr("TCA_ACT_OPTIONS").get_attr("TCA_MIRRED_PARMS")["ifindex"])


def _policer(socket: Socket, ifb: int) -> Policer | None:
    for one in dump(lambda: socket.get_qdiscs(index=ifb)):
        if one.get_attr("TCA_KIND") == "tbf" and one["handle"] == OURS:
            parms = one.get_attr("TCA_OPTIONS").get_attr("TCA_TBF_PARMS")
            burst = burst_of(parms["rate"], microseconds(parms["buffer"]))
            return Policer(rate=parms["rate"] * 8, burst=burst, queue=parms["limit"])
    return None


def emulation_of(options: Message) -> Emulation:
    """A netem qdisc of ours as we say it."""
    reorder = options.get_attr("TCA_NETEM_REORDER")
    return Emulation(
        delay=microseconds(options["delay"]) / 1e6,
        jitter=microseconds(options["jitter"]) / 1e6,
        loss=options["loss"] / 0xFFFFFFFF,
        duplicate=options["duplicate"] / 0xFFFFFFFF,
        reorder=reorder["prob_reorder"] / 0xFFFFFFFF if reorder else 0.0,
        queue=options["limit"],
    )


def microseconds(ticks: int) -> int:
    """Whole microseconds of a time as the kernel keeps it."""
    return math.ceil(ticks / _TICKS)


def handle_text(handle: int) -> str:
    """A handle as tc(8) writes it: `4e4d:10`, `root`."""
    if handle == ROOT:
        return "root"
    return f"{handle >> 16:x}:" + (f"{handle & 0xFFFF:x}" if handle & 0xFFFF else "")
