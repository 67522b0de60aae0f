"""Searching and writing: page by page, chunk by chunk, with what the cluster refuses for load sent again."""

import json
from collections.abc import Iterator

import pytest

from nms_workers.errors import Refused, Timeout
from nms_workers.services.elasticsearch import bulk, search
from nms_workers.services.elasticsearch.bulk import Operation
from nms_workers.services.elasticsearch.client import ElasticsearchClient
from nms_workers.transport.deadline import deadline
from tests.services.elasticsearch.conftest import Connect
from tests.stubs.elasticsearch import ElasticsearchStub


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "_FIRST_WAIT", 0.01)
    monkeypatch.setattr(search, "_PAGE", 10)


def test_a_search_goes_through_pages_of_one_view(stub: ElasticsearchStub, client: ElasticsearchClient) -> None:
    stub.make_index("logs-1", docs=25)
    found = client.search("logs-*")
    first = next(found)
    stub.indices["logs-1"]["docs"]["25"] = {"n": 25}  # not in the view
    assert [first.source["n"], *(hit.source["n"] for hit in found)] == list(range(25))
    assert len([one for one in stub.paths("POST") if one.startswith("/_search")]) == 3
    assert stub.views == {}


def test_a_search_ends_at_its_limit_and_gives_its_view_back(
    stub: ElasticsearchStub, client: ElasticsearchClient
) -> None:
    stub.make_index("logs-1", docs=25)
    assert [hit.id for hit in client.search("logs-1", limit=12)] == [str(at) for at in range(12)]
    assert stub.views == {}
    stopped = client.search("logs-1")
    next(stopped)
    stopped.close()
    assert stub.views == {}


def test_a_search_with_a_query(stub: ElasticsearchStub, client: ElasticsearchClient) -> None:
    stub.make_index("logs-1", docs=5)
    (hit,) = client.search("logs-1", {"term": {"n": {"value": 3}}})
    assert (hit.id, hit.index, hit.source) == ("3", "logs-1", {"n": 3})


@pytest.mark.parametrize("limit", [0, -1, 100_001])
def test_a_search_without_bound_is_refused(client: ElasticsearchClient, limit: int) -> None:
    with pytest.raises(Refused, match="1 to 100000 documents"):
        next(client.search("logs-*", limit=limit))


def test_bulk_writes_every_kind_of_operation(stub: ElasticsearchStub, client: ElasticsearchClient) -> None:
    stub.make_index("logs-1", docs=2)
    result = client.bulk(
        [
            Operation("logs-1", {"n": 7}, id="7"),
            Operation("logs-1", {"n": 8}),
            Operation("logs-1", {"n": 9}, op="index", id="0"),
            Operation("logs-1", {"n": 10}, op="update", id="1"),
            Operation("logs-1", op="delete", id="7"),
            Operation("logs-1", {}, op="index", id="empty"),
        ]
    )
    assert (result.written, result.failed, result.faults) == (6, 0, [])
    docs = stub.indices["logs-1"]["docs"]
    assert (docs["0"], docs["1"], docs["empty"], "7" in docs) == ({"n": 9}, {"n": 10}, {}, False)


def test_creating_twice_writes_once(stub: ElasticsearchStub, client: ElasticsearchClient) -> None:
    stub.make_stream("logs-app")
    operations = [Operation("logs-app", {"@timestamp": "2026-11-22T10:00:00Z", "n": at}, id=str(at)) for at in range(5)]
    assert client.bulk(operations).written == 5
    again = client.bulk(operations)
    assert (again.written, again.existing, again.failed) == (0, 5, 0)
    (backing,) = stub.indices
    assert len(stub.indices[backing]["docs"]) == 5


def test_each_item_that_fails_is_told(stub: ElasticsearchStub, client: ElasticsearchClient) -> None:
    stub.make_stream("logs-app")
    result = client.bulk(
        [
            Operation("logs-1", {"n": "no number"}, id="a"),
            Operation("logs-1", {"n": 1}, id="b"),
            Operation("logs-app", {"n": 1}, op="index", id="c"),
            Operation("logs-1", op="delete", id="gone"),
        ]
    )
    assert (result.written, result.failed, result.rejected) == (1, 3, 0)
    one, two, three = result.faults
    assert (one.id, one.op, one.status, one.kind) == ("a", "create", 400, "document_parsing_exception")
    assert one.reason == "failed to parse field [n] of type [long]"
    assert (two.index, two.status) == ("logs-app", 400)
    assert (three.id, three.status) == ("gone", 404)


