"""What of a configuration may be seen: secrets are masked by a table of patterns for each family of devices."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from itertools import dropwhile
from pathlib import Path

from nms_workers.masking import Mask, masked

_CONTEXT = 2  # lines around a change


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
        return masked(self.masks, lines)


@cache
def families() -> Mapping[str, Family]:
    """Every family of the table by name."""
    table = tomllib.loads((Path(__file__).parent / "masks.toml").read_text(encoding="utf-8"))
    everyone = [Mask.of(row) for row in table.pop("any")["mask"]]
    return {
        name: Family(
            masks=(*everyone, *(Mask.of(row) for row in rows["mask"])),
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
