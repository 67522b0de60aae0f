"""The settings of one Kibana, and what its objects may be called."""

from typing import Annotated

from pydantic import Field, PositiveInt

from nms_workers.transport.http import HttpSettings

# What goes into paths and bodies. Kibana makes UUIDs; people and integrations give ids such as `nginx-overview`.
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._:@-]{0,254}$")]
ObjectType = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
# One line that neither begins nor ends with a blank, so that two titles that look alike are alike.
Title = Annotated[str, Field(pattern=r"^[^\s\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]{0,253}[^\s\x00-\x1f\x7f-\x9f])?$")]
Text = Annotated[str, Field(pattern=r"^[^\x00-\x08\x0b-\x1f\x7f-\x9f]{0,2000}$")]
Moment = Annotated[str, Field(pattern=r"^(now([+-][0-9]{1,6}[smhdwMy])?(/[smhdwMy])?|[0-9]{4}-[0-9T:.Z+-]{6,30})$")]
Span = Annotated[int, Field(ge=1, le=48)]  # columns or rows of a dashboard's grid

_TYPES = (
    "config", "dashboard", "index-pattern", "lens", "map", "query", "search", "tag", "url", "visualization",
)  # fmt: skip


class KibanaTarget(HttpSettings):
    """One Kibana, 8 or 9, and one of its spaces.

    Args:
        token, token_scheme: an API key as Kibana shows it (base64 of `id:key`), sent as `Authorization: ApiKey ...`.
        username, password: HTTP basic, in place of a key.
        space: whose saved objects, data views and rules are read and changed; `default` is the one everybody has.
        object_types: the types of saved objects that are counted and listed.
        max_objects: how many saved objects of each type one poll lists; all are counted. Kibana pages up to 10,000.
        max_data_views: how many data views one poll lists.
        max_rules: how many alerting rules one poll reads.
        max_task_types: how many types of background tasks get series of their own.
    """

    token_scheme: str = Field(default="ApiKey", pattern=r"^[A-Za-z0-9-]+$")
    space: str = Field(default="default", pattern=r"^[a-z0-9_-]{1,64}$")
    object_types: tuple[ObjectType, ...] = Field(default=_TYPES, min_length=1, max_length=100)
    max_objects: int = Field(default=1000, ge=1, le=10_000)
    max_data_views: PositiveInt = 1000
    max_rules: int = Field(default=2000, ge=1, le=10_000)
    max_task_types: PositiveInt = 300
