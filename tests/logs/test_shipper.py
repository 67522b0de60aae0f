"""From files into data streams: everything once, whatever the cluster does."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from nms_workers.errors import ConfigError
from nms_workers.logs.cursors import Cursors
from nms_workers.logs.elastic import ElasticOutlet
from nms_workers.masking import MASK
from tests.fleet.stores import wait_until
from tests.logs.conftest import HOST, Ship, append, elastic, logs, messages, numbered, wait_for
from tests.services.elasticsearch.conftest import VERSIONS, StartStub
from tests.stubs.elasticsearch import ElasticsearchStub, lifecycle_policy


def count(name: str, **labels: str) -> float:
    """What a counter of this process has."""
    return REGISTRY.get_sample_value(f"nms_logs_{name}", labels) or 0.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.log"


@pytest.mark.parametrize("version", VERSIONS)
def test_lines_come_as_documents_of_ecs(ship: Ship, start_stub: StartStub, path: Path, version: str) -> None:
    stub = start_stub(version)
    append(path, "2026-11-22T20:30:00.123456789Z ERROR password=hunter2 is wrong")
    settings = logs(path, service="suricata", files={"name": "edge"})
    ship(settings, elastic(stub.url, path.parent))
    wait_until(lambda: stub.documents("nms-security-logs"))
    ((key, found),) = stub.documents("nms-security-logs")
    assert len(key) == 32
    assert found["event"].pop("created").endswith("Z")
    assert found == {
        "@timestamp": "2026-11-22T20:30:00.123456789Z",
        "message": f"2026-11-22T20:30:00.123456789Z ERROR password={MASK} is wrong",
        "ecs": {"version": "8.11.0"},
        "event": {"dataset": "suricata.log", "kind": "event"},
        "host": {"name": HOST},
        "service": {"name": "edge", "type": "suricata"},
        "log": {"file": {"path": str(path)}, "level": "error", "offset": 0},
    }


def test_streams_are_made_with_their_retention_and_then_left_alone(
    ship: Ship, stub: ElasticsearchStub, path: Path, tmp_path: Path
) -> None:
    append(path, "one")
    shipping = ship(logs(path, retention={"network": "14d"}), elastic(stub.url, tmp_path, retention={"network": "14d"}))
    wait_for(stub, ["one"])
    shipping.stop()
    kept = {name: one["policy"]["phases"]["delete"]["min_age"] for name, one in stub.policies.items()}
    assert kept == {"nms-monitoring-logs": "30d", "nms-network-logs": "14d", "nms-security-logs": "180d"}
    assert set(stub.templates) == set(kept)
    for name, template in stub.templates.items():
        assert template["index_patterns"] == [name]
        assert template["data_stream"] == {}
        assert template["template"]["settings"]["index.lifecycle.name"] == name
        assert template["template"]["mappings"]["properties"]["@timestamp"] == {"type": "date_nanos"}
    before = len(stub.paths("PUT"))
    append(path, "two")
    shipping = ship(logs(path), elastic(stub.url, tmp_path, retention={"network": "14d"}))
    wait_for(stub, ["one", "two"])
    shipping.stop()
    assert [one for one in stub.paths("PUT")[before:] if "_bulk" not in one] == []
    ship(logs(path), elastic(stub.url, tmp_path))
    wait_until(lambda: stub.policies["nms-network-logs"]["policy"]["phases"]["delete"]["min_age"] == "90d")


def test_what_somebody_else_made_is_left_alone(
    ship: Ship, stub: ElasticsearchStub, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    phases = {"hot": {"min_age": "0ms", "actions": {}}}
    stub.policies["nms-monitoring-logs"] = lifecycle_policy({"phases": phases})
    append(path, "one")
    ship(logs(path))
    wait_for(stub, ["one"])
    assert stub.policies["nms-monitoring-logs"]["policy"] == {"phases": phases}
    assert "made by somebody else" in caplog.text


def test_serverless_has_no_policies(ship: Ship, start_stub: StartStub, path: Path, tmp_path: Path) -> None:
    stub = start_stub("8.11.0", flavor="serverless")
    append(path, "one")
    ship(logs(path), elastic(stub.url, tmp_path))
    wait_for(stub, ["one"])
    template = stub.templates["nms-monitoring-logs"]["template"]
    assert template["lifecycle"] == {"data_retention": "30d"}
    assert "index.lifecycle.name" not in template["settings"]


def test_each_item_has_its_own_answer(ship: Ship, stub: ElasticsearchStub, path: Path, tmp_path: Path) -> None:
    stub.trouble = {"000003": [429, 503, 429], "000005": [400], "000007": [403], "000009": [400]}
    dead, busy = (
        count("dead_entries_total", reason="document_parsing_exception"),
        count("delivery_retries_total", reason="429"),
    )
    append(path, *numbered(1, 10))
    ship(logs(path))
    wanted = [line for number, line in enumerate(numbered(1, 10), 1) if number not in (5, 9)]
    wait_for(stub, wanted)
    append(path, "after")
    wait_for(stub, [*wanted, "after"])
    letters = [json.loads(line) for line in (tmp_path / "state" / "dead-letters.jsonl").read_text().splitlines()]
    assert [one["document"]["message"] for one in letters] == ["line 000005", "line 000009"]
    assert {one["reason"] for one in letters} == {"document_parsing_exception"}
    assert all(one["words"] and one["id"] and one["at"] for one in letters)
    assert count("dead_entries_total", reason="document_parsing_exception") == dead + 2
    assert count("delivery_retries_total", reason="429") == busy + 2


def test_dead_letters_are_bounded_and_of_nobody_else(
    ship: Ship, stub: ElasticsearchStub, path: Path, tmp_path: Path
) -> None:
    stub.trouble = {"line": [400] * 200}
    append(path, *numbered(1, 200), "good")
    shipping = ship(logs(path), elastic(stub.url, tmp_path, dead_letter_bytes=20_000))
    wait_for(stub, ["good"])
    shipping.stop()  # what it was doing is done
    files = sorted(tmp_path.glob("dead-letters.jsonl*"))
    assert [one.name for one in files] == ["dead-letters.jsonl", "dead-letters.jsonl.1"]
    assert all(one.stat().st_size <= 20_000 and one.stat().st_mode & 0o77 == 0 for one in files)
    assert json.loads(files[0].read_text().splitlines()[-1])["document"]["message"] == "line 000200"


def test_a_refused_request_is_sent_again_whole(ship: Ship, stub: ElasticsearchStub, path: Path) -> None:
    stub.too_many = 2
    append(path, *numbered(1, 20))
    ship(logs(path))
    wait_for(stub, numbered(1, 20))


def test_a_request_that_is_too_large_is_sent_in_parts(
    ship: Ship, stub: ElasticsearchStub, path: Path, tmp_path: Path
) -> None:
    stub.largest = 20_000
    append(path, *numbered(1, 100), "x" * 30_000)
    ship(logs(path, line_bytes=40_000))
    wait_for(stub, numbered(1, 100))
    letters = tmp_path / "state" / "dead-letters.jsonl"
    wait_until(letters.exists)
    assert json.loads(letters.read_text())["reason"] == "too_large"


def test_bulks_have_bounds(ship: Ship, stub: ElasticsearchStub, path: Path) -> None:
    append(path, *numbered(1, 500), *("x" * 5_000 for _ in range(50)))
    ship(logs(path, bulk_lines=100, bulk_bytes=60_000))
    wait_until(lambda: len(messages(stub)) == 550, 60)
    bulks = [one.get_data() for one in stub.seen if one.path == "/_bulk"]
    assert max(len(one.splitlines()) for one in bulks) == 200
    assert max(map(len, bulks)) <= 60_000


def test_the_cluster_is_away_for_a_while(ship: Ship, stub: ElasticsearchStub, path: Path, tmp_path: Path) -> None:
    outlet = elastic(stub.url, tmp_path)
    append(path, *numbered(1, 50))
    ship(logs(path), outlet)
    wait_for(stub, numbered(1, 50))
    with stub.away():
        append(path, *numbered(51, 100))
        wait_until(lambda: count("connected") == 0)
        shutil.move(path, path.with_name("app.log.1"))
        append(path, *numbered(101, 150))
    wait_for(stub, numbered(1, 150))
    wait_until(lambda: count("connected") == 1)
    assert len({key for key, _ in stub.documents("nms-monitoring-logs")}) == 150


def test_nothing_is_read_while_too_much_waits(ship: Ship, stub: ElasticsearchStub, path: Path) -> None:
    append(path, *("x" * 1000 + f" {number:06}" for number in range(2000)))
    with stub.away():
        ship(logs(path, waiting_bytes=100_000, bulk_lines=50))
        wait_until(lambda: count("waiting_bytes") >= 100_000)
        assert count("waiting_bytes") < 800_000  # the bound, and what one turn reads of a file
    wait_until(lambda: len(messages(stub)) == 2000, 60)


def test_ended_and_begun_again(ship: Ship, stub: ElasticsearchStub, path: Path) -> None:
    for start in range(0, 200, 40):
        append(path, *numbered(start + 1, start + 40))
        shipping = ship(logs(path, bulk_lines=7))
        wait_until(lambda start=start: len(messages(stub)) > start)  # somewhere in the middle
        shipping.stop()
    ship(logs(path))
    wait_for(stub, numbered(1, 200))


class _Answerless(ElasticOutlet):
    """Delivers, and then its process is at an end: nobody hears that it did."""

    def deliver(self, *args: Any, **options: Any) -> Any:
        super().deliver(*args, **options)
        raise SystemError("the process ends here")


@pytest.mark.parametrize("rolled", [False, True], ids=["same index", "next index"])
def test_delivered_and_never_acknowledged(
    ship: Ship, stub: ElasticsearchStub, path: Path, tmp_path: Path, rolled: bool
) -> None:
    append(path, *numbered(1, 20))
    normal = elastic(stub.url, tmp_path)
    outlet = _Answerless(normal._client, {}, normal._dead)
    shipping = ship(logs(path), outlet)
    shipping.died()
    assert messages(stub) == numbered(1, 20)
    if rolled:
        stub.roll_over("nms-monitoring-logs")
    append(path, *numbered(21, 25))
    ship(logs(path))
    wait_for(stub, numbered(1, 25))


def test_lines_that_were_joined_before_the_end_are_joined_the_same_after_it(
    ship: Ship, stub: ElasticsearchStub, path: Path, tmp_path: Path
) -> None:
    """A line that comes too late for its entry is one of its own, and stays so when both are read again."""
    append(path, "it failed", "  at first")
    normal = elastic(stub.url, tmp_path)
    shipping = ship(logs(path, service="app", join_for="100ms"), _Answerless(normal._client, {}, normal._dead))
    shipping.died()
    append(path, "  at last", "next")
    ship(logs(path, service="app", join_for="100ms"))
    wait_for(stub, ["it failed\n  at first", "  at last", "next"])


def test_a_traceback_is_one_document(ship: Ship, stub: ElasticsearchStub, path: Path) -> None:
    append(path, "before", "ERROR x", "Traceback (most recent call last):", '  File "a"', "ValueError: y", "after")
    ship(logs(path, service="app"))
    wait_for(stub, ["before", 'ERROR x\nTraceback (most recent call last):\n  File "a"\nValueError: y', "after"])
    found = {one["message"]: one["log"] for _, one in stub.documents("nms-monitoring-logs")}
    assert [one.get("flags") for one in found.values()].count(["multiline"]) == 1


def test_a_private_key_is_masked_whole(ship: Ship, stub: ElasticsearchStub, path: Path, tmp_path: Path) -> None:
    key = ["-----BEGIN RSA PRIVATE KEY-----", "TUlJRXB", "c2hvcnQ=", "-----END RSA PRIVATE KEY-----"]
    append(path, "loaded", *key, "done")
    shipping = ship(logs(path, service="app"))
    wait_for(stub, ["loaded", "\n".join([MASK] * 4), "done"])
    shipping.stop()
    left = b"".join(one.read_bytes() for one in (tmp_path / "state").iterdir())
    assert b"TUlJRXB" not in left


def test_two_shippers_of_one_folder(tmp_path: Path) -> None:
    cursors = Cursors(tmp_path)
    with pytest.raises(ConfigError, match="another process ships"):
        Cursors(tmp_path)
    cursors.close()
    Cursors(tmp_path).close()


def test_counts(ship: Ship, stub: ElasticsearchStub, path: Path) -> None:
    stream = {"stream": "monitoring"}
    names = ("shipped_lines_total", "masked_lines_total", "cut_lines_total")
    before = [count(name, **stream) for name in names]
    read = count("read_lines_total", **{"from": "file"}, **stream)
    append(path, "token=abc", "x" * 200 + "!", "fine")
    ship(logs(path, line_bytes=100))
    wait_until(lambda: len(messages(stub)) == 3)
    wait_until(lambda: count("shipped_lines_total", **stream) == before[0] + 3)
    assert [count(name, **stream) for name in names] == [before[0] + 3, before[1] + 1, before[2] + 1]
    assert count("read_lines_total", **{"from": "file"}, **stream) == read + 3
    wait_until(lambda: 0 <= count("lag_seconds", **stream) < 30)
    assert count("sources", **{"from": "file"}) == 1
