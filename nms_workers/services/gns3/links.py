"""Cables between nodes, named by their ends: `NODE` or `NODE:PORT`, the port as `0/1` (adapter/port) or by its name."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from uuid import UUID

from nms_workers.change import about_to_change
from nms_workers.errors import ParseError, Refused
from nms_workers.services.gns3.client import Gns3Client, one_of
from nms_workers.services.gns3.model import Link, LinkEnd, Node, Port, Project
from nms_workers.services.gns3.session import NotThere
from nms_workers.services.gns3.waiting import change

_NUMBERED = re.compile(r"([0-9]{1,3})/([0-9]{1,3})\Z")
_NO_FILE_NAME = re.compile(r"[^A-Za-z0-9_-]+")
_CAPTURE = {2: ("start_capture", "stop_capture"), 3: ("capture/start", "capture/stop")}

_Socket = tuple[UUID, int, int]  # node, adapter, port


@dataclass(frozen=True)
class _Side:
    node: Node
    ports: tuple[Port, ...]  # those that fit the text; all of the node's where it names none


class Cabling:
    """The nodes and links of an open project, as they are when this is made."""

    def __init__(self, client: Gns3Client, project: Project) -> None:
        self._client = client
        self._project = project
        self._nodes = client.get_nodes(project.project_id)
        self._links = client.get_links(project.project_id)

    def link(self, a: str, b: str) -> Link:
        """The link between these ends.

        Raises:
            NotThere: there is none, or one of its ends is not there.
            Refused: there are several.
        """
        found = self._between(self._side(a), self._side(b))
        if not found:
            raise NotThere(f"there is no link between {a} and {b}")
        if len(found) > 1:
            raise Refused(f"there are {len(found)} links between {a} and {b}", hint="name the ports: NODE:PORT")
        return found[0]

    def exists(self, a: str, b: str) -> bool:
        """Whether there is a link between these ends, be it several."""
        try:
            return bool(self._between(self._side(a), self._side(b)))
        except NotThere:
            return False

    def create(self, a: str, b: str) -> tuple[Link, bool]:
        """The link between these ends, and whether it was made now, at the first free ports where none are named.

        Raises:
            NotThere: a node or a port is not there.
            Refused: a port is taken, or no free ones fit each other.
        """
        side_a, side_b = self._side(a), self._side(b)
        if side_a.node.node_id == side_b.node.node_id:
            raise Refused(f"{side_a.node.name} cannot be linked with itself")
        if existing := self._between(side_a, side_b):
            return existing[0], False
        ends = self._free_ends(side_a, side_b)
        body = {"nodes": [_as_json(end) for end in ends]}
        wanted = {_socket(end) for end in ends}
        path = f"/projects/{self._project.project_id}/links"
        about_to_change({"linked": False})
        made = change(
            self._client,
            ("POST", path, body),
            lambda: self._now(lambda one: _sockets(one) == wanted),
            f"{a} - {b} is there",
        )
        self._links.append(made)
        return made, True

    def delete(self, link: Link) -> None:
        """Pull a cable out."""
        about_to_change({"linked": True, "link": self.describe(link)})
        change(
            self._client,
            ("DELETE", self._path(link), None),
            lambda: None if self._now(lambda one: one.link_id == link.link_id) else True,
            f"the link {self.describe(link)} is gone",
        )

    def capture(self, link: Link, file: str, data_link_type: str) -> Link:
        """Begin to write the packets of a link to a file on its compute; without a name it is called by its ends."""
        verb = _CAPTURE[self._client.get_version().api][0]
        body = {"capture_file_name": file or self._file_name(link), "data_link_type": data_link_type}
        return self._captured(link, verb, body, True)

    def end_capture(self, link: Link) -> Link:
        """End it; the file stays."""
        return self._captured(link, _CAPTURE[self._client.get_version().api][1], {}, False)

    def describe(self, link: Link) -> str:
        """`PC1:e0 - SW1:e3`."""
        return " - ".join(self._name(end) for end in link.nodes)

    def _captured(self, link: Link, verb: str, body: object, wanted: bool) -> Link:
        about_to_change({"capturing": bool(link.capturing), "file": link.capture_file_name})

        def as_wanted(one: Link) -> bool:
            return one.link_id == link.link_id and bool(one.capturing) == wanted

        what = f"{self.describe(link)} is {'captured' if wanted else 'captured no more'}"
        request = ("POST", f"{self._path(link)}/{verb}", body)
        return change(self._client, request, lambda: self._now(as_wanted), what)

    def _now(self, fits: Callable[[Link], bool]) -> Link | None:
        """The first link that fits, as the server lists them now."""
        return next(filter(fits, self._client.get_links(self._project.project_id)), None)

    def _path(self, link: Link) -> str:
        return f"/projects/{self._project.project_id}/links/{link.link_id}"

    def _side(self, text: str) -> _Side:
        name, _, wanted = text.partition(":")
        node = one_of(self._nodes, name, "node")
        ports = node.ports or ()
        if not wanted:
            return _Side(node, ports)
        fitting = tuple(port for port in ports if _is(port, wanted))
        if not fitting:
            some = ", ".join(port.name for port in ports[:10]) or "none"
            raise NotThere(f"{node.name} has no port {wanted!r}", hint=f"it has: {some}")
        return _Side(node, fitting[:1])

    def _between(self, a: _Side, b: _Side) -> list[Link]:
        ours = _reach(a), _reach(b)
        return [one for one in self._links if len(one.nodes) == 2 and _joins(one, *ours)]

    def _free_ends(self, a: _Side, b: _Side) -> tuple[LinkEnd, LinkEnd]:
        taken = {socket for one in self._links for socket in _sockets(one)}
        for side in (a, b):
            if not _reach(side) - taken:
                what = f"port {side.ports[0].name}" if len(side.ports) == 1 else "every port"
                raise Refused(f"{what} of {side.node.name} is taken", hint="delete_link frees it")
        for one, other in product(a.ports, b.ports):
            ends = _end(a.node, one), _end(b.node, other)
            if one.link_type == other.link_type and not taken & {_socket(end) for end in ends}:
                return ends
        raise Refused(f"{a.node.name} and {b.node.name} have no free ports of one type (ethernet, serial)")

    def _name(self, end: LinkEnd) -> str:
        node = next((one for one in self._nodes if one.node_id == end.node_id), None)
        if node is None:
            raise ParseError("a link ends at a node that the project does not list")
        here = (port for port in node.ports or () if (port.adapter_number, port.port_number) == _socket(end)[1:])
        port = next(here, None)
        return f"{node.name}:{port.short_name or port.name if port else f'{end.adapter_number}/{end.port_number}'}"

    def _file_name(self, link: Link) -> str:
        return "_to_".join(_NO_FILE_NAME.sub("-", self._name(end)).strip("-") for end in link.nodes) + ".pcap"


def _is(port: Port, wanted: str) -> bool:
    if numbered := _NUMBERED.match(wanted):
        return (port.adapter_number, port.port_number) == (int(numbered[1]), int(numbered[2]))
    return wanted in (port.name, port.short_name)


def _socket(end: LinkEnd) -> _Socket:
    return end.node_id, end.adapter_number, end.port_number


def _sockets(link: Link) -> set[_Socket]:
    return {_socket(end) for end in link.nodes}


def _reach(side: _Side) -> set[_Socket]:
    return {(side.node.node_id, port.adapter_number, port.port_number) for port in side.ports}


def _joins(link: Link, a: set[_Socket], b: set[_Socket]) -> bool:
    one, other = (_socket(end) for end in link.nodes)
    return (one in a and other in b) or (one in b and other in a)


def _end(node: Node, port: Port) -> LinkEnd:
    return LinkEnd(node.node_id, port.adapter_number, port.port_number)


def _as_json(end: LinkEnd) -> dict[str, object]:
    return {"node_id": str(end.node_id), "adapter_number": end.adapter_number, "port_number": end.port_number}
