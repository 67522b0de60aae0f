"""The settings of one Elasticsearch cluster, and what things in it may be called."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt

from nms_workers.transport.http import HttpSettings


def _short_enough(name: str) -> str:
    if len(name.encode()) > 255:
        raise ValueError("a name has at most 255 bytes")
    if not name == name.lower():
        raise ValueError("a name is in lower case")
    return name


# One index or data stream of somebody's own: no wildcard, no list, no date math, no hidden one or one of the system.
# https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-indices-create#path-parameters
Name = Annotated[
    str,
    Field(pattern=r"^[^\s\x00-\x20\x7f-\x9f\\/*?\"<>|,#:.+_-][^\s\x00-\x20\x7f-\x9f\\/*?\"<>|,#:]{0,254}$"),
    AfterValidator(_short_enough),
]
# What is read: patterns, a leading - leaves out.
Selector = Annotated[str, Field(pattern=r"^-?[^\s\x00-\x20\x7f-\x9f\\/?\"<>|,#:]{1,255}$")]
Retention = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,5}(d|h|m|s)$")]

SettingName = Annotated[str, Field(pattern=r"^(index\.)?[a-z][a-z0-9_]*(\.[A-Za-z0-9_-]+){0,8}$", max_length=200)]
SettingValue = (
    bool | int | float | Annotated[str, Field(max_length=4096)] | list[Annotated[str, Field(max_length=4096)]]
)
IndexSettings = Annotated[dict[SettingName, SettingValue], Field(max_length=200)]

MappingPart = Literal[
    "_data_stream_timestamp", "_field_names", "_meta", "_routing", "_size", "_source", "date_detection", "dynamic",
    "dynamic_date_formats", "dynamic_templates", "numeric_detection", "properties", "runtime", "subobjects",
]  # fmt: skip
Mappings = dict[MappingPart, Any]


class ElasticsearchTarget(HttpSettings):
    """One Elasticsearch cluster, 8 or 9.

    Args:
        token: an API key as the server gave it out (`encoded`), or with another `token_scheme` another token: `Bearer`
            for a service account's or OAuth's.
        token_scheme: `Authorization: <scheme> <token>`.
        major: the version to speak; default: the server is asked, which takes the privilege `monitor` that a key for
            shipping logs need not have.
        indices: patterns of the indices that are read; one that begins with - leaves out.
        max_indices: how many indices have series of their own, the biggest; the others count in the totals.
        max_nodes: how many nodes one poll reads at most. A node has some 400 series: raise max_series with it.
        max_pipelines: how many ingest pipelines of a node have series of their own, the busiest.
        max_events: how many things of one kind (shards, tasks, indices) are told one by one.
        long_task: seconds after which a task that still runs is told as an event.
        max_merge_bytes: the biggest index that force_merge touches.
        bulk_bytes, bulk_operations: what one bulk request carries at most.
    """

    token_scheme: str = Field(default="ApiKey", pattern=r"^[A-Za-z0-9-]+$")
    major: Literal[8, 9] | None = None
    indices: tuple[Selector, ...] = Field(default=("*",), min_length=1, max_length=50)
    max_indices: PositiveInt = 100
    max_nodes: PositiveInt = 100
    max_pipelines: PositiveInt = 50
    max_events: Annotated[int, Field(ge=1, le=5000)] = 100
    long_task: PositiveFloat = 300.0
    max_merge_bytes: PositiveInt = 200 * 10**9
    bulk_bytes: Annotated[int, Field(ge=1000, le=100_000_000)] = 5_000_000
    bulk_operations: Annotated[int, Field(ge=1, le=100_000)] = 1000
