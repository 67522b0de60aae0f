"""The data streams in Elasticsearch: their template, and the policy that says how long they keep lines.

Made at start, and changed when they are not as they should be; what somebody else made by the same name is left alone.
https://www.elastic.co/docs/manage-data/data-store/data-streams/set-up-data-stream
"""

import logging
from typing import Any

import msgspec

from nms_workers.logs.batch import Document
from nms_workers.logs.streams import Stream
from nms_workers.services.elasticsearch.client import ElasticsearchClient
from nms_workers.services.elasticsearch.failures import NotThere

log = logging.getLogger(__name__)

_OWNER = "nms-workers"
_PRIORITY = 300  # above those that come with Elasticsearch (100 and 200)
_FIELDS = 500  # of one stream; documents have some 30

# https://www.elastic.co/docs/reference/ecs/ecs-field-reference
_TEXT = {"type": "match_only_text"}
_WORD = {"type": "keyword", "ignore_above": 1024}
_MAPPINGS: Document = {
    "dynamic": "false",  # what a newer version of ours adds is kept, and not searched, until the template has it
    "properties": {
        "@timestamp": {"type": "date_nanos"},
        "message": _TEXT,
        "stream": _WORD,
        "ecs": {"properties": {"version": _WORD}},
        "event": {"properties": {"created": {"type": "date"}, "dataset": _WORD, "kind": _WORD}},
        "host": {"properties": {"name": _WORD}},
        "service": {"properties": {"name": _WORD, "type": _WORD}},
        "container": {"properties": {"id": _WORD, "name": _WORD, "image": {"properties": {"name": _WORD}}}},
        "log": {
            "properties": {
                "level": _WORD,
                "flags": _WORD,
                "offset": {"type": "long"},
                "file": {"properties": {"path": _WORD}},
            }
        },
    },
}


class _Template(msgspec.Struct):
    name: str
    index_template: dict[str, Any]


class _Templates(msgspec.Struct):
    index_templates: list[_Template] = []


def keep(client: ElasticsearchClient, stream: Stream) -> bool:
    """See to it that lines of this stream find a data stream that keeps them as long as they should be kept.

    Elasticsearch makes the data stream itself when the first line comes.

    Returns:
        Whether anything was changed.

    Raises:
        TargetError: the cluster is away, or refuses it.
    """
    serverless = client.get_root().version.build_flavor == "serverless"  # it has no policies
    changed = False if serverless else _keep_policy(client, stream)
    return _keep_template(client, stream, serverless) or changed


def phases(retention: str) -> Document:
    """The phases of the policy: a new index every day, or at 50 GB, deleted when its newest line is old enough."""
    rollover = {"max_age": "1d", "max_primary_shard_size": "50gb"}
    return {
        "hot": {"min_age": "0ms", "actions": {"rollover": rollover, "set_priority": {"priority": 100}}},
        "delete": {"min_age": retention, "actions": {"delete": {"delete_searchable_snapshot": True}}},
    }


def template(stream: Stream, *, serverless: bool) -> Document:
    """The index template."""
    kept: Document = {"lifecycle": {"data_retention": stream.retention}} if serverless else {}
    settings: Document = {"index.mapping.total_fields.limit": _FIELDS}
    if not serverless:
        settings["index.lifecycle.name"] = stream.stream
        settings["index.codec"] = "best_compression"
    return {"settings": settings, "mappings": _MAPPINGS, **kept}


def _keep_policy(client: ElasticsearchClient, stream: Stream) -> bool:
    wanted = phases(stream.retention)
    note = _note(wanted)
    try:
        found = client.get_policy(stream.stream).policy
    except NotThere:
        pass
    else:
        if not _ours(found.meta, f"the policy {stream.stream}") or found.meta == note:
            return False
    client.put_policy(stream.stream, wanted, note)
    log.info("Elasticsearch keeps %s for %s", stream.stream, stream.retention)
    return True


def _keep_template(client: ElasticsearchClient, stream: Stream, serverless: bool) -> bool:
    wanted = template(stream, serverless=serverless)
    note = _note(wanted)
    try:
        found = client.session.ask(lambda es: es.indices.get_index_template(name=stream.stream), _Templates)
    except NotThere:
        found = _Templates()
    for one in found.index_templates:
        meta = one.index_template.get("_meta")
        if not _ours(meta, f"the index template {stream.stream}") or meta == note:
            return False
    client.session.ask(
        lambda es: es.indices.put_index_template(
            name=stream.stream,
            index_patterns=[stream.stream],
            data_stream={},
            priority=_PRIORITY,
            template=wanted,
            meta=note,
        ),
        dict[str, Any],
    )
    return True


def _note(wanted: Document) -> Document:
    """What is noted beside our objects: by it we know them, and whether they are as they should be."""
    return {"managed_by": _OWNER, "body": msgspec.json.encode(wanted, order="sorted").decode()}


def _ours(meta: Document | None, what: str) -> bool:
    if meta is None or meta.get("managed_by") != _OWNER:
        log.warning("%s in Elasticsearch was made by somebody else: it is left as it is", what)
        return False
    return True
