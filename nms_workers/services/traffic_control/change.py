"""Brings one interface to what is wanted: looks, applies only the difference, and looks again."""

import errno
import logging

from nms_workers.errors import Refused
from nms_workers.services.traffic_control.kernel import Socket, instead_of
from nms_workers.services.traffic_control.look import (
    ALL_PACKETS,
    EMULATION,
    FIRST_PREFERENCE,
    FIRST_SHAPE,
    INGRESS,
    INGRESS_PARENT,
    LAST_SHAPE,
    OURS,
    REST,
    ROOT,
    TRUNK,
    Found,
    Line,
    handle_text,
    ifb_name,
    look,
    preference,
)
from nms_workers.services.traffic_control.match import Match, Selector
from nms_workers.services.traffic_control.tree import Emulation, Limits, Part, Policer, settled_burst
from nms_workers.services.traffic_control.values import FASTEST

log = logging.getLogger(__name__)

_QUANTUM = 10_000, 60_000  # bytes a class may send before the next one's turn; beyond, the kernel warns in its log
_ALIAS = "nms-workers: what {} receives"


def bring(socket: Socket, name: str, wanted: Part) -> tuple[Part, Part]:
    """Bring about what `wanted` names and leave the rest alone.

    Returns:
        The same parts as they were before, and as they are now. Equal parts: nothing was touched.

    Raises:
        Refused: something of somebody else is in the way, or the kernel cannot do it. What was begun is taken back.
        pyroute2.netlink.exceptions.NetlinkError: put in words by `kernel.ask`.
    """
    found = look(socket, name)
    before = found.part(wanted)
    if before == wanted and found.settled:
        return before, before
    _check(found, wanted)
    try:
        _apply(socket, found, wanted)
        after = look(socket, name).part(wanted)
    except Exception:
        _take_back(socket, name, before)
        raise
    if after != wanted:
        raise Refused(f"{name} did not become as wanted: somebody else changes it", hint="look with `tc qdisc show`")
    return before, after


def _take_back(socket: Socket, name: str, before: Part) -> None:
    try:
        _apply(socket, look(socket, name), before)
    except Exception as exc:  # noqa: BLE001 - the failure that led here is the one to raise
        log.warning("%s: what was begun could not be taken back, the next change will: %r", name, exc)


def _check(found: Found, wanted: Part) -> None:
    """Refuse what cannot be done without touching something of somebody else."""
    tree = wanted.default_class or any(shape.limits for shape in wanted.shapes)
    kind, handle = found.root
    if tree and not found.has_trunk and handle:
        raise _taken(found.name, kind, handle)
    if wanted.emulation and not found.emulation and (handle or tree):
        raise _taken(found.name, kind, handle)
    if wanted.ingress and found.ingress and not found.ifb:
        raise Refused(f"{found.name} has an ingress qdisc of somebody else", hint="see `tc filter show dev IF ingress`")
    gone = [found.shapes[s.match] for s in wanted.shapes if not s.limits and s.match in found.shapes]
    for line in (*gone, *found.unfinished):
        if line.classid in found.guests:
            raise Refused(f"something of somebody else hangs on the class {handle_text(line.classid)} of {found.name}")
    if "default_class" in wanted.model_fields_set and not wanted.default_class and REST in found.guests:
        raise Refused(f"something of somebody else hangs on the class {handle_text(REST)} of {found.name}")


def _taken(name: str, kind: str, handle: int) -> Refused:
    if handle in (0, OURS, EMULATION):
        return Refused(f"{name} has no room for shapes and an emulated line at once", hint="`clear` it first")
    return Refused(
        f"the root qdisc of {name} is {kind} {handle_text(handle)}, which is somebody else's",
        hint="remove it by hand if nobody needs it: `tc qdisc del dev IF root`",
    )


def _apply(socket: Socket, found: Found, wanted: Part) -> None:
    said = wanted.model_fields_set
    for line in found.unfinished:
        _remove_line(socket, found, line)
    ingress = wanted.ingress if "ingress" in said else found.policer
    if ingress != found.policer or bool(found.ifb) != bool(ingress):
        _police(socket, found, ingress)
    rest = wanted.default_class if "default_class" in said else found.rest
    if found.has_trunk or rest or any(shape.limits for shape in wanted.shapes):
        _tree(socket, found, wanted, rest)
    if "emulation" in said and wanted.emulation != found.emulation:
        _emulate(socket, found, wanted.emulation)


def _tree(socket: Socket, found: Found, wanted: Part, rest: Limits | None) -> None:
    if not found.has_trunk:
        socket.tc("add", "htb", found.index, OURS, default=REST & 0xFFFF)
    if not found.trunk:
        _class(socket, found, "add-class", TRUNK, Limits(rate=FASTEST, priority=0))
    taken = {line.classid for line in found.shapes.values()}
    for shape in wanted.shapes:
        line = found.shapes.get(shape.match)
        if shape.limits is None and line:
            _remove_line(socket, found, line)
            taken.discard(line.classid)
        elif shape.limits and line is None:
            taken.add(_add_line(socket, found, shape.match, shape.limits, taken))
        elif shape.limits and line and shape.limits != line.limits:
            _class(socket, found, "change-class", line.classid, shape.limits)
    if rest and rest != found.rest:
        _class(socket, found, "replace-class", REST, rest)
    elif not rest and found.rest:
        socket.tc("del-class", index=found.index, handle=REST)
    if not taken and not rest and not found.guests:
        socket.tc("del", index=found.index, parent=ROOT)


