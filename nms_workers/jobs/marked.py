"""What the marked arguments of an action name, however deep they lie: networks to cut off, interfaces to change."""

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import Any, get_args

from pydantic import BaseModel

from nms_workers.arguments import Changes, CutsOff

_LEAVES: dict[type, tuple[type, ...]] = {CutsOff: (IPv4Network, IPv6Network), Changes: (str,)}


def marked(model: type[BaseModel], values: Mapping[str, Any], mark: type[CutsOff | Changes]) -> Iterator[Any]:
    """The networks (`CutsOff`) or the names of interfaces (`Changes`) in the arguments with this mark.

    Args:
        model: the arguments as the action declares them.
        values: typed, by name.
    """
    for name, field in model.model_fields.items():
        if any(isinstance(one, mark) for one in field.metadata) or _is_marked(field.annotation, mark):
            yield from _leaves(values.get(name), mark)


def _is_marked(annotation: Any, mark: type) -> bool:
    """Whether the mark is anywhere in this type: in a list, in a union, in a field of a model."""
    if isinstance(annotation, mark):
        return True
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = annotation.model_fields.values()
        return any(isinstance(m, mark) for f in fields for m in f.metadata) or any(
            _is_marked(f.annotation, mark) for f in fields
        )
    return any(_is_marked(part, mark) for part in (*get_args(annotation), *getattr(annotation, "__metadata__", ())))


def _leaves(value: Any, mark: type[CutsOff | Changes]) -> Iterator[Any]:
    if isinstance(value, _LEAVES[mark]):
        yield value
        return
    match value:
        case BaseModel():
            yield from marked(type(value), dict(value), mark)
        case Mapping():
            for inner in (*value.keys(), *value.values()):
                yield from _leaves(inner, mark)
        case list() | tuple() | set() | frozenset():
            for inner in value:
                yield from _leaves(inner, mark)
        case _:
            pass
