"""Making saved objects: looking for what is there, importing, telling what went wrong with each, taking back.

`before` of a change names what it made (`made`) and holds what it replaced (`replaced`), so that it can be taken back.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID, uuid5

import msgspec

from nms_workers.errors import Refused
from nms_workers.services.kibana import model
from nms_workers.services.kibana.client import KibanaClient
from nms_workers.services.kibana.model import Reference, SavedObject

MAX_OBJECTS = 10_000  # Kibana's own limit, savedObjects.maxImportExportSize
MAX_BYTES = 26_214_400  # savedObjects.maxImportPayloadBytes
_KEPT = 200_000  # characters of replaced objects that are kept for the undo
_SHOWN = 10
_OURS = UUID("6f0f5f0e-5c1a-4d0e-9a53-1f7d0d1f3c55")  # the namespace of the ids that we give (RFC 9562, version 5)

# With one of these among the errors Kibana imports nothing at all, whatever it counts as imported.
_HINTS = {
    "conflict": "it is there already: overwrite=true puts the new one in its place",
    "ambiguous_conflict": "it could stand for several objects that are there: delete those that are not wanted",
    "missing_references": "import what it refers to first, or in the same file",
}
_NO_TYPE = "this Kibana has no such type: is a plugin missing, or is the file from a later version?"


class Line(NamedTuple):
    """One object of an export: what it is, and the text that goes to Kibana as it came."""

    object: SavedObject
    text: str

    @property
    def reference(self) -> Reference:
        """Its type and id."""
        return Reference(self.object.type, self.object.id)


class Importing(NamedTuple):
    """What an import did: `before` of the change, and a line about each object that was not imported."""

    before: dict[str, Any]
    faults: list[str]


class _Details(msgspec.Struct):
    """The last line of an export, which is no object."""

    exported_count: int = msgspec.field(name="exportedCount")


def id_for(space: str, kind: str, title: str) -> str:
    """The id of an object that was named by its title only: always the same, so that twice is once."""
    return str(uuid5(_OURS, f"{space}/{kind}/{title}"))


def line(kind: str, id: str, attributes: dict[str, Any], references: Sequence[Reference]) -> Line:
    """An object as a line of an export."""
    one = {"type": kind, "id": id, "attributes": attributes, "references": [msgspec.to_builtins(r) for r in references]}
    return Line(SavedObject(kind, id, attributes, tuple(references)), msgspec.json.encode(one).decode())


def by_id(client: KibanaClient, kind: str, id: str) -> SavedObject | None:
    """The object of this id, if it is there."""
    return next(iter(client.get_objects([Reference(kind, id)])), None)


def by_title(client: KibanaClient, kind: str, title: str) -> SavedObject | None:
    """The first object with this very title, if there is one."""
    if kind == "index-pattern":  # a title such as `*` has no words to search for
        found = [SavedObject(kind, one.id, {"title": one.title}) for one in client.get_index_patterns()]
    else:
        found, _ = client.get_saved_objects(kind, fields=("title",), words=title)
    return next((one for one in found if one.title == title), None)


def lines_of(content: str) -> list[Line]:
    """The objects of an export.

    Raises:
        Refused: a line is no object, one comes twice, or there is none, or there are too many.
    """
    found: dict[Reference, Line] = {}
    for number, text in enumerate(content.split("\n"), start=1):
        if not text.strip() or _fits(text, _Details):
            continue
        try:
            one = Line(msgspec.json.decode(text, type=SavedObject), text)
        except msgspec.DecodeError as exc:
            hint = "take what an export gave: one JSON object a line, with type, id and attributes"
            raise Refused(f"line {number} is no saved object: {exc}", hint=hint) from None
        if one.reference in found:
            raise Refused(f"line {number} has {one.object.type} {one.object.id!r:.100} a second time")
        found[one.reference] = one
    if not 0 < len(found) <= MAX_OBJECTS:
        raise Refused(f"{len(found)} saved objects cannot be imported", hint=f"1 to {MAX_OBJECTS} at once")
    return list(found.values())


def same(client: KibanaClient, lines: Sequence[Line]) -> bool:
    """Whether all of them are there as they are in the file."""
    there = {_name(one): one for one in client.get_objects([one.reference for one in lines])}
    return all(
        (old := there.get(_name(one.object))) is not None
        and old.attributes == one.object.attributes
        and set(old.references) == set(one.object.references)
        for one in lines
    )


def import_lines(client: KibanaClient, lines: Sequence[Line], *, overwrite: bool) -> Importing:
    """Import, and look what is there afterwards.

    Raises:
        Refused: none was imported; the message tells why, of each object.
    """
    wanted = [one.reference for one in lines]
    old = client.get_objects(wanted)
    kept = client.export([Reference(one.type, one.id) for one in old]) if old and overwrite else b""
    answer = client.post_import(_encoded(lines), overwrite=overwrite)
    nothing = any(error.error.type in _HINTS for error in answer.errors)
    before, there = {_name(one) for one in old}, {_name(one) for one in client.get_objects(wanted)}
    bad = {(error.type, error.id) for error in answer.errors}
    made = [one for one in wanted if _name(one) in there - before]
    replaced = [] if nothing or not overwrite else [one for one in old if _name(one) not in bad]
    lost = [f"{one.type} {one.id}: not there afterwards" for one in wanted if _name(one) not in there | bad]
    faults = [_told(error) for error in answer.errors] + lost
    if not made and not replaced:
        hints = dict.fromkeys(_HINTS.get(error.error.type, _NO_TYPE) for error in answer.errors)
        words = "; ".join(faults[:_SHOWN])
        raise Refused(f"none of {len(lines)} saved objects was imported: {words}", hint="; ".join(hints))
    note: dict[str, Any] = {"made": [{"type": one.type, "id": one.id} for one in made]}
    if replaced and len(kept) > _KEPT:
        note["replaced_too_large"] = True
    elif replaced:
        note["replaced"] = kept.decode()
    return Importing(note, faults)


def take_back(client: KibanaClient, before: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Delete what a change made, and put back what it replaced.

    Returns:
        `type id` of what was deleted, and of what was put back.

    Raises:
        Refused: the change kept no note, or what it replaced was too large to keep, or Kibana said no.
    """
    if not isinstance(before.get("made"), list):
        raise Refused("the change says nothing of what it made")
    if before.get("replaced_too_large"):
        raise Refused("what was replaced was too large to keep", hint="import it from an export of before")
    there = client.get_objects([Reference(str(one["type"]), str(one["id"])) for one in before["made"]])
    if there:
        statuses = client.delete_objects([Reference(one.type, one.id) for one in there]).statuses
        if bad := [f"{one.type} {one.id}" for one in statuses if not one.success]:
            raise Refused(f"Kibana does not delete {', '.join(bad[:_SHOWN])}", hint="is it shared with another space?")
    old = lines_of(str(before["replaced"])) if before.get("replaced") else []
    due = [] if not old or same(client, old) else old
    if due:
        import_lines(client, due, overwrite=True)
    return [f"{one.type} {one.id}" for one in there], [f"{one.object.type} {one.object.id}" for one in due]


def _encoded(lines: Sequence[Line]) -> bytes:
    body = "\n".join(one.text for one in lines).encode()
    if len(body) > MAX_BYTES:
        raise Refused(f"{len(body)} bytes of saved objects cannot be imported", hint=f"at most {MAX_BYTES} at once")
    return body


def _name(one: Reference | SavedObject) -> tuple[str, str]:
    return one.type, one.id


def _fits(text: str, shape: type[msgspec.Struct]) -> bool:
    try:
        msgspec.json.decode(text, type=shape)
    except msgspec.DecodeError:
        return False
    return True


def _told(error: model.ImportError_) -> str:
    title = f" ({error.title})" if error.title else ""
    words = f"{error.type} {error.id}{title}: {error.error.type}"
    if error.error.references:
        words += " of " + ", ".join(f"{one.type} {one.id}" for one in error.error.references[:_SHOWN])
    return (words + (f": {error.error.message}" if error.error.message else ""))[:500]
