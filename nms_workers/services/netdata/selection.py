"""What is looked at and what is left out, by patterns: as Netdata writes them, and by our own matching.

Source: https://learn.netdata.cloud/docs/developer-and-contributor-corner/libnetdata/simple-patterns.
"""

import re
from collections.abc import Callable, Sequence


def simple_pattern(include: Sequence[str], exclude: Sequence[str]) -> str:
    """One of Netdata's simple patterns: the first word that matches decides, one with `!` against."""
    return " ".join((*(f"!{word}" for word in exclude), *(include or ("*",))))


def chooser(include: Sequence[str], exclude: Sequence[str]) -> Callable[[str], bool]:
    """Whether a name is chosen, as `simple_pattern` would: only `*` is special."""
    wanted, unwanted = _any(include or ("*",)), _any(exclude)
    return lambda name: bool(wanted.fullmatch(name)) and not unwanted.fullmatch(name)


def _any(words: Sequence[str]) -> re.Pattern[str]:
    """Matches what one of the words does; nothing where there are none."""
    texts = (".*".join(map(re.escape, re.split(r"\*+", word))) for word in words)
    return re.compile("|".join(f"(?:{text})" for text in texts) or r"(?!)", re.DOTALL)