def _add_line(socket: Socket, found: Found, match: Match, limits: Limits, taken: set[int]) -> int:
    """A class and the filters that lead to it; its number."""
    selectors = match.selectors()
    numbers = range(FIRST_SHAPE + len(selectors) - 1, LAST_SHAPE + 1, 4)
    slots = {number & ~3 for number in taken}
    classid = next((number for number in numbers if number & ~3 not in slots), None)
    if classid is None:
        raise Refused(f"{found.name} has as many shapes as there are numbers for")
    _class(socket, found, "add-class", classid, limits)
    for selector in selectors:
        socket.tc(
            "add-filter",
            "u32",
            found.index,
            parent=OURS,
            prio=preference(selector),
            protocol=selector[0],
            target=classid,
            keys=_keys(selector),
        )
    return classid


def _keys(selector: Selector) -> list[str]:
    return [f"{value:#04x}/{mask:#04x}+{offset}" for offset, value, mask in sorted(selector[1])]


def _remove_line(socket: Socket, found: Found, line: Line) -> None:
    for one in line.filters:
        found.per_info[one.info] -= 1
        handle = one.handle if found.per_info[one.info] else 0  # the last one goes with its table
        socket.tc("del-filter", index=found.index, parent=OURS, handle=handle, info=one.info)
    socket.tc("del-class", index=found.index, handle=line.classid)


def _class(socket: Socket, found: Found, command: str, classid: int, limits: Limits) -> None:
    low, high = _QUANTUM
    socket.tc(
        command,
        "htb",
        found.index,
        classid,
        parent=OURS if classid == TRUNK else TRUNK,
        rate=limits.rate // 8,
        ceil=limits.most // 8,
        burst=limits.bucket,
        cburst=max(limits.bucket, settled_burst(limits.most, None)),
        prio=limits.priority,
        quantum=min(max(limits.rate // 80, low), high),
    )


def _police(socket: Socket, found: Found, wanted: Policer | None) -> None:
    """The ifb device comes first and goes last: while it is there, what is unfinished is known to be ours."""
    if wanted is None:
        _unpolice(socket, found)
        return
    ifb = found.ifb or _add_ifb(socket, found)
    values = {"rate": wanted.rate // 8, "burst": wanted.bucket, "limit": wanted.queue}
    socket.tc("replace", "tbf", ifb, OURS, **values)
    if not found.ingress:
        socket.tc("add", "ingress", found.index, INGRESS)
    if not found.redirects:
        action = {"kind": "mirred", "direction": "egress", "action": "redirect", "ifindex": ifb}
        socket.tc(
            "add-filter",
            "u32",
            found.index,
            parent=INGRESS,
            prio=FIRST_PREFERENCE,
            protocol=ALL_PACKETS,
            target=0,
            keys=["0x0/0x0+0"],
            action=action,
        )


def _add_ifb(socket: Socket, found: Found) -> int:
    name = ifb_name(found.index)
    missing = Refused("this kernel has no ifb devices, which policing needs", hint="modprobe ifb")
    with instead_of(errno.EOPNOTSUPP, missing):
        socket.link("add", ifname=name, kind="ifb")
    ifb = int(socket.link("get", ifname=name)[0]["index"])
    socket.link("set", index=ifb, state="up", ifalias=_ALIAS.format(found.name))
    return ifb


def _unpolice(socket: Socket, found: Found) -> None:
    if found.ingress and not found.ingress_guests:
        socket.tc("del", index=found.index, handle=INGRESS, parent=INGRESS_PARENT)
    else:
        for info in dict.fromkeys(found.redirects):
            socket.tc("del-filter", index=found.index, parent=INGRESS, handle=0, info=info)
    if found.ifb:
        socket.link("del", index=found.ifb)


def _emulate(socket: Socket, found: Found, wanted: Emulation | None) -> None:
    if wanted is None:
        socket.tc("del", index=found.index, parent=ROOT)
        return
    missing = Refused("this kernel has no netem, which emulating a line needs", hint="modprobe sch_netem")
    with instead_of(errno.ENOENT, missing):
        socket.tc("change" if found.emulation else "add", "netem", found.index, EMULATION, **netem(wanted))


def netem(wanted: Emulation) -> dict[str, float]:
    """What pyroute2 wants: microseconds, and shares of a hundred."""
    values = {
        "delay": round(wanted.delay * 1e6),
        "jitter": round(wanted.jitter * 1e6),
        "loss": wanted.loss * 100,
        "duplicate": wanted.duplicate * 100,
        "limit": wanted.queue,
    }
    return values | ({"prob_reorder": wanted.reorder * 100} if wanted.reorder else {})
