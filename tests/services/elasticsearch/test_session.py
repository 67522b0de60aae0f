"""Which official client speaks, as whom, and what is told when it cannot."""

import importlib
import subprocess
import sys
from typing import Any

import msgspec
import pytest

from nms_workers.errors import AuthError, Outcome, ParseError, Refused, TargetError, Unreachable
from nms_workers.services.elasticsearch.client import ElasticsearchClient
from nms_workers.services.elasticsearch.failures import Denied, NotThere
from nms_workers.services.elasticsearch.target import ElasticsearchTarget
from tests.services.elasticsearch.conftest import VERSIONS, Connect, StartStub
from tests.services.elasticsearch.support import read, value
from tests.services.test_http_faults import FAULTS, SECRET, Fault
from tests.stubs.elasticsearch import ElasticsearchStub
from tests.transport.sites import Call, Site

ROOT = {
    "name": "es-1",
    "cluster_name": "logs",
    "version": {"number": "9.1.2", "build_flavor": "default"},
    "tagline": "You Know, for Search",
}


def test_each_version_is_spoken_to_by_its_own_client(stub: ElasticsearchStub, client: ElasticsearchClient) -> None:
    read(client, "health")
    asked = stub.seen[-1].headers["Accept"]
    assert asked == f"application/vnd.elasticsearch+json; compatible-with={stub.major}"
    module = client.session.api().module.__name__
    assert module == {8: "elasticsearch8", 9: "elasticsearch"}[stub.major]
    assert importlib.import_module(module).__version__[0] == stub.major


def test_a_cluster_that_was_upgraded_is_spoken_to_anew(start_stub: StartStub, connect: Connect) -> None:
    stub = start_stub("9.1.2")
    client, other = connect(stub.url), connect(stub.url)
    assert value(read(client, "health"), "info", version="9.1.2") == 1
    other.get_health()
    stub.version, stub.major = "8.19.0", 8  # the other way round, which is the one that hurts
    assert value(read(client, "health"), "info", version="8.19.0") == 1
    with pytest.raises(Denied) as caught:
        other.get_health()  # it did not ask
    assert caught.value.kind == "media_type_header_exception"
    assert other.get_health()


@pytest.mark.parametrize(("version", "major"), [("8.0.0", 8), ("10.2.0", 9)])
def test_the_nearest_client_is_taken(start_stub: StartStub, connect: Connect, version: str, major: int) -> None:
    stub = start_stub(version)
    module = connect(stub.url).session.api().module
    assert module.__version__[0] == major


def test_an_old_version_is_refused(start_stub: StartStub, connect: Connect) -> None:
    stub = start_stub("7.17.9")
    with pytest.raises(Refused, match=r"Elasticsearch 7\.17\.9 is not supported \(8 and later are\)"):
        connect(stub.url).get_health()


def test_opensearch_is_told_apart(connect: Connect) -> None:
    body = {"name": "o", "cluster_name": "logs", "version": {"distribution": "opensearch", "number": "2.11.0"}}
    root = msgspec.json.encode(body | {"tagline": "The OpenSearch Project: https://opensearch.org/"})
    with Site({"*": lambda call: call.answer(body=root)}) as site, pytest.raises(ParseError) as caught:
        connect(site.url).get_health()
    assert "no Elasticsearch 8 or later: it is opensearch 2.11.0 (check host and port" in str(caught.value)


def test_no_request_for_the_version_where_the_settings_tell_it(start_stub: StartStub, connect: Connect) -> None:
    stub = start_stub("9.1.2")
    stub.make_index("logs-1", docs=1)
    client = connect(stub.url, major=9)
    assert [hit.id for hit in client.search("logs-1")] == ["0"]
    assert "/" not in stub.paths()


