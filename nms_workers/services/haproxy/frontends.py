"""Frontends that stop and start to take connections."""

from nms_workers.change import Change
from nms_workers.errors import Refused
from nms_workers.services.haproxy.client import HaproxyClient, needed
from nms_workers.services.haproxy.runtime import refused
from nms_workers.services.haproxy.target import Name

_PAUSED, _STOPPED = "PAUSED", "STOP"


def set_enabled(client: HaproxyClient, frontend: Name, enabled: bool) -> Change:
    """See `Haproxy.enable_frontend` and `disable_frontend`."""
    socket = needed(client.socket, "set socket")
    before = _state(client, frontend)
    word = "enabled" if enabled else "disabled"
    if before == _STOPPED:
        raise Refused(f"frontend {frontend} was shut down", hint="only a reload or restart of HAProxy brings it back")
    if (before != _PAUSED) is enabled:
        return Change(changed=False, message=f"{frontend} is {word} already", before={"enabled": enabled})
    command = f"{'enable' if enabled else 'disable'} frontend {frontend}"
    answer = socket.ask(command)
    if answer and not answer.startswith("All sockets are already"):
        raise refused(command, answer)
    after = _state(client, frontend)
    if (after != _PAUSED) is not enabled:
        raise Refused(f"HAProxy took the command, and {frontend} is {after}", hint="look at HAProxy's log")
    return Change(changed=True, message=f"{frontend} {word}", before={"enabled": not enabled}, after={"state": after})


def _state(client: HaproxyClient, frontend: str) -> str:
    rows = (row for row in client.get_stats() if row.kind == "frontend" and row.proxy == frontend)
    if (found := next(rows, None)) is None:
        raise Refused(f"there is no frontend {frontend}", hint="see get_stats")
    return found.state
