"""ntopng: what is polled."""

from collections.abc import Iterator

from nms_workers.errors import Refused
from nms_workers.records import Record, Sample
from nms_workers.service import Service, poll
from nms_workers.services.ntopng import alerts, readings
from nms_workers.services.ntopng.client import NotThere, NtopngClient, Status
from nms_workers.services.ntopng.model import Alert, Interface
from nms_workers.services.ntopng.target import Family, NtopngTarget

_SYSTEM = Interface(-1, "system", "system")  # alerts about ntopng itself, and of no interface


class Ntopng(Service):
    """Traffic analysis: the interfaces that ntopng watches, their hosts, flows and applications, its alerts and health.

    Alerts that last fire as events until ntopng names them no more; alerts that are over are told once, by their row.
    Hosts and flows are the greatest ones of each interface, and each read has others.
    """

    kind = "ntopng"
    Target = NtopngTarget
    client = NtopngClient
    port = 3000

    @poll(every="30s", enumerates=("interface", "ntopng", "licence"))
    def interfaces(self, client: NtopngClient) -> Iterator[Record]:
        """Counters, throughput, drops, hosts, flows and alerts of each interface; how long ntopng is up."""
        there = client.get_interfaces()
        yield Sample("ntopng_interfaces", len(there))
        told = []
        for one in _wanted(client, there):
            data = client.get_interface_data(one.ifid)
            yield from readings.of_interface(one, data)
            told.append((one, data))
        yield from readings.of_ntopng(told)
        _all_or_told(client, there)

    @poll(every="60s", volatile=True)
    def protocols(self, client: NtopngClient) -> Iterator[Record]:
        """Flows by IP protocol; flows and bytes by application."""
        for one in _wanted(client, client.get_interfaces()):
            l4, l7 = client.get_l4_counters(one.ifid), client.get_l7_counters(one.ifid)
            volumes = client.get_l7_bytes(one.ifid)
            yield from readings.of_protocols(one, l4, l7, volumes, client.target.max_protocols)

    @poll(every="60s", volatile=True)
    def hosts(self, client: NtopngClient) -> Iterator[Record]:
        """The hosts with the most traffic of each interface: traffic, flows, DNS, alerts, score."""
        if client.target.max_hosts == 0:
            return
        for one in _wanted(client, client.get_interfaces()):
            for host in client.get_hosts(one.ifid):
                try:
                    data = client.get_host_data(one.ifid, host.ip, host.vlan, readings.HOST_FIELDS)
                except NotThere:  # it was idle, and is forgotten
                    continue
                yield from readings.of_host(one, host, data)

    @poll(every="60s", volatile=True)
    def flows(self, client: NtopngClient) -> Iterator[Record]:
        """The active flows with the most throughput of each interface, summed up to conversations."""
        if client.target.max_flows == 0:
            return
        for one in _wanted(client, client.get_interfaces()):
            found, total = client.get_flows(one.ifid)
            yield from readings.of_flows(one, found, total)

    @poll(every="60s", enumerates=("alert",))
    def engaged_alerts(self, client: NtopngClient) -> Iterator[Record]:
        """Alerts that last, of each interface and of ntopng itself."""
        left_out = 0
        refused: list[Refused] = []
        for interface, family, found, total in _looked_for(client, "engaged", refused):
            yield Sample("ntopng_engaged_alerts", total, {"interface": interface.ifname, "family": family})
            for one in found:
                yield alerts.engaged(interface, one)
            left_out += total - len(found)
        if refused:
            raise refused[0]
        if left_out:
            raise Refused(f"{left_out} engaged alerts are over max_alerts and not told", hint="raise max_alerts")

    @poll(every="60s")
    def past_alerts(self, client: NtopngClient) -> Iterator[Record]:
        """Alerts that are over since the last look, of each interface and of ntopng itself."""
        refused: list[Refused] = []
        for interface, family, found, total in _looked_for(client, "historical", refused):
            for one in found:
                yield alerts.past(interface, one)
            first, rest = client.last_row(family, interface.ifid) is None, total - len(found)
            where = {"interface": interface.ifname}
            yield Sample("ntopng_left_out", rest if first else 0, where | {"what": f"past {family} alert"})
            yield Sample("ntopng_past_alerts_waiting", 0 if first else rest, where | {"family": family})
            _remember(client, family, interface, found)
        if refused:
            raise refused[0]

    @poll(every="60s", enumerates=("host_of_ntopng", "redis_unhealthy"))
    def system(self, client: NtopngClient) -> Iterator[Record]:
        """Version and licence; CPU, memory, storage and queues of alerts; the Redis of ntopng."""
        yield from readings.of_status(client.get_system_status())
        yield from readings.of_redis(client.get_redis_health())
        yield from readings.of_system(client.get_system_health())


def _chosen(client: NtopngClient, there: list[Interface]) -> list[Interface]:
    names = set(client.target.interfaces)
    return [one for one in there if not names or one.ifname in names or str(one.ifid) in names]


def _wanted(client: NtopngClient, there: list[Interface]) -> list[Interface]:
    """The interfaces that are read: those of the settings, up to the limit."""
    return _chosen(client, there)[: client.target.max_interfaces]


def _all_or_told(client: NtopngClient, there: list[Interface]) -> None:
    """Raise when an interface of the settings is not there, or some are over the limit.

    Raises:
        Refused: so; those that were read are kept, and none counts as gone.
    """
    missing = set(client.target.interfaces) - {one.ifname for one in there} - {str(one.ifid) for one in there}
    if missing:
        known = ", ".join(one.ifname for one in there[:20])
        raise Refused(f"ntopng watches no interface {', '.join(sorted(missing))}", hint=f"it watches: {known}")
    chosen, limit = len(_chosen(client, there)), client.target.max_interfaces
    if chosen > limit:
        raise Refused(f"{chosen - limit} of {chosen} interfaces are over max_interfaces", hint="raise max_interfaces")


def _looked_for(
    client: NtopngClient, status: Status, refused: list[Refused]
) -> Iterator[tuple[Interface, Family, list[Alert], int]]:
    """The alerts of each place, and how many there are; a family that this ntopng has not does not cost the others."""
    for interface, family in _alert_places(client):
        if (status, family) == ("engaged", "flow"):  # a flow is over before its alert is told
            continue
        known = client.last_row(family, interface.ifid) if status == "historical" else None
        try:
            found, total = client.get_alerts(interface.ifid, family, status, known)
        except Refused as exc:
            refused.append(exc)
        else:
            yield interface, family, found, total


def _alert_places(client: NtopngClient) -> Iterator[tuple[Interface, Family]]:
    """Where alerts are looked for: each family at each interface, those about ntopng itself once."""
    families = client.target.alert_families
    for one in _wanted(client, client.get_interfaces()):
        yield from ((one, family) for family in families if family != "system")
    if "system" in families:
        yield _SYSTEM, "system"


def _remember(client: NtopngClient, family: str, interface: Interface, found: list[Alert]) -> None:
    if rows := [row for one in found if (row := alerts.row_number(one)) is not None]:
        client.remember_row(family, interface.ifid, max(rows))
