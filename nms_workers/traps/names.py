"""What notifications and objects are called: from `names.toml`, the user's files of the same form, and MIB files."""

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from nms_workers.errors import ConfigError
from nms_workers.records import Severity, State
from nms_workers.services.snmp.mibs import compiled
from nms_workers.services.snmp.oid import oid as checked
from nms_workers.traps.ber import Varbind
from nms_workers.traps.values import written

OURS = Path(__file__).with_name("names.toml")


class Good(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The values of an object that mean that a condition is over."""

    object: str
    values: tuple[int, ...]


class Object(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A column or scalar."""

    oid: str
    words: Mapping[int, str] = {}


class Notification(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A notification; the head of `names.toml` tells the fields."""

    oid: str
    severity: Severity = "info"
    condition: str = ""
    state: State = "occurred"
    per: tuple[str, ...] = ()
    ok: Good | None = None
    name: str = ""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    notification: Mapping[str, Notification] = {}
    object: Mapping[str, Object] = {}


class Named(NamedTuple):
    """A variable: `name.instance`, the object's name, its instance, and its value as people read it."""

    label: str
    name: str
    instance: str
    value: int | str | None


class Names:
    """Finds names. Not to be shared between threads.

    Args:
        files: the user's; what they name comes before ours.
        mibs: folders of MIB files, for the names of what none of these files has.

    Raises:
        ConfigError: a file cannot be used; the message says where and why.
    """

    def __init__(self, files: Iterable[Path] = (), mibs: tuple[Path, ...] = ()) -> None:
        self._notifications: dict[str, Notification] = {}
        self._objects: dict[str, tuple[str, Object]] = {}
        self._place = lru_cache(maxsize=65_536)(self._find)
        known: set[str] = set()
        for path, told in (*_of_mibs(mibs), *((path, _read(path)) for path in (OURS, *files))):
            known |= told.object.keys()
            for name, one in told.notification.items():
                _check(path, name, one, known)
                self._notifications[one.oid] = msgspec.structs.replace(one, name=name)
            for name, thing in told.object.items():
                self._objects[_oid(path, name, thing.oid)] = (name, thing)

    def notification(self, trap: str) -> Notification:
        """The notification of this object identifier. One that is not known is called by it, and is a warning."""
        found = self._notifications.get(trap) or self._notifications.get(_without_zero(trap))
        return found or Notification(trap, severity="warning", name=trap)

    def variable(self, varbind: Varbind) -> Named:
        """A variable in words. An object that is not known is called by its object identifier."""
        oid, tag, contents = varbind
        name, index, words = self._place(oid)
        value = written(tag, contents)
        if isinstance(value, int):
            value = words.get(value, value)
        return Named(f"{name}.{index}" if index not in ("", "0") else name, name, index, value)

    def tells(self, notification: Notification, varbinds: Iterable[Varbind]) -> tuple[State, tuple[object, ...]]:
        """Whether it begins, ends or only happens, and what tells it from others of its kind at the same device.

        That is the index of the first of its `per` objects that it carries; of one without `per`, its variables.
        """
        if not notification.condition:
            return notification.state, tuple(varbinds)
        state, about = notification.state, ""
        for oid, tag, contents in varbinds:
            name, index, _ = self._place(oid)
            if notification.ok and name == notification.ok.object:
                over = written(tag, contents) in notification.ok.values
                state = "resolved" if over else "firing"
            if not about and name in notification.per:
                about = index or str(written(tag, contents))  # some agents leave the index out
        return state, (about,)

    def _find(self, oid: str) -> tuple[str, str, Mapping[int, str]]:
        """The object of an instance, its index, and what its numbers mean."""
        base = oid
        while base:
            if found := self._objects.get(base):
                return found[0], oid[len(base) + 1 :], found[1].words
            base = base.rpartition(".")[0]
        return oid, "", {}


def _of_mibs(folders: tuple[Path, ...]) -> Iterator[tuple[Path, _File]]:
    """MIB files do not say how grave a notification is, nor which one ends another: each is a warning."""
    for module, told in compiled(folders).items():
        symbols = [one for one in told.values() if isinstance(one, dict) and "oid" in one]
        notifications = [one for one in symbols if one["class"] == "notificationtype"]
        objects = [one for one in symbols if one.get("nodetype") in ("scalar", "column")]
        yield (
            Path(module),
            _File(
                {one["name"]: Notification(one["oid"], "warning") for one in notifications},
                {one["name"]: Object(one["oid"], _words(one)) for one in objects},
            ),
        )


def _words(symbol: Mapping[str, Any]) -> Mapping[int, str]:
    constraints = symbol.get("syntax", {}).get("constraints", {})
    return {number: word for word, number in constraints.get("enumeration", {}).items()}


def _read(path: Path) -> _File:
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), _File, strict=False)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as exc:
        raise ConfigError(f"the names of traps in {path} cannot be used: {exc}") from None


def _check(path: Path, name: str, one: Notification, objects: set[str]) -> None:
    _oid(path, name, one.oid)
    lasts = one.state != "occurred" or one.ok is not None
    if lasts != bool(one.condition):
        raise ConfigError(f"{path}, notification {name}: a condition needs a state or ok, and they need a condition")
    named = {*one.per, *([one.ok.object] if one.ok else [])}
    if unknown := named - objects:
        raise ConfigError(f"{path}, notification {name}: there is no object {', '.join(sorted(unknown))}")


def _oid(path: Path, name: str, text: str) -> str:
    try:
        return checked(text)
    except ValueError as exc:
        raise ConfigError(f"{path}, {name}: {exc}") from None


def _without_zero(trap: str) -> str:
    """Old MIBs number notifications right below the enterprise; RFC 3584 puts a zero between when it translates."""
    base, _, last = trap.rpartition(".")
    return f"{base.removesuffix('.0')}.{last}"
