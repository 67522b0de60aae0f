import json
import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import redis

from nms_workers.errors import Outcome
from nms_workers.store.latest import CHANGES, Latest, latest_key, read_latest, send
from nms_workers.store.slot import SlotResult
from nms_workers.store.spool import Spool
from nms_workers.store.writer import Writer
from tests.servers import Server
from tests.store.conftest import Database
from tests.store.slots import LAYOUT, START, slot
from tests.store.waiting import until

LAYOUTS = {LAYOUT.digest: LAYOUT}
TARGET = 41


@pytest.fixture
def server(start_server: Callable[..., Server]) -> Server:
    return start_server("valkey-9")


@pytest.fixture
def client(server: Server) -> Iterator["redis.Redis"]:
    client = redis.Redis.from_url(server.url, socket_timeout=5)
    yield client
    client.close()


def put(client: "redis.Redis", *results: SlotResult) -> None:
    send(client, [(result, LAYOUTS) for result in results])


def test_the_newest_state_can_be_read(client: "redis.Redis") -> None:
    put(client, slot(TARGET, 0), slot(TARGET, 1, [float("nan"), float("inf"), 2**53 + 1.0], poll="other"))
    latest = read_latest(client, TARGET)
    assert latest["info"] == {
        "at": (START + timedelta(milliseconds=20)).isoformat(),
        "due": START.isoformat(),
        "outcome": "ok",
        "detail": "",
        "samples": {'test_value{number="0"}': 0.0, 'test_value{number="1"}': 0.5, 'test_value{number="2"}': 0.0},
        "sampled_at": START.isoformat(),
    }
    assert list(latest["other"]["samples"].values()) == [None, None, 2**53]
    assert read_latest(client, TARGET + 1) == {}
    assert 0 < client.ttl(latest_key(TARGET)) <= 7 * 86_400


def test_an_older_slot_never_overwrites_a_newer_one(client: "redis.Redis") -> None:
    put(client, slot(TARGET, 10))
    put(client, slot(TARGET, 9), slot(TARGET, 3, [], outcome=Outcome.LOST))
    latest = read_latest(client, TARGET)["info"]
    assert latest["outcome"] == "ok"
    assert latest["samples"]['test_value{number="0"}'] == 10
    put(client, slot(TARGET, 11, [], outcome=Outcome.LOST))
    put(client, slot(TARGET, 11))  # it was not lost after all
    assert read_latest(client, TARGET)["info"]["outcome"] == "ok"


def test_a_failure_leaves_the_last_good_samples_with_their_time(client: "redis.Redis") -> None:
    put(client, slot(TARGET, 0), slot(TARGET, 30, [], outcome=Outcome.TIMEOUT, detail="no answer"))
    latest = read_latest(client, TARGET)["info"]
    assert (latest["outcome"], latest["detail"]) == ("timeout", "no answer")
    assert len(latest["samples"]) == 3
    assert latest["sampled_at"] == START.isoformat()
    assert latest["at"] > latest["sampled_at"]


def test_only_changes_are_published(client: "redis.Redis") -> None:
    listening = client.pubsub(ignore_subscribe_messages=True)
    listening.subscribe(CHANGES)
    until(lambda: client.pubsub_numsub(CHANGES)[0][1] == 1, "the subscription stands")
    same = [1.0, 2.0, 3.0]
    put(client, slot(TARGET, 0, same), slot(TARGET, 1, same), slot(TARGET, 2, [1.0, 2.0, 4.0]))
    put(client, slot(TARGET, 3, [], outcome=Outcome.TIMEOUT), slot(TARGET, 4, [], outcome=Outcome.TIMEOUT))
    put(client, slot(TARGET, 1, [9.0, 9.0, 9.0]))
    client.publish(CHANGES, json.dumps({"at": "the end"}))
    heard: list[dict[str, Any]] = []

    def hear() -> bool:
        message = listening.get_message(timeout=1)
        if message:
            heard.append(json.loads(message["data"]))
        return bool(heard) and heard[-1]["at"] == "the end"

    until(hear, "all messages")
    listening.close()
    assert [(one["poll"], one["outcome"], one["at"][14:19]) for one in heard[:-1]] == [
        ("info", "ok", "00:00"),
        ("info", "ok", "00:02"),
        ("info", "timeout", "00:03"),
    ]
    assert {(one["service"], one["target"]) for one in heard[:-1]} == {("redis", "one")}


def test_redis_forgets_scripts_when_it_starts_anew(client: "redis.Redis") -> None:
    put(client, slot(TARGET, 0))
    client.script_flush()
    put(client, slot(TARGET, 1))
    assert read_latest(client, TARGET)["info"]["samples"]['test_value{number="0"}'] == 1


def test_redis_away_holds_up_nobody_and_all_is_right_when_it_is_back(
    server: Server, newest: Database, spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    target = newest.target()
    writer = Writer(spool, newest.url, Latest(server.url), schema=newest.schema)
    writer.start()
    with caplog.at_level(logging.WARNING, "nms_workers.store.latest"):
        server.kill()
        for number in range(200):
            writer.put(slot(target, number), [LAYOUT])
        writer.put(slot(target, 200, [], outcome=Outcome.TIMEOUT), [])
        until(lambda: newest.value("SELECT count(*) FROM poll_runs") == 201, "PostgreSQL has everything")
        assert not writer.flush(0.1)
        server.start()
        assert writer.flush(20)
    with redis.Redis.from_url(server.url, socket_timeout=5) as client:
        latest = read_latest(client, target)["info"]
    assert latest["outcome"] == "timeout"
    assert latest["samples"]['test_value{number="0"}'] == 199
    assert len([message for message in caplog.messages if "does not take the latest state" in message]) == 1
    assert len([message for message in caplog.messages if "takes the latest state again" in message]) == 1
    assert writer.close(5)


def test_the_latest_state_does_not_wait_for_postgresql(
    server: Server, client: "redis.Redis", spool: Spool, free_port: Callable[[], int]
) -> None:
    url = f"postgresql://nms@127.0.0.1:{free_port()}/nms"
    writer = Writer(spool, url, Latest(server.url))
    writer.start()
    writer.put(slot(TARGET, 0), [LAYOUT])
    until(lambda: read_latest(client, TARGET), "the latest state is there")
    assert not writer.close(0.2)
    assert spool.backlog().rows == 1
