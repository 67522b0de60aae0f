"""The documentation page of a service, made from its declarations: it cannot say what the code does not."""

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from nms_workers.service import Service


def page(one: type[Service]) -> str:
    """The page as Markdown."""
    parts = [
        f"# {one.kind}\n\n{_prose(one)}\n",
        "## Settings of a target\n\n" + _table(("key", "type", "default", "description"), _settings(one)),
        "## Polls\n\n" + _table(("poll", "every", "deadline", "what it reads"), _polls(one)),
    ]
    if one.actions():
        parts.append(
            "## Actions\n\n" + _table(("action", "arguments", "confirm", "undo", "what it does"), _actions(one))
        )
    parts.append("## Metrics\n\n" + _table(("metric", "type", "unit", "labels", "description"), _metrics(one)))
    parts.append("Made by `make docs` from the service's declarations.\n")
    return "\n".join(parts)


def _prose(one: type[Service]) -> str:
    return "\n".join(line.strip() for line in (one.__doc__ or "").strip().splitlines())


def _settings(one: type[Service]) -> Iterator[Sequence[str]]:
    schema = one.Target.model_json_schema()
    definitions = schema.get("$defs", {})
    explained = _explained(inspect.getdoc(one.Target) or "")
    for name, field in one.Target.model_fields.items():
        shown = schema["properties"][name]
        default = "required" if field.is_required() else _default(field.get_default(call_default_factory=True))
        yield f"`{name}`", _type(shown, definitions), default, explained.get(name, "")


def _default(value: object) -> str:
    return "" if value in (None, "", (), [], {}) else f"`{value}`"


def _explained(docstring: str) -> dict[str, str]:
    """What the section `Args:` says of each name; several names may share one explanation."""
    found: dict[str, str] = {}
    for entry in re.split(r"\n    (?=\S)", docstring.partition("Args:")[2]):
        names, _, text = entry.partition(": ")
        found.update(dict.fromkeys((name.strip() for name in names.split(",")), " ".join(text.split())))
    return found


def _type(shown: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    if "$ref" in shown:
        return _type(definitions[shown["$ref"].rpartition("/")[2]], definitions)
    if options := shown.get("anyOf") or shown.get("allOf"):
        return " or ".join(_type(option, definitions) for option in options if option.get("type") != "null")
    if values := shown.get("enum"):
        return " or ".join(f'"{value}"' for value in values)
    if shown.get("pattern") == "^(env|file):.+":
        return "secret"
    if shown.get("type") == "array":
        return f"list of {_type(shown.get('items', {}), definitions)}"
    return str(shown.get("type", "text"))


def _polls(one: type[Service]) -> Iterator[Sequence[str]]:
    for poll in one.polls().values():
        yield f"`{poll.name}`", f"{poll.every:g} s", f"{poll.deadline:g} s", poll.summary


def _actions(one: type[Service]) -> Iterator[Sequence[str]]:
    for action in one.actions().values():
        arguments = ", ".join(f"`{name}`" for name in action.arguments.model_fields)
        yield f"`{action.name}`", arguments, "yes" if action.confirm else "", action.undo or "", action.summary


def _metrics(one: type[Service]) -> Iterator[Sequence[str]]:
    for metric in one.metrics().values():
        labels = ", ".join(metric.labels)
        yield f"`{metric.name}`", metric.type, metric.unit, labels, metric.description


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
