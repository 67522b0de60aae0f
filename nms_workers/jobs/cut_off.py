"""Which networks the arguments of an action cut off: those marked `service.AddressToCutOff`, however deep they lie."""

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import Any, get_args

from pydantic import BaseModel

from nms_workers.jobs.reach import Network
from nms_workers.service import CutsOff


def cut_off(model: type[BaseModel], values: Mapping[str, Any]) -> Iterator[Network]:
    """The networks in the marked arguments.

    Args:
        model: the arguments as the action declares them.
        values: typed, by name.
    """
    for name, field in model.model_fields.items():
        if any(isinstance(one, CutsOff) for one in field.metadata) or _marked(field.annotation):
            yield from _networks(values.get(name))


def _marked(annotation: Any) -> bool:
    """Whether the mark is anywhere in this type: in a list, in a union, in a field of a model."""
    if isinstance(annotation, CutsOff):
        return True
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = annotation.model_fields.values()
        return any(isinstance(m, CutsOff) for f in fields for m in f.metadata) or any(
            _marked(f.annotation) for f in fields
        )
    return any(_marked(part) for part in (*get_args(annotation), *getattr(annotation, "__metadata__", ())))


def _networks(value: Any) -> Iterator[Network]:
    match value:
        case IPv4Network() | IPv6Network():
            yield value
        case BaseModel():
            yield from cut_off(type(value), dict(value))
        case Mapping():
            for inner in (*value.keys(), *value.values()):
                yield from _networks(inner)
        case list() | tuple() | set() | frozenset():
            for inner in value:
                yield from _networks(inner)
        case _:
            pass
