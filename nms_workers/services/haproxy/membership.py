"""Servers that come and go: added to a backend, removed from it, and put back as they were."""

from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from nms_workers.change import Change
from nms_workers.errors import Refused
from nms_workers.services.haproxy.answers import ServerState
from nms_workers.services.haproxy.client import needed
from nms_workers.services.haproxy.servers import Before, Server, as_settings, same_place


class Wanted(NamedTuple):
    """How a server that is added shall be."""

    address: IPv4Address | IPv6Address
    port: int
    weight: int | None
    check: bool
    ready: bool


def add(one: Server, wanted: Wanted, persist: bool) -> Change:
    """See `Haproxy.add_server`."""
    now = one.look()
    if now is not None and not same_place(now, wanted.address, wanted.port):
        raise Refused(
            f"{one.name} is there already, at {now.address} port {now.port}", hint="remove it first, or use set_addr"
        )
    before = {"exists": now is not None}
    changed = _configure(one, wanted) if persist else False
    changed = _run(one, wanted) or changed
    message = f"{one.name} added at {wanted.address} port {wanted.port}" if changed else f"{one.name} is there already"
    return Change(changed=changed, message=message, before=before, after={"exists": True, **_about(one.found())})


def remove(one: Server, wait: float, persist: bool, even_last: bool) -> Change:
    """See `Haproxy.remove_server`."""
    now = one.look()
    configured = one.configured() if persist else None
    if now is None and configured is None:
        return Change(changed=False, message=f"there is no server {one.name}", before={"exists": False})
    before = {"exists": True, **(_about(now) if now else {}), "configured": configured}
    if now is not None:
        one.others_serve(even_last)
    if configured is not None:
        needed(one.client.configuration, "set dataplane").delete(one.backend, one.server)
    if one.look() is not None:
        one.delete(wait)
    return Change(changed=True, message=f"{one.name} removed", before=before, after={"exists": False})


def restore(one: Server, before: Before) -> Change:
    """See `Haproxy.restore_server`."""
    was = one.look()
    done: list[str] = []
    if before.configured is not None and one.configured() != before.configured:
        _restore_configuration(one, before.configured)
        done.append("the configuration")
    if one.look() is None:
        _put_back(one, before)
        done.append("the server")
    now = one.found()
    address, port = before.address, before.port or now.port
    if address is not None and not same_place(now, address, port):
        one.move(address, port)
        done.append("the address")
    if before.weight is not None and now.weight is not None and now.weight != before.weight:
        one.set_weight(before.weight)
        done.append("the weight")
    if before.state is not None and one.found().admin != before.state:
        one.set_state(before.state)
        done.append("the state")
    message = f"{', '.join(done)} of {one.name} put back" if done else f"{one.name} is as it was already"
    was_so = _about(was) if was else {"exists": False}
    return Change(changed=bool(done), message=message, before=was_so, after=_about(one.found()))


def _configure(one: Server, wanted: Wanted) -> bool:
    """Add it to the configuration; False when it is there."""
    found = one.configured()
    if found is None:
        settings = as_settings(wanted.address, wanted.port, wanted.weight, wanted.check)
        settings |= {} if wanted.ready else {"maintenance": "enabled"}
        needed(one.client.configuration, "set dataplane").add(one.backend, one.server, settings)
        return True
    if (found.get("address"), found.get("port")) != (str(wanted.address), wanted.port):
        place = f"{found.get('address')} port {found.get('port')}"
        raise Refused(f"the configuration has {one.name} already, at {place}", hint="remove it first, or use set_addr")
    return False


def _run(one: Server, wanted: Wanted) -> bool:
    """Bring it about in the running process, each step only where it is needed; whether there was one."""
    now, changed = one.look(), False
    if now is None:
        if wanted.check and not one.client.socket:
            hint = "set socket as well, say persist, or add it without check"
            raise Refused("the Data Plane API cannot begin the checks of a server it adds at run time", hint=hint)
        one.add(wanted.address, wanted.port, wanted.weight, wanted.check)
        now, changed = one.found(), True
    if wanted.check and now.checked is False:
        one.check()
        changed = True
    if wanted.ready and now.admin != "ready":
        one.set_state("ready")
        changed = True
    return changed


def _put_back(one: Server, before: Before) -> None:
    if before.address is None or before.port is None:
        raise Refused(f"{one.name} is gone, and its address is not known", hint="use add_server")
    ready = before.state in (None, "ready")
    _run(one, Wanted(before.address, before.port, before.weight, bool(before.checked), ready))


def _restore_configuration(one: Server, settings: dict[str, object]) -> None:
    configuration = needed(one.client.configuration, "set dataplane")
    if one.configured() is None:
        configuration.add(one.backend, one.server, settings)
    else:
        configuration.replace(one.backend, one.server, settings)


def _about(now: ServerState) -> dict[str, object]:
    place = {"address": now.address or None, "port": now.port or None}
    told = {**place, "state": now.admin, "weight": now.weight, "checked": now.checked}
    return {name: value for name, value in told.items() if value is not None}
