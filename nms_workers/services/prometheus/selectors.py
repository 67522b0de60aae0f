"""Series selectors of PromQL: what `match[]` takes, checked before it is sent.

Source: https://prometheus.io/docs/prometheus/latest/querying/basics/#time-series-selectors
"""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

_TEXT = r'"(?:[^"\\\x00-\x1f\x7f]|\\.)*"'
_MATCHER = rf"(?:[a-zA-Z_][a-zA-Z0-9_]*)\s*(?:=~|!~|!=|=)\s*{_TEXT}"
_SELECTOR = re.compile(
    rf"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)?\s*(?:\{{\s*(?P<matchers>{_MATCHER}(?:\s*,\s*{_MATCHER})*\s*,?)?\s*\}})?\s*\Z"
)
_NAMED = re.compile(rf"[a-zA-Z_][a-zA-Z0-9_]*\s*=\s*(?!~)(?P<text>{_TEXT})")
_WORDS = 'a selector is written name{label="text", other=~"regex"}'


def _selector(text: str) -> str:
    found = _SELECTOR.match(text)
    if not found or not (found["name"] or found["matchers"]):
        raise ValueError(_WORDS)
    return text


def _narrow(text: str) -> str:
    found = _SELECTOR.match(text)
    if not found or not (found["name"] or any(one != '""' for one in _NAMED.findall(found["matchers"] or ""))):
        raise ValueError(f'it may match everything: name a metric, or a label with its text (job="x"); {_WORDS}')
    return text


Selector = Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(_selector)]
"""A series selector."""

NarrowSelector = Annotated[Selector, AfterValidator(_narrow)]
"""One that names a metric, or a label with its text: no regular expression alone, which may match everything."""
