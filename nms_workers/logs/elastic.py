"""Lines into data streams of Elasticsearch: each item has its own answer, and each answer its own meaning.

Source: https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-bulk
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from nms_workers.errors import ParseError
from nms_workers.logs import metrics
from nms_workers.logs.batch import Line
from nms_workers.logs.deadletters import DeadLetters
from nms_workers.logs.keeping import keep
from nms_workers.logs.streams import StreamName, streams
from nms_workers.services.elasticsearch.client import ElasticsearchClient
from nms_workers.services.elasticsearch.failures import Denied, NotThere

_EXISTS = 409
_BAD = frozenset({400, 413})  # for what the document is: it will never be taken
_TOO_LARGE = 413
_ASKED_AT_ONCE = 5_000  # ids; a search gives 10,000 at most
_WORDS = 400  # characters of the cluster's own words


class _Error(msgspec.Struct):
    type: str = ""
    reason: str | None = ""


class _Item(msgspec.Struct):
    status: int
    error: _Error | str | None = None


class _Answer(msgspec.Struct):
    items: list[dict[str, _Item]]


class _Hit(msgspec.Struct):
    id: str = msgspec.field(name="_id")


class _Hits(msgspec.Struct, frozen=True):
    hits: tuple[_Hit, ...] = ()


class _Found(msgspec.Struct):
    hits: _Hits = _Hits()


class ElasticOutlet:
    """Data streams of one cluster.

    Args:
        retention: by stream, where it is not as in the table.
    """

    name = "Elasticsearch"

    def __init__(self, client: ElasticsearchClient, retention: Mapping[StreamName, str], dead: DeadLetters) -> None:
        self._client, self._dead = client, dead
        kept = {name: retention.get(name, row.retention) for name, row in streams().items()}
        self._streams = {name: row._replace(retention=kept[name]) for name, row in streams().items()}

    def prepare(self) -> None:
        """Templates and policies. Without them the first line would make an index of its own, without an end.

        Raises:
            TargetError: the cluster is away, or refuses it.
        """
        for stream in self._streams.values():
            keep(self._client, stream)

    def deliver(self, due: datetime, lines: Sequence[Line], *, again: bool) -> Sequence[Line]:
        """One bulk request; one that is too large in halves.

        An id is unique in one index of a data stream, and tomorrow's is another: what may be there is looked up first.

        Raises:
            TargetError: nobody knows what became of them.
            DeadLetterError: what was refused has no place on the disk.
        """
        if again:
            lines = self._not_there(lines)
        if not lines:
            return ()
        try:
            answer = self._client.session.ask(lambda es: self._bulk(es, lines), _Answer)
        except Denied as exc:
            if exc.status != _TOO_LARGE:
                raise
            if len(lines) == 1:
                self._dead.put([(lines[0], "too_large", exc.message[:_WORDS])])
                return ()
            half = len(lines) // 2
            left = [self.deliver(due, part, again=False) for part in (lines[:half], lines[half:])]
            return [*left[0], *left[1]]
        items = [item for each in answer.items for item in each.values()]
        if len(items) != len(lines):
            raise ParseError(f"{len(lines)} documents were sent, and {len(items)} answered for")
        return self._sort(lines, items)

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()

    def _bulk(self, es: Any, lines: Sequence[Line]) -> Any:
        operations: list[bytes] = []
        for line in lines:
            action = {"create": {"_index": self._streams[line.stream].stream, "_id": line.id}}
            operations += [msgspec.json.encode(action), msgspec.json.encode(line.document)]
        return es.bulk(operations=operations, filter_path=["items.*.status", "items.*.error"])

    def _sort(self, lines: Sequence[Line], items: Sequence[_Item]) -> list[Line]:
        """What became of each; those are left that may be taken later."""
        left, dead = [], []
        for line, item in zip(lines, items, strict=True):
            if item.status < 300:
                metrics.SHIPPED.labels(line.stream).inc(line.document["message"].count("\n") + 1)
            elif item.status == _EXISTS:
                metrics.REPEATED.labels(line.stream).inc()
            elif item.status in _BAD:
                error = item.error if isinstance(item.error, _Error) else _Error("", item.error)
                dead.append((line, error.type or str(item.status), (error.reason or "")[:_WORDS]))
            else:  # too much load, no such index, no permission: it may be mended
                metrics.RETRIES.labels(str(item.status)).inc()
                left.append(line)
        if dead:
            self._dead.put(dead)
        return left

    def _not_there(self, lines: Sequence[Line]) -> list[Line]:
        """Those that no index of their data stream has."""
        there: set[str] = set()
        for name in {line.stream for line in lines}:
            stream = self._streams[name].stream
            ids = [line.id for line in lines if line.stream == name]
            try:
                self._client.refresh(stream)
            except NotThere:
                continue
            for start in range(0, len(ids), _ASKED_AT_ONCE):
                there |= self._those_there(stream, ids[start : start + _ASKED_AT_ONCE])
        for line in lines:
            if line.id in there:
                metrics.REPEATED.labels(line.stream).inc()
        return [line for line in lines if line.id not in there]

    def _those_there(self, stream: str, ids: Sequence[str]) -> set[str]:
        found = self._client.session.ask(
            lambda es: es.search(
                index=stream, query={"ids": {"values": ids}}, source=False, size=len(ids), filter_path=["hits.hits._id"]
            ),
            _Found,
        )
        return {one.id for one in found.hits.hits}
