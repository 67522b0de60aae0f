"""The same thing said again and again by one device: told once, then counted.

In a window that begins with the first notification of a device, each different thing is told at once, and what comes
again is counted. When the window ends, the counts are told, and what a condition came to if that is not what was told
last: a link that flaps a thousand times ends as it is.
"""

import ipaddress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Literal

import msgspec

from nms_workers.fleet.inventory import Target
from nms_workers.records import Event
from nms_workers.transport.datagrams import Address
from nms_workers.traps.ber import Message
from nms_workers.traps.names import Names, Notification

MAX_MESSAGE = 500
_Key = tuple[str, str, tuple[object, ...]]


@dataclass(slots=True)
class _Said:
    """One thing of a window. Numbers of notifications order what came: the clock may stand still, or jump."""

    event: Event
    first: int
    last: int
    last_at: float
    again: int = 0


@dataclass(slots=True)
class _Window:
    target: Target
    ends: float
    said: dict[_Key, _Said] = field(default_factory=dict)
    left_out: int = 0
    left_out_last: str = ""


class Storms:
    """What is being said by each target. For one thread.

    Args:
        window: seconds.
        most: different things of one target that are told in one window; of the rest only their number is told.
    """

    def __init__(self, names: Names, window: float, most: int) -> None:
        self._names, self._window, self._most = names, window, most
        self._windows: dict[int, _Window] = {}
        self._count = 0

    def take(
        self, target: Target, address: Address, message: Message, now: float
    ) -> Event | Literal["counted", "over_limit"]:
        """Take a notification.

        Args:
            now: seconds since 1970.

        Returns:
            The event to tell, or what became of the notification instead.
        """
        self._count += 1
        window = self._windows.get(target.id)
        if window is None:
            window = self._windows[target.id] = _Window(target, now + self._window)
        notification = self._names.notification(message.trap)
        state, about = self._names.tells(notification, message.varbinds)
        key = (message.trap, state, about)
        said = window.said.get(key)
        if said is not None:
            said.again += 1
            said.last, said.last_at = self._count, now
            return "counted"
        if len(window.said) >= self._most:
            window.left_out += 1
            window.left_out_last = notification.name
            return "over_limit"
        event = _event(self._names, notification, message, address, now)
        event = msgspec.structs.replace(event, state=state, fingerprint=_fingerprint(notification, about))
        window.said[key] = _Said(event, self._count, self._count, now)
        return event

    def ended(self, now: float) -> list[tuple[Target, Event]]:
        """What is to be told of the windows that ended by `now`; infinity ends all."""
        over = [window for window in self._windows.values() if window.ends <= now]
        for window in over:
            del self._windows[window.target.id]
        return [(window.target, event) for window in over for event in self._summary(window)]

    def _summary(self, window: _Window) -> list[Event]:
        told = []
        lasting: dict[tuple[str, str], list[_Said]] = {}
        for said in window.said.values():
            if said.event.state != "occurred":
                lasting.setdefault((said.event.kind, said.event.fingerprint), []).append(said)
            if said.again:
                told.append(_again(said, self._window))
        for both in lasting.values():
            came_to = max(both, key=lambda one: one.last)
            if came_to is not max(both, key=lambda one: one.first):
                told.append(msgspec.structs.replace(came_to.event, ts=_moment(came_to.last_at)))
        if window.left_out:
            message = f"{window.left_out} more notifications in {self._window:g} s, the last one {window.left_out_last}"
            about = {"left_out": window.left_out}
            told.append(Event("trap_storm", message, "warning", attributes=about))
        return told


def _event(names: Names, notification: Notification, message: Message, address: Address, now: float) -> Event:
    variables = [names.variable(varbind) for varbind in message.varbinds]
    words = " ".join(f"{one.label}={one.value}" for one in variables)
    attributes = {
        "trap": message.trap,
        "version": ("1", "2c", "", "3")[message.version],
        "source": _text(address),
        "uptime_seconds": message.uptime / 100,
        "variables": {one.label: one.value for one in variables},
    }
    return Event(
        kind=notification.condition or notification.name,
        message=f"{notification.name}: {words}"[:MAX_MESSAGE] if words else notification.name,
        severity=notification.severity,
        attributes=attributes,
        ts=_moment(now),
    )


def _again(said: _Said, window: float) -> Event:
    return Event(
        kind="trap_repeated",
        message=f"{said.again} times more in {window:g} s: {said.event.message}"[:MAX_MESSAGE],
        severity=said.event.severity,
        fingerprint=f"{said.event.kind} {said.event.state} {said.event.fingerprint}",
        attributes={"repeated": said.event.kind, "trap": said.event.attributes["trap"], "count": said.again},
        ts=_moment(said.last_at),
    )


def _fingerprint(notification: Notification, about: tuple[object, ...]) -> str:
    if notification.condition:
        return f"{notification.condition} {about[0]}".rstrip()
    if not about:
        return notification.name
    return f"{notification.name} {blake2b(msgspec.msgpack.encode(about), digest_size=8).hexdigest()}"


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _text(address: Address) -> str:
    return str(ipaddress.ip_address(address))