def test_no_more_faults_are_told_than_anybody_reads(stub: ElasticsearchStub, client: ElasticsearchClient) -> None:
    result = client.bulk(Operation("logs-1", {"n": "no number"}, id=str(at)) for at in range(250))
    assert (result.failed, len(result.faults)) == (250, 100)


def test_items_refused_for_load_are_sent_again_alone(stub: ElasticsearchStub, client: ElasticsearchClient) -> None:
    stub.reject = {"3": 2}
    result = client.bulk(Operation("logs-1", {"n": at}, id=str(at)) for at in range(5))
    assert (result.written, result.failed) == (5, 0)
    sent = [one.get_data().count(b"\n") // 2 for one in stub.seen if one.path == "/_bulk"]
    assert sent == [5, 1, 1]


def test_items_refused_for_load_to_the_end_are_counted(stub: ElasticsearchStub, client: ElasticsearchClient) -> None:
    stub.reject = {"3": 99}
    result = client.bulk(Operation("logs-1", {"n": at}, id=str(at)) for at in range(5))
    assert (result.written, result.failed, result.rejected) == (4, 1, 1)
    assert [one.id for one in result.faults] == ["3"]


def test_a_request_refused_for_load_is_sent_again(stub: ElasticsearchStub, client: ElasticsearchClient) -> None:
    stub.too_many = 2
    assert client.bulk([Operation("logs-1", {"n": 1}, id="1")]).written == 1
    stub.too_many = 99
    with pytest.raises(Refused, match="answered with 429: es_rejected_execution_exception"):
        client.bulk([Operation("logs-1", {"n": 1}, id="1")])


def test_a_bulk_goes_in_chunks_and_holds_no_more(stub: ElasticsearchStub, connect: Connect) -> None:
    client = connect(stub.url, bulk_operations=10, bulk_bytes=4000)
    ahead: list[int] = []

    def operations() -> Iterator[Operation]:
        for at in range(100):
            written = len(stub.indices["logs-1"]["docs"]) if "logs-1" in stub.indices else 0
            ahead.append(at - written)
            size = 1000 if at >= 90 else 1
            yield Operation("logs-1", {"text": "x" * size}, id=str(at))

    assert client.bulk(operations()).written == 100
    chunks = [one.get_data() for one in stub.seen if one.path == "/_bulk"]
    assert max(ahead) <= 11
    assert max(map(len, chunks)) <= 4000
    assert max(chunk.count(b"\n") // 2 for chunk in chunks) == 10
    assert len(chunks) >= 12  # the last ten are big: three a chunk


def test_a_bulk_ends_at_its_deadline(stub: ElasticsearchStub, connect: Connect) -> None:
    client = connect(stub.url, bulk_operations=1)

    def operations() -> Iterator[Operation]:
        for at in range(3):
            yield Operation("logs-1", {"n": at}, id=str(at))
        with deadline(0):  # from here on there is no time left
            yield Operation("logs-1", {"n": 3}, id="3")

    with pytest.raises(Timeout):
        client.bulk(operations())
    assert list(stub.indices["logs-1"]["docs"]) == ["0", "1"]


def test_what_cannot_be_json_is_told(client: ElasticsearchClient) -> None:
    with pytest.raises(Refused, match="what was to be sent cannot be written as JSON") as caught:
        client.bulk([Operation("logs-1", {"n": object(), "password": "hunter2"}, id="1")])
    assert "hunter2" not in str(caught.value)


def test_a_bulk_is_what_the_protocol_says(stub: ElasticsearchStub, client: ElasticsearchClient) -> None:
    """The description does not tell the body of `_bulk`: lines of JSON, each ended, an action and its document."""
    client.bulk([Operation("logs-1", {"n": 1}, id="1"), Operation("logs-1", op="delete", id="1")])
    (sent,) = [one for one in stub.seen if one.path == "/_bulk"]
    assert sent.get_data().endswith(b"\n")
    assert [json.loads(line) for line in sent.get_data().splitlines()] == [
        {"create": {"_id": "1", "_index": "logs-1"}},
        {"n": 1},
        {"delete": {"_id": "1", "_index": "logs-1"}},
    ]
    kind = f"application/vnd.elasticsearch+x-ndjson; compatible-with={stub.major}"
    assert sent.headers["Content-Type"] == kind
