"""Writing many documents at once: in chunks, with what the cluster refuses for load sent again.

Source: https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-bulk
"""

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal

import msgspec

from nms_workers.services.elasticsearch.session import Session
from nms_workers.services.elasticsearch.target import ElasticsearchTarget
from nms_workers.transport.deadline import remaining

_TRIES_MORE = 4  # for what is refused for load
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 8.0  # seconds before the next of them; doubled each time
_MOST_ERRORS = 100  # that are told one by one
_EXISTS = 409
_TOO_MUCH = 429


class Operation(msgspec.Struct, frozen=True):
    """One document to write.

    Args:
        index: an index or a data stream; a data stream takes `create` alone.
        document: JSON; of a data stream with `@timestamp`; for `update` what changes; for `delete` nothing.
        op: `create` refuses to write a document that is there, which makes it safe to send twice when it has an id.
        id: names the document in its index; None: the cluster chooses, and what is sent twice is there twice.
    """

    index: str
    document: dict[str, Any] = {}
    op: Literal["create", "index", "update", "delete"] = "create"
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=512)] | None = None


class Fault(msgspec.Struct, frozen=True):
    """One document that was not written, and why: the cluster's status, its name for the error, and its words."""

    index: str
    id: str | None
    op: str
    status: int
    kind: str
    reason: str


class Result(msgspec.Struct):
    """What became of a bulk.

    Args:
        written: documents created, changed or deleted.
        existing: documents of `create` that were there already: sent twice, written once.
        failed: documents that were not written; `faults` tells the first hundred.
        rejected: those of `failed` that the cluster refused for load until the end: they may be sent again later.
    """

    written: int = 0
    existing: int = 0
    failed: int = 0
    rejected: int = 0
    faults: list[Fault] = []


class _Error(msgspec.Struct):
    type: str = ""
    reason: str | None = ""


class _Item(msgspec.Struct):
    status: int
    index: str = msgspec.field(default="", name="_index")
    id: str | None = msgspec.field(default=None, name="_id")
    error: _Error | str | None = None


def write(session: Session, target: ElasticsearchTarget, operations: Iterable[Operation]) -> Result:
    """Write documents as they come: nothing but one chunk is held.

    A chunk has at most `bulk_operations` documents and `bulk_bytes` bytes. What the cluster refuses for load (429), an
    item or a request, is sent again with growing pauses. An error of the connection ends it: chunks before it are
    written, those after it not, and nobody knows of the one that was under way; with `create` and ids all may simply
    be sent again.

    Raises:
        TargetError: the connection, or the cluster refuses a whole request.
    """
    result = Result()
    with session.told() as api:
        answers = api.helpers.streaming_bulk(
            api.client,
            _in_time(operations),
            chunk_size=target.bulk_operations,
            max_chunk_bytes=target.bulk_bytes,
            raise_on_error=False,
            max_retries=_TRIES_MORE,
            initial_backoff=_FIRST_WAIT,
            max_backoff=_LONGEST_WAIT,
            filter_path=["errors", "items.*._index", "items.*._id", "items.*.status", "items.*.error"],
        )
        for _, answer in answers:
            ((op, item),) = answer.items()
            _count(result, op, msgspec.convert(item, _Item))
    return result


def _count(result: Result, op: str, item: _Item) -> None:
    if item.status < 300:
        result.written += 1
    elif op == "create" and item.status == _EXISTS:
        result.existing += 1
    else:
        result.failed += 1
        result.rejected += item.status == _TOO_MUCH
        if len(result.faults) < _MOST_ERRORS:
            error = item.error if isinstance(item.error, _Error) else _Error("", item.error)
            reason = (error.reason or "")[:400]
            result.faults.append(Fault(item.index, item.id, op, item.status, error.type, reason))


def _in_time(operations: Iterable[Operation]) -> Iterator[dict[str, Any]]:
    """The operations as the official helper takes them. It sleeps between tries: the deadline is asked here."""
    for one in operations:
        remaining(_LONGEST_WAIT)
        action: dict[str, Any] = {"_op_type": one.op, "_index": one.index}
        if one.id is not None:
            action["_id"] = one.id
        if one.op == "update":
            action["doc"] = one.document
        elif one.op != "delete":
            action["_source"] = one.document
        yield action