@pytest.mark.parametrize(
    ("settings", "header"),
    [
        ({"token": "env:TEST_ES"}, "ApiKey s3cr3t"),
        ({"token": "env:TEST_ES", "token_scheme": "Bearer"}, "Bearer s3cr3t"),
        ({"username": "nms", "password": "env:TEST_ES"}, "Basic bm1zOnMzY3IzdA=="),
    ],
    ids=["api key", "bearer", "basic"],
)
def test_credentials(
    start_stub: StartStub, connect: Connect, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], header: str
) -> None:
    monkeypatch.setenv("TEST_ES", "s3cr3t")
    stub = start_stub("9.1.2", secret=header)
    client = connect(stub.url, **settings)
    assert read(client, "health")
    stub.secret = "another"
    for ask in (client.get_health, connect(stub.url, **settings).get_health):
        with pytest.raises(AuthError, match="check username and password, or the token") as caught:
            ask()
        assert "s3cr3t" not in str(caught.value)
        assert "s3cr3t" not in repr(client.session.api().client.transport.__dict__)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_every_fault_has_its_outcome_in_the_official_client_too(
    monkeypatch: pytest.MonkeyPatch, fault: Fault, version: str
) -> None:
    """`tests/services/test_http_faults.py` meets them at the first request, which the official client does not send."""
    monkeypatch.setenv("TEST_SECRET", SECRET)
    root = msgspec.json.encode(ROOT | {"version": {"number": version}})
    routes = {"/": lambda call: call.answer(body=root, X_Elastic_Product="Elasticsearch"), "*": fault.route}
    settings = {
        "timeout": {"connect": 1, "read": 0.5, "total": 1},
        "retry": {"attempts": 1},
        "token": "env:TEST_SECRET",
    }
    with Site(routes) as site:
        client = ElasticsearchClient(ElasticsearchTarget.model_validate({"url": site.url} | settings))
        client.session.api()  # its import takes longer than this client may
        with pytest.raises(TargetError) as caught:
            read(client, "health")
        client.close()
    assert caught.value.outcome == fault.outcome, caught.value
    assert fault.words in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_deadline_holds_inside_the_official_client(connect: Connect) -> None:
    root = msgspec.json.encode(ROOT)
    routes = {
        "/": lambda call: call.answer(body=root, X_Elastic_Product="Elasticsearch"),
        "*": lambda call: call.drip(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b" " * 1000),
    }
    with Site(routes) as site:
        client = connect(site.url, timeout={"connect": 1, "read": 30, "total": 0.5})
        client.session.api()
        with pytest.raises(TargetError) as caught:
            client.get_health()
    assert caught.value.outcome == Outcome.TIMEOUT


def test_an_answer_that_is_too_big_is_given_up(stub: ElasticsearchStub, connect: Connect) -> None:
    with pytest.raises(ParseError, match="more than 2000 bytes") as caught:
        connect(stub.url, max_body=2000).get_node_stats()
    assert "raise max_body" in caught.value.hint


def test_a_server_that_goes_away_is_asked_for_its_version_when_it_is_back(connect: Connect) -> None:
    root = msgspec.json.encode(ROOT)
    up = [True]

    def answer(call: Call, body: bytes) -> None:
        if up[0]:
            call.answer(body=body, X_Elastic_Product="Elasticsearch")
        else:
            call.reset()

    routes = {
        "/": lambda call: answer(call, root),
        "*": lambda call: answer(call, b'{"status": "green", "number_of_nodes": 1}'),
    }
    with Site(routes) as site:
        client = connect(site.url)
        client.get_health()
        up[0] = False
        with pytest.raises(Unreachable):
            client.get_health()
        up[0] = True
        assert client.get_health()
        assert [one.path for one in site.seen].count("/") == 2


def test_errors_are_told_in_the_clusters_words(stub: ElasticsearchStub, client: ElasticsearchClient) -> None:
    with pytest.raises(NotThere, match=r"answered with 404: no such index \[nowhere\] \(check the name"):
        list(client.search("nowhere"))
    stub.make_index("there")
    with pytest.raises(Denied, match=r"index \[there\] already exists") as caught:
        client.create_index("there")
    assert caught.value.kind == "resource_already_exists_exception"


def test_who_may_not_ask_for_the_version_is_told_of_the_setting(connect: Connect) -> None:
    body = (
        b'{"error":{"type":"security_exception","reason":"action [cluster:monitor/main] is unauthorized"},"status":403}'
    )
    with Site({"*": lambda call: call.answer(403, body)}) as site, pytest.raises(Refused) as caught:
        connect(site.url).get_health()
    assert "action [cluster:monitor/main] is unauthorized" in str(caught.value)
    assert "set `major`" in caught.value.hint


def test_nothing_heavy_is_imported_before_a_cluster_is_spoken_to() -> None:
    code = "import sys; import nms_workers.services.elasticsearch.service; print('elasticsearch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    assert out.strip() == "False"


def test_deprecations_are_not_printed(
    stub: ElasticsearchStub, client: ElasticsearchClient, recwarn: pytest.WarningsRecorder
) -> None:
    read(client, "tasks")
    assert [str(one.message) for one in recwarn if "elastic" in type(one.message).__module__] == []
