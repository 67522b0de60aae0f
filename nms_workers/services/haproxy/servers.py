"""Changes of servers: looked at before, checked after. At run time by the socket or the Data Plane API, for good by
the latter's transactions."""

import re
import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from pydantic import BaseModel, ConfigDict

from nms_workers.change import Change
from nms_workers.errors import Refused
from nms_workers.services.haproxy.answers import ServerState
from nms_workers.services.haproxy.client import HaproxyClient, needed
from nms_workers.services.haproxy.runtime import refused
from nms_workers.services.haproxy.target import Name, Port, ServerAddress, State
from nms_workers.services.haproxy.transactions import Settings
from nms_workers.transport.deadline import remaining

_SETTLE = 5.0  # seconds after which a change that was taken has to be seen
_PAUSE = 0.1
_USABLE = ("UP", "no check")
_NOTHING = re.compile(r"\Z")
_MOVED = re.compile(r"(IP changed|port changed|no need to change)")
_BUSY = re.compile(r"still (has|attached)|has still")
_LAST_HINT = "bring another one up first, or say even_last"


class Before(BaseModel):
    """What a server was, as the `before` of a change has it; what is None is left as it is."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    state: State | None = None
    weight: int | None = None
    address: ServerAddress | None = None
    port: Port | None = None
    checked: bool | None = None
    configured: dict[str, Any] | None = None


class Server:
    """One server of a backend, which may not be there yet.

    Every method raises what the client does.

    Args:
        client: how HAProxy is spoken to.
        backend, server: names of the form of `target.Name`.
    """

    def __init__(self, client: HaproxyClient, backend: Name, server: Name) -> None:
        self.client, self.backend, self.server = client, backend, server
        self.name = f"{backend}/{server}"

    def look(self) -> ServerState | None:
        """What it is now; None: it is not there.

        Raises:
            Refused: there is no such backend.
        """
        found = self.client.get_servers_state(self.backend)
        return next((one for one in found if one.server == self.server), None)

    def found(self) -> ServerState:
        """The same, when it has to be there.

        Raises:
            Refused: it is not.
        """
        if (now := self.look()) is None:
            raise Refused(f"backend {self.backend} has no server {self.server}", hint="see get_servers")
        return now

    def configured(self) -> Settings | None:
        """What the configuration file has of it; None: nothing."""
        return needed(self.client.configuration, "set dataplane").server(self.backend, self.server)

    def others_serve(self, even_last: bool) -> None:
        """Look whether the backend can do without it.

        Raises:
            Refused: it is the last that takes requests, and nobody said `even_last`.
        """
        rows = self.client.get_servers(self.backend)
        usable = [row.name for row in rows if row.state in _USABLE and row.number("weight") > 0]
        if usable == [self.server] and not even_last:
            raise Refused(f"{self.server} is the last server of {self.backend} that takes requests", hint=_LAST_HINT)

    def set_state(self, state: State) -> None:
        """Make it `ready`, drain it, or put it into maintenance."""
        if self.client.socket:
            self._say(f"set server {self.name} state {state}")
        else:
            needed(self.client.dataplane, "set socket or dataplane").set_state(self.backend, self.server, state)
        self._await(lambda: self.found().admin == state, f"{self.name} is {state}")

    def set_weight(self, weight: int) -> None:
        """Give it a weight."""
        self._say(f"set server {self.name} weight {weight}")
        self._await(lambda: self.found().weight == weight, f"{self.name} has the weight {weight}")

    def move(self, address: IPv4Address | IPv6Address, port: int) -> None:
        """Let it be at another address."""
        where = f"addr {address}" + (f" port {port}" if port else "")  # 0 is the port of the client's connection
        self._say(f"set server {self.name} {where}", _MOVED)
        self._await(lambda: same_place(self.found(), address, port), f"{self.name} is at {address} port {port}")

    def add(self, address: IPv4Address | IPv6Address, port: int, weight: int | None, check: bool) -> None:
        """Add it to the running process, in maintenance."""
        if not self.client.socket:
            api = needed(self.client.dataplane, "set socket or dataplane")
            api.add_server(self.backend, self.server, as_settings(address, port, weight, check))
            return
        host = f"[{address}]" if address.version == 6 else str(address)
        more = (f" weight {weight}" if weight is not None else "") + (" check" if check else "")
        command = f"add server {self.name} {host}:{port}{more}"
        answer = self.client.socket.ask(command, experimental=True)
        if not answer.startswith("New server registered"):
            raise refused(command, answer)

    def check(self) -> None:
        """Begin to check its health: a server that was added is not checked before."""
        self._say(f"enable health {self.name}")

    def delete(self, wait: float) -> None:
        """Delete it from the running process: into maintenance, and gone when its connections have ended.

        Args:
            wait: seconds for its connections to end.

        Raises:
            Refused: they did not; it is again in the state it was in.
        """
        was = self.found().admin
        if was != "maint":
            self.set_state("maint")
        try:
            gone = self._gone_in(wait)
        except Refused:
            self._back_to(was)
            raise
        if not gone:
            self._back_to(was)
            hint = "drain it first and try again later, or give it more time to wait"
            raise Refused(f"{self.name} still has connections after {wait:g} s", hint=hint)
        self._await(lambda: self.look() is None, f"{self.name} is gone")

    def _back_to(self, state: State) -> None:
        if state != "maint":
            self.set_state(state)

    def _gone_in(self, wait: float) -> bool:
        ends = time.monotonic() + wait
        while not self._deleted():
            if time.monotonic() >= ends:
                return False
            time.sleep(remaining(_PAUSE * 5))
        return True

    def _deleted(self) -> bool:
        """Try once; False when connections hold it."""
        if not self.client.socket:
            api = needed(self.client.dataplane, "set socket or dataplane")
            try:
                api.delete_server(self.backend, self.server)
            except Refused as exc:
                if _BUSY.search(exc.message):
                    return False
                raise
            return True
        command = f"del server {self.name}"
        answer = self.client.socket.ask(command, experimental=True)
        if _BUSY.search(answer):
            return False
        if not answer.startswith("Server deleted"):
            raise refused(command, answer)
        return True

    def _say(self, command: str, good: re.Pattern[str] = _NOTHING) -> None:
        """A command whose good answer begins like `good`: for most there is none."""
        socket = needed(self.client.socket, "say persist, or set socket")
        answer = socket.ask(command)
        if not good.match(answer):
            raise refused(command, answer)

    def _await(self, done: Callable[[], bool], what: str) -> None:
        ends = time.monotonic() + _SETTLE
        while not done():
            if time.monotonic() >= ends:
                hint = "does something else set it at the same time: an agent, DNS, another operator?"
                raise Refused(f"HAProxy took the command, and {_SETTLE:g} s later it is not so that {what}", hint=hint)
            time.sleep(remaining(_PAUSE))


def set_state(one: Server, state: State, even_last: bool) -> Change:
    """See `Haproxy.set_server_state`."""
    before = one.found()
    if before.admin == state:
        message = f"{one.name} is {state} already"
        return Change(changed=False, message=message, before={"state": state}, after={"state": state})
    if state != "ready":
        one.others_serve(even_last)
    one.set_state(state)
    after = {"state": state, "operational": one.found().operational}
    message = f"{one.name} went from {before.admin} to {state}"
    return Change(changed=True, message=message, before={"state": before.admin}, after=after)


def set_weight(one: Server, weight: int | str, persist: bool, even_last: bool) -> Change:
    """See `Haproxy.set_weight`."""
    if persist and isinstance(weight, str):
        raise Refused("the configuration takes no percentage", hint="write the weight itself, 0 to 256")
    now = one.found()
    wanted = weight if isinstance(weight, int) else _share(weight, now)
    if wanted == 0:
        one.others_serve(even_last)
    configured = one.configured() if persist else None
    before = {"weight": now.weight, "configured": configured}
    changed = persist and (configured or {}).get("weight") != wanted
    if changed:
        needed(one.client.configuration, "set dataplane").edit(one.backend, one.server, {"weight": wanted})
        now = one.found()
    if now.weight != wanted and (one.client.socket or not persist):
        one.set_weight(wanted)
        changed = True
    message = f"{one.name} has the weight {wanted}" + ("" if changed else " already")
    return Change(changed=changed, message=message, before=before, after={"weight": wanted})


def _share(percentage: str, of: ServerState) -> int:
    """The weight that is this share of the configured one, as HAProxy counts: rounded down."""
    return needed(of.initial_weight, "set socket, which tells the configured weight,") * int(percentage[:-1]) // 100


def move(one: Server, address: IPv4Address | IPv6Address, port: int | None, persist: bool) -> Change:
    """See `Haproxy.set_addr`."""
    now = one.found()
    to = now.port if port is None else port
    configured = one.configured() if persist else None
    before = {"address": now.address or None, "port": now.port or None, "configured": configured}
    wanted = {"address": str(address), "port": to}
    changed = persist and any((configured or {}).get(key) != value for key, value in wanted.items())
    if changed:
        needed(one.client.configuration, "set dataplane").edit(one.backend, one.server, wanted)
        now = one.found()
    if not same_place(now, address, to):
        one.move(address, to)
        changed = True
    message = f"{one.name} is at {address} port {to}" + ("" if changed else " already")
    return Change(changed=changed, message=message, before=before, after=wanted)


def same_place(one: ServerState, address: IPv4Address | IPv6Address, port: int) -> bool:
    """Whether a server is at this address, however it is written."""
    try:
        return ip_address(one.address) == address and one.port == port
    except ValueError:  # a host name that is not resolved, or the path of a socket
        return False


def as_settings(address: IPv4Address | IPv6Address, port: int, weight: int | None, check: bool) -> Settings:
    """A server as the Data Plane API writes it."""
    settings: Settings = {"address": str(address), "port": port}
    return settings | ({"weight": weight} if weight is not None else {}) | ({"check": "enabled"} if check else {})
