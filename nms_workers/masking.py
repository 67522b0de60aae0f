"""Secrets in lines of text, masked by tables of patterns: of configurations, of logs."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

MASK = "<masked>"
_NEVER = re.compile(r"(?!)")


@dataclass(frozen=True)
class Mask:
    """One row of a table: where it counts, and what is masked there.

    Args:
        pattern: what its group `secret` holds is masked, each time it is found in a line.
        within: only in the lines after one that this finds (it included); None: in every line ...
        until: ... up to one that this finds (it included).
        needs: words of small letters of which the lines must hold one, in letters of whatever size, else nothing is
            searched; a search costs a hundred times as much. None: whatever they hold.
    """

    pattern: re.Pattern[str]
    within: re.Pattern[str] | None = None
    until: re.Pattern[str] = _NEVER
    needs: tuple[str, ...] = ()

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """From the row as a table of TOML has it."""
        within = re.compile(row["within"]) if "within" in row else None
        until = re.compile(row["until"]) if "until" in row else _NEVER
        return cls(re.compile(row["pattern"]), within, until, tuple(row.get("needs", ())))

    def may_find(self, text: str) -> bool:
        """Whether it can be found in a text of small letters."""
        return not self.needs or any(word in text for word in self.needs)


def masked(masks: Sequence[Mask], lines: Sequence[str]) -> list[str]:
    """The same lines, as many, without secrets."""
    spans: list[list[tuple[int, int]]] = [[] for _ in lines]
    text = "\n".join(lines).lower()
    for mask in masks:
        if mask.may_find(text):
            for place in _places(mask, lines):
                spans[place] += [found.span("secret") for found in mask.pattern.finditer(lines[place])]
    return [_cover(line, sorted(covered)) if covered else line for line, covered in zip(lines, spans, strict=True)]


def _places(mask: Mask, lines: Sequence[str]) -> Iterator[int]:
    """Where a row counts."""
    inside = mask.within is None
    for place, line in enumerate(lines):
        if mask.within is not None and not inside and mask.within.search(line):
            inside = True
        if inside:
            yield place
        if mask.until.search(line):
            inside = mask.within is None


def _cover(line: str, spans: Sequence[tuple[int, int]]) -> str:
    parts: list[str] = []
    at = 0
    for start, end in spans:
        if end <= at:
            continue  # inside the one before
        if start > at or not parts or parts[-1] != MASK:
            parts += [line[at : max(at, start)], MASK]
        at = end
    return "".join([*parts, line[at:]])
