"""Records from what GNS3 tells: samples in base units, entities, the topology. Percent become ratios of 1."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from nms_workers.records import Entity, Event, Link, Record, Sample
from nms_workers.services.gns3 import model

_STATES = ("started", "stopped", "suspended")
_STATUSES = ("opened", "closed")
_WINDOWS = ("1m", "5m", "15m")
_BYTES = ("memory_total", "memory_free", "memory_used", "swap_total", "swap_free", "swap_used")
_PERCENT = ("cpu_usage", "memory_usage", "swap_usage", "disk_usage")


def of_server(version: model.Version) -> Iterator[Record]:
    """The version of the controller."""
    yield Sample("gns3_server_info", 1, {"version": version.version, "api": str(version.api)})


def of_compute(compute: model.Compute) -> Iterator[Record]:
    """Whether it is connected, what it can do, and an event that fires while it is away.

    Version 2 connects the controller's own compute (`local`) when it is first needed, so that one is only away when it
    tells an error.
    """
    able = compute.capabilities or model.Capabilities()
    about = {"name": compute.name, "host": compute.host, "port": compute.port, "connected": bool(compute.connected)}
    can = {"version": able.version, "platform": able.platform, "node_types": sorted(able.node_types)}
    yield Entity("compute", compute.compute_id, about | can | {"last_error": compute.last_error})
    yield Sample("gns3_compute_connected", bool(compute.connected), {"compute": compute.compute_id})
    if not compute.connected and (compute.last_error or compute.compute_id != "local"):
        why = f": {compute.last_error}" if compute.last_error else ""
        message = f"the controller has no connection to compute {compute.name}{why}"
        fingerprint = f"compute_down:{compute.compute_id}"
        attributes = {"compute": compute.compute_id, "host": compute.host, "port": compute.port}
        yield Event("compute_down", message, "error", fingerprint, "firing", attributes)


def of_usage(compute: model.Compute) -> Iterator[Record]:
    """CPU and memory as the controller last heard of them."""
    labels = {"compute": compute.compute_id}
    if compute.connected and compute.cpu_usage_percent is not None:
        yield Sample("gns3_compute_cpu_usage_ratio", compute.cpu_usage_percent / 100, labels)
    if compute.connected and compute.memory_usage_percent is not None:
        yield Sample("gns3_compute_memory_usage_ratio", compute.memory_usage_percent / 100, labels)


def of_load(one: model.Statistics) -> Iterator[Record]:
    """Memory and swap in bytes; CPU, memory, swap, disk and load as ratios."""
    labels, load = {"compute": one.compute_id}, one.statistics
    for name in _BYTES:
        yield Sample(f"gns3_compute_{name}_bytes", getattr(load, name), labels)
    for name in _PERCENT:
        yield Sample(f"gns3_compute_{name}_ratio", getattr(load, f"{name}_percent") / 100, labels)
    for window, percent in zip(_WINDOWS, load.load_average_percent, strict=True):
        yield Sample("gns3_compute_load_average_ratio", percent / 100, labels | {"window": window})


def of_projects(projects: Sequence[model.Project]) -> Iterator[Record]:
    """How many are in each status, and each as an entity."""
    count = Counter(one.status for one in projects)
    for status in _STATUSES:
        yield Sample("gns3_projects", count[status], {"status": status})
    for one in projects:
        about = {"name": one.name, "status": one.status, "auto_start": one.auto_start, "auto_close": one.auto_close}
        yield Entity("project", str(one.project_id), about)


def of_stats(project: model.Project, stats: model.ProjectStats) -> Iterator[Record]:
    """What an open project holds."""
    for name in ("nodes", "links", "drawings", "snapshots"):
        yield Sample(f"gns3_project_{name}", getattr(stats, name), {"project": project.name})


def of_nodes(project: model.Project, nodes: Sequence[model.Node]) -> Iterator[Record]:
    """Each node as an entity and, in an open project, whether it runs."""
    for node in nodes:
        about = about_node(node) | {"project": project.name, "project_id": str(project.project_id)}
        yield Entity("node", str(node.node_id), about)
        if node.status is not None:
            labels = {"project": project.name, "node": node.name, "node_type": node.node_type}
            yield Sample("gns3_node_started", node.status == "started", labels)
    if project.status == "opened":
        count = Counter(node.status for node in nodes)
        for state in _STATES:
            yield Sample("gns3_project_nodes_in_state", count[state], {"project": project.name, "state": state})


def about_node(node: model.Node) -> dict[str, Any]:
    """What is told of a node. Its properties are not: they may hold passwords."""
    return {
        "name": node.name,
        "node_id": str(node.node_id),
        "node_type": node.node_type,
        "compute": node.compute_id,
        "status": node.status or "closed",
        "console": node.console,
        "console_type": node.console_type,
        "console_host": node.console_host,
        "ports": len(node.ports or ()),
    }


def of_links(project: model.Project, nodes: Mapping[UUID, model.Node], links: Sequence[model.Link]) -> Iterator[Record]:
    """Each connected port as an entity, each cable as a link between two of them."""
    for link in links:
        for end in link.nodes:
            yield Entity("node_port", _port_key(end), _about_port(project, nodes.get(end.node_id), end))
        if len(link.nodes) == 2:
            a, b = link.nodes
            about = {
                "link_id": str(link.link_id),
                "project": project.name,
                "nodes": [str(a.node_id), str(b.node_id)],
                "link_type": link.link_type,
                "capturing": bool(link.capturing),
                "suspended": bool(link.suspend),
                "filters": sorted(link.filters or ()),
            }
            yield Link("wired", ("node_port", _port_key(a)), ("node_port", _port_key(b)), about)
    labels = {"project": project.name}
    if project.status == "opened":
        yield Sample("gns3_project_links_capturing", sum(bool(one.capturing) for one in links), labels)
        yield Sample("gns3_project_links_suspended", sum(bool(one.suspend) for one in links), labels)
        yield Sample("gns3_project_links_filtered", sum(bool(one.filters) for one in links), labels)


def of_templates(templates: Sequence[model.Template]) -> Iterator[Record]:
    """How many there are of each type, and each as an entity."""
    for kind, count in sorted(Counter(one.template_type for one in templates).items()):
        yield Sample("gns3_templates", count, {"template_type": kind})
    for one in templates:
        about = {"name": one.name, "type": one.template_type, "category": one.category, "builtin": one.builtin}
        yield Entity("template", str(one.template_id), about | {"compute": one.compute_id})


def _port_key(end: model.LinkEnd) -> str:
    return f"{end.node_id}/{end.adapter_number}/{end.port_number}"


def _about_port(project: model.Project, node: model.Node | None, end: model.LinkEnd) -> dict[str, Any]:
    where = (end.adapter_number, end.port_number)
    ports = (node.ports or ()) if node else ()
    port = next((one for one in ports if (one.adapter_number, one.port_number) == where), None)
    about = {"project": project.name, "node": node.name if node else "", "node_id": str(end.node_id)}
    if port is None:
        return about
    return about | {"name": port.name, "link_type": port.link_type, "mac_address": port.mac_address}
