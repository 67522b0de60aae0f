"""What of a configuration may be seen: secrets are masked by a table of patterns for each family of devices."""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from itertools import dropwhile
from pathlib import Path
from typing import Any

MASK = "<masked>"
_NEVER = re.compile(r"(?!)")
_CONTEXT = 2  # lines around a change


@dataclass(frozen=True)
class Mask:
    """One row of the table: where it counts, and what is masked there."""

    pattern: re.Pattern[str]
    within: re.Pattern[str] | None
    until: re.Pattern[str]


@dataclass(frozen=True)
class Family:
    """How one family of devices writes."""

    masks: tuple[Mask, ...]
    volatile: tuple[re.Pattern[str], ...]

    def lasting(self, text: str) -> list[str]:
        """The lines of a configuration, without those that are another at each reading."""
        lines = [line.rstrip() for line in text.splitlines()]
        kept = [line for line in lines if not any(one.search(line) for one in self.volatile)]
        while kept and not kept[-1]:
            kept.pop()
        return list(dropwhile(lambda line: not line, kept))

    def masked(self, lines: Sequence[str]) -> list[str]:
        """The same lines, as many, without secrets."""
        spans: list[list[tuple[int, int]]] = [[] for _ in lines]
        for mask in self.masks:
            for place in _places(mask, lines):
                spans[place] += [found.span("secret") for found in mask.pattern.finditer(lines[place])]
        return [_cover(line, sorted(covered)) for line, covered in zip(lines, spans, strict=True)]


@cache
def families() -> Mapping[str, Family]:
    """Every family of the table by name."""
    table = tomllib.loads((Path(__file__).parent / "masks.toml").read_text(encoding="utf-8"))
    everyone = [_mask(row) for row in table.pop("any")["mask"]]
    return {
        name: Family(
            masks=(*everyone, *(_mask(row) for row in rows["mask"])),
            volatile=tuple(map(re.compile, rows.get("volatile", ()))),
        )
        for name, rows in table.items()
    }


def difference(family: Family, old: Sequence[str], new: Sequence[str]) -> tuple[list[str], int, int]:
    """What became of a configuration, as a unified diff without secrets, and how many lines came and went.

    The lines are compared as they are, and shown masked: that a secret changed is seen, what it is is not.
    """
    shown_old, shown_new = family.masked(old), family.masked(new)
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    told: list[str] = []
    came = went = 0
    for group in matcher.get_grouped_opcodes(_CONTEXT):
        first, last = group[0], group[-1]
        told.append(f"@@ -{first[1] + 1},{last[2] - first[1]} +{first[3] + 1},{last[4] - first[3]} @@")
        for what, a, b, c, d in group:
            if what == "equal":
                told += [f" {line}" for line in shown_old[a:b]]
                continue
            told += [f"-{line}" for line in shown_old[a:b]] + [f"+{line}" for line in shown_new[c:d]]
            came, went = came + d - c, went + b - a
    return told, came, went


def _mask(row: Mapping[str, Any]) -> Mask:
    within = re.compile(row["within"]) if "within" in row else None
    return Mask(re.compile(row["pattern"]), within, re.compile(row["until"]) if "until" in row else _NEVER)


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
