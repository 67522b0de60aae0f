"""The running configuration of a device: read, kept as versions, compared, shown without secrets, put back.

The history in PostgreSQL has each version masked, as an entity that lasts as long as the version was in force. The
archive of the target has it whole, so that it can be put back.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from nms_workers.change import Change, about_to_change
from nms_workers.errors import ConfigError, Refused
from nms_workers.records import Entity, Event, Record, Sample
from nms_workers.services.snmp.archive import Archive, Version
from nms_workers.services.snmp.drivers import drivers
from nms_workers.services.snmp.login import session
from nms_workers.services.snmp.masking import Family, difference, families
from nms_workers.services.snmp.target import ConfigurationAccess, SnmpTarget

_SHOWN = 200_000  # bytes of masked text in one record; an entity has room for 262,144
_DIFF = 60_000


class Configuration:
    """The configuration of one device.

    Raises:
        ConfigError: the target does not say how it is read.
    """

    def __init__(self, target: SnmpTarget) -> None:
        if target.configuration is None:
            hint = "write driver, username, password and archive under `configuration` of the target"
            raise ConfigError(f"nothing says how the configuration of {target.host} is read", hint=hint)
        access: ConfigurationAccess = target.configuration
        self._host, self._access = target.host, access
        self._archive = Archive(access.archive / f"{target.host}_{access.port}", access.keep)
        self._family: Family = families()[drivers()[access.driver].masks]

    def poll(self) -> Iterator[Record]:
        """The version in force, and the change that brought it."""
        with session(self._host, self._access) as device:
            text = device.running()
        version = self._keep(text)
        lines = self._family.lasting(text)
        shown, cut = _fitting(self._family.masked(lines), _SHOWN)
        about = {"driver": self._access.driver, "lines": len(lines), "text": shown} | ({"cut": True} if cut else {})
        yield Entity("configuration", version.name, about)
        yield Sample("snmp_configuration_lines", len(lines))
        yield Sample("snmp_configuration_changed_timestamp_seconds", version.since.timestamp())
        yield from self._change()

    def show(self, version: str, against: str) -> Change:
        """A version without secrets, or the running configuration; or what is different in another one."""
        lines = self._lines(version)
        what = f"version {version}" if version else "the running configuration"
        if against:
            told, came, went = difference(self._family, self._lines(against), lines)
            after = _diff(told)
            return Change(changed=False, message=f"from {against} to {what}: {_count(came, went)}", after=after)
        shown, cut = _fitting(self._family.masked(lines), _SHOWN)
        versions = [one.name for one in self._archive.versions()]
        after = {"configuration": shown, "cut": cut, "versions": versions}
        return Change(changed=False, message=f"{what} has {len(lines)} lines", after=after)

    def restore(self, version: str, *, dry_run: bool) -> Change:
        """Put a version in place of the running configuration, and read it again.

        Raises:
            Refused: there is no such version, the driver reads only, the device does not take it, or has another
                configuration after it took it.
        """
        text = self._archive.text(version)
        wanted = self._family.lasting(text)
        with session(self._host, self._access) as device:
            was = device.running()
            before = self._keep(was)  # what is there now is not lost
            told, came, went = difference(self._family, self._family.lasting(was), wanted)
            about = {"version": before.name}
            if not told:
                return Change(changed=False, message=f"{version} is in force already", before=about, after=about)
            if not dry_run:
                about_to_change(about)
            device.replace(text, agreed=lambda diff: bool(diff.strip()) and not dry_run)
            now = was if dry_run else device.running()
        after = _diff(told)
        if not dry_run:
            self._verify(wanted, now)
            after["version"] = self._keep(now).name
        return Change(changed=True, message=f"back to {version}: {_count(came, went)}", before=about, after=after)

    def _verify(self, wanted: Sequence[str], now: str) -> None:
        left, came, went = difference(self._family, wanted, self._family.lasting(now))
        if left:
            self._keep(now)
            rest = "\n".join(left)[:2000]
            hint = "show_configuration names its versions; the one before the last is what it had"
            message = f"{self._host} took the configuration, and has another: {_count(came, went)}\n{rest}"
            raise Refused(message, hint=hint)

    def _keep(self, text: str) -> Version:
        """The version of this text: the newest, unless it is another."""
        versions = self._archive.versions()
        if versions and self._family.lasting(self._archive.text(versions[-1].name)) == self._family.lasting(text):
            return versions[-1]
        return self._archive.put(text, datetime.now(UTC))

    def _lines(self, version: str) -> list[str]:
        if version:
            return self._family.lasting(self._archive.text(version))
        with session(self._host, self._access) as device:
            return self._family.lasting(device.running())

    def _change(self) -> Iterator[Event]:
        """The last change. It has the time of its version, so however often it is yielded the history has it once.

        Yielded once only, it would be lost with a worker that dies between its reading and the storing of what it read.
        """
        versions = self._archive.versions()[-2:]
        if len(versions) < 2:
            return
        old, new = (self._family.lasting(self._archive.text(one.name)) for one in versions)
        told, came, went = difference(self._family, old, new)
        about = _diff(told) | {"before": versions[0].name, "after": versions[1].name}
        yield Event(
            "configuration_changed",
            f"the configuration changed: {_count(came, went)}",
            severity="warning",
            attributes=about,
            ts=versions[1].since,
        )


def _count(came: int, went: int) -> str:
    return f"{came} lines came, {went} went"


def _diff(told: Sequence[str]) -> dict[str, Any]:
    shown, cut = _fitting(told, _DIFF)
    return {"diff": shown} | ({"cut": True} if cut else {})


def _fitting(lines: Sequence[str], limit: int) -> tuple[str, bool]:
    """As many lines as fit into so many bytes of JSON, and whether some did not."""
    size, kept = 0, 0
    for line in lines:
        size += len(msgspec.json.encode(line))
        if size > limit:
            break
        kept += 1
    return "\n".join(lines[:kept]), kept < len(lines)
