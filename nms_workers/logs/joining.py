"""Lines that belong together, by the table of rules: a traceback is one entry."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

_NEVER = re.compile(r"(?!)")


class Piece(NamedTuple):
    """One line as its source has it.

    Args:
        text: without its end.
        start, after: the place of its beginning and of what follows it, as the cursor of its source keeps it.
        time: when its source says it came, RFC 3339; empty: it does not say.
        cut: whether it was longer than a line may be.
    """

    text: str
    start: str
    after: str
    time: str = ""
    cut: bool = False


@dataclass
class Entry:
    """Lines that belong together: at least one."""

    pieces: list[Piece]
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = sum(len(one.text) + 1 for one in self.pieces)

    def add(self, piece: Piece) -> None:
        """One more line."""
        self.pieces.append(piece)
        self.size += len(piece.text) + 1


class Rule(NamedTuple):
    """One row of the table."""

    name: str
    continues: re.Pattern[str]
    opens: re.Pattern[str]
    first: re.Pattern[str]
    last: re.Pattern[str]

    @property
    def joins(self) -> bool:
        """Whether any line can belong to another."""
        return self.name != "none"


@cache
def rules() -> Mapping[str, Rule]:
    """Every rule by its name."""
    return {name: _rule(name, row) for name, row in _table().items()}


def rule_of(kind: str, name: str = "") -> Rule:
    """The rule of this name if there is one, else that of a kind of service."""
    if name in rules():
        return rules()[name]
    found = next((one for one, row in _table().items() if kind in row.get("kinds", ())), "default")
    return rules()[found]


class Joiner:
    """The lines of one source, put together. For one thread.

    Args:
        lines, size: what one entry has at most, in lines and in characters; what belongs to a full one begins another.
    """

    def __init__(self, rule: Rule, lines: int, size: int) -> None:
        self._rule, self._lines, self._size = rule, lines, size
        self._open: Entry | None = None
        self._inside = False  # between `from` and `to`
        self._one_more = False  # after `opens`

    @property
    def waiting(self) -> bool:
        """Whether an entry may still grow."""
        return self._open is not None

    def add(self, piece: Piece) -> Entry | None:
        """Take a line. The entry that is whole now, if one is."""
        if not self._rule.joins:
            return Entry([piece])
        belongs = self._belongs(piece.text)
        full = self._open is not None and (
            len(self._open.pieces) >= self._lines or self._open.size + len(piece.text) > self._size
        )
        if self._open is not None and belongs and not full:
            self._open.add(piece)
            return None
        whole, self._open = self._open, Entry([piece])
        return whole

    def flush(self) -> Entry | None:
        """What waits, as it is."""
        whole, self._open = self._open, None
        return whole

    def _belongs(self, text: str) -> bool:
        rule = self._rule
        if self._inside:
            self._inside = rule.last.search(text) is None
            return True
        if rule.first.search(text):
            self._inside = rule.last.search(text) is None
            return False
        if rule.opens.search(text):
            self._one_more = True
            return True
        if rule.continues.search(text):
            return True
        belongs, self._one_more = self._one_more, False
        return belongs


@cache
def _table() -> dict[str, dict[str, str]]:
    return tomllib.loads((Path(__file__).parent / "joining.toml").read_text(encoding="utf-8"))


def _rule(name: str, row: Mapping[str, str]) -> Rule:
    continues, opens, first, last = (
        re.compile(row[key]) if key in row else _NEVER for key in ("continues", "opens", "from", "to")
    )
    return Rule(name, continues, opens, first, last)
