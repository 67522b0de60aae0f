"""Rule files: which rules they hold, and switching one on or off.

A rule is one line, or several that end with a backslash; one that is switched off begins with `#`.
Source: https://docs.suricata.io/en/latest/rules/intro.html.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from nms_workers.errors import AuthError, Refused, Unreachable

MAX_FILE = 256 << 20  # bytes; the largest public rule sets have thirty million

_RULE = re.compile(
    r"\s*(?P<off>#[#\s]*)?(?P<action>alert|drop|pass|reject|rejectsrc|rejectdst|rejectboth)\s+(?P<protocol>\S+)\s.*?\("
    r"(?P<options>.*)\)\s*\Z",
    re.DOTALL,
)
_OPTION = re.compile(r"(?:\A|;)\s*(?P<name>sid|gid|rev|classtype)\s*:\s*(?P<value>[A-Za-z0-9_-]+)\s*(?=;)", re.ASCII)
_MSG = re.compile(r'(?:\A|;)\s*msg\s*:\s*"(?P<msg>(?:[^"\\]|\\.)*)"', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a rule file.

    Args:
        sid, gid, rev: its id, the id of what generates it, and its revision.
        action, protocol, msg, classtype: as it says.
        enabled: it is not commented out.
        file, line: where it begins; lines count from 1.
    """

    sid: int
    gid: int
    rev: int
    action: str
    protocol: str
    msg: str
    classtype: str
    enabled: bool
    file: str
    line: int


class _Written(NamedTuple):
    """A rule with its first and last line, from 0."""

    rule: Rule
    first: int
    last: int


def read(path: Path) -> str:
    """The text of a rule file; bytes that are no UTF-8 are kept as surrogates.

    Raises:
        Unreachable: there is no such file, or it cannot be read.
        AuthError: we may not read it.
        Refused: it is larger than 256 MiB.
    """
    try:
        if path.stat().st_size > MAX_FILE:
            raise Refused(f"{path} is larger than {MAX_FILE >> 20} MiB", hint="is it a rule file?")
        return path.read_bytes().decode(errors="surrogateescape")
    except PermissionError:
        raise AuthError(f"we may not read {path}", hint="let the worker's user read the rule files") from None
    except OSError as exc:
        raise Unreachable(f"{path} cannot be read: {exc.strerror}") from None


def parsed(text: str, file: str) -> list[Rule]:
    """The rules in a text, in order, those switched off as well. Other lines are left out."""
    return [one.rule for one in _written(text, file)]


def switched(text: str, sid: int, *, enabled: bool) -> str:
    """The text with the rules of this id (and gid 1) switched on or off; nothing else is changed."""
    lines = text.splitlines(keepends=True)
    for rule, first, last in _written(text, ""):
        if rule.sid == sid and rule.gid == 1 and rule.enabled is not enabled:
            for number in range(first, last + 1):
                lines[number] = re.sub(r"\A\s*[#\s]*", "", lines[number]) if enabled else f"# {lines[number]}"
    return "".join(lines)


def _written(text: str, file: str) -> Iterator[_Written]:
    first, held = 0, ""
    for number, line in enumerate(text.splitlines()):
        if not held:
            first = number
        held += re.sub(r"\A\s*#+", "", line) if held else line
        if held.endswith("\\"):
            held = held[:-1]
            continue
        rule, held = _rule(held, file, first + 1), ""
        if rule:
            yield _Written(rule, first, number)


def _rule(text: str, file: str, line: int) -> Rule | None:
    match = _RULE.match(text.encode(errors="replace").decode())  # it may hold bytes that are no text
    if not match:
        return None
    options = {one["name"]: one["value"] for one in _OPTION.finditer(match["options"])}
    numbers = {name: options.get(name, "1") for name in ("sid", "gid", "rev")}
    if "sid" not in options or not all(number.isdecimal() for number in numbers.values()):
        return None
    message = _MSG.search(match["options"])
    return Rule(
        sid=int(numbers["sid"]),
        gid=int(numbers["gid"]),
        rev=int(numbers["rev"]),
        action=match["action"],
        protocol=match["protocol"],
        msg=message["msg"] if message else "",
        classtype=options.get("classtype", ""),
        enabled=match["off"] is None,
        file=file,
        line=line,
    )
