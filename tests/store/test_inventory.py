from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from nms_workers.records import Entity, Event, Link
from nms_workers.store import query
from nms_workers.store.history import History
from nms_workers.store.slot import SlotResult
from tests.store.conftest import Database
from tests.store.slots import START, slot


@pytest.fixture
def history(database: Database) -> Iterator[History]:
    history = History(database.engine, lambda _: None)
    yield history
    history.engine.dispose()


def run(target: int, number: int, **changes: Any) -> SlotResult:
    return slot(target, number, [], **{"complete": True, "enumerated": ("database", "replicates", "blocked")} | changes)


def named(*keys: str, **attributes: object) -> tuple[Entity, ...]:
    return tuple(Entity("database", key, attributes) for key in keys)


def alive(database: Database) -> dict[str, bool]:
    return {key: gone is None for key, gone in database.rows("SELECT key, gone_at FROM entities ORDER BY key")}


def test_what_a_complete_run_does_not_name_is_gone_and_may_return(database: Database, history: History) -> None:
    target = database.target()
    history.write([run(target, 0, entities=named("a", "b", size=1))])
    history.write([run(target, 1, entities=named("a", size=2))])
    assert alive(database) == {"a": True, "b": False}
    gone = database.value("SELECT gone_at FROM entities WHERE key = 'b'")
    assert gone == START + timedelta(seconds=1, milliseconds=20)
    history.write([run(target, 2, entities=named("a"))])
    assert database.value("SELECT gone_at FROM entities WHERE key = 'b'") == gone
    history.write([run(target, 3, entities=named("a", "b", size=3))])
    assert alive(database) == {"a": True, "b": True}
    rows = database.rows("SELECT key, attributes, first_seen FROM entities ORDER BY key")
    first = START + timedelta(milliseconds=20)
    assert rows == [("a", {"size": 3}, first), ("b", {"size": 3}, first)]


def test_in_one_batch_it_comes_to_the_same(database: Database, history: History) -> None:
    target = database.target()
    history.write(
        [
            run(target, 0, entities=named("a", "b", "c")),
            run(target, 1, entities=named("a")),
            run(target, 2, entities=named("a", "c")),
        ]
    )
    assert alive(database) == {"a": True, "b": False, "c": True}
    assert database.value("SELECT gone_at FROM entities WHERE key = 'b'") == START + timedelta(
        seconds=1, milliseconds=20
    )


def test_an_incomplete_run_declares_nothing_gone(database: Database, history: History) -> None:
    target, other = database.target("one"), database.target("two")
    history.write([run(target, 0, entities=named("a", "b")), run(other, 0, entities=named("b"))])
    history.write([run(target, 1, entities=named("a"), complete=False)])
    history.write([run(other, 1, enumerated=())])
    assert database.value("SELECT count(*) FROM entities WHERE gone_at IS NOT NULL") == 0
    history.write([run(target, 2)])
    assert database.rows("SELECT target_id FROM entities WHERE gone_at IS NULL") == [(other,)]


def test_links_live_as_entities_do(database: Database, history: History) -> None:
    target = database.target()
    link = Link("replicates", ("server", "one"), ("server", "two"), {"lag": 1})
    history.write([run(target, 0, links=(link,))])
    history.write([run(target, 1)])
    found = "SELECT a_kind, a_key, b_key, attributes, gone_at IS NULL FROM links"
    assert database.rows(found) == [("server", "one", "two", {"lag": 1}, False)]
    history.write([run(target, 2, links=(link,))])
    assert database.rows(found) == [("server", "one", "two", {"lag": 1}, True)]


def test_keys_may_be_long(database: Database, history: History) -> None:
    history.write([run(database.target(), 0, entities=named("k" * 16_000))])
    assert len(query.entities(database.engine)[0]["key"]) == 16_000


def told(database: Database) -> list[tuple[str, str, str]]:
    return [
        (event["fingerprint"], event["state"], event["severity"])
        for event in query.events(database.engine, since=START - timedelta(hours=1))
    ]


def blocked(name: str, severity: Any = "warning") -> Event:
    return Event("blocked", f"{name} waits", severity=severity, fingerprint=name, state="firing")


def test_what_goes_on_firing_is_told_once_and_resolved_when_it_is_named_no_more(
    database: Database, history: History
) -> None:
    target = database.target()
    history.write([run(target, 0, events=(blocked("x"), blocked("y")))])
    history.write([run(target, 1, events=(blocked("x"), blocked("y")))])
    assert sorted(told(database)) == [("x", "firing", "warning"), ("y", "firing", "warning")]
    history.write([run(target, 2, events=(blocked("x", "critical"),))])
    assert sorted(told(database)[2:]) == [("x", "firing", "critical"), ("y", "resolved", "info")]
    lasting = query.firing(database.engine)
    assert [(one["fingerprint"], one["severity"]) for one in lasting] == [("x", "critical")]
    assert lasting[0]["since"] == START + timedelta(milliseconds=20)
    history.write([run(target, 3, complete=False)])
    assert len(query.firing(database.engine)) == 1
    history.write([run(target, 4), run(target, 5)])
    assert told(database)[4:] == [("x", "resolved", "info")]
    assert query.firing(database.engine) == []


def test_a_poll_resolves_only_what_it_fired_itself(database: Database, history: History) -> None:
    target = database.target()
    history.write([run(target, 0, events=(blocked("x"),)), run(target, 1, poll="other", events=(blocked("y"),))])
    history.write([run(target, 2, poll="other")])
    assert [one["fingerprint"] for one in query.firing(database.engine)] == ["x"]
    history.write([run(target, 3)])
    assert query.firing(database.engine) == []


def test_a_kind_that_is_not_enumerated_is_resolved_by_name_only(database: Database, history: History) -> None:
    target = database.target()
    down = Event("down", "link down", fingerprint="eth0", state="firing")
    up = Event("down", "link up", fingerprint="eth0", state="resolved")
    history.write([run(target, 0, events=(down,)), run(target, 1), run(target, 2, events=(up,))])
    history.write([run(target, 3, events=(up,))])  # nothing fires: nothing ends
    assert [state for _, state, _ in told(database)] == ["firing", "resolved"]


def test_an_event_has_its_own_time_or_that_of_the_read(database: Database, history: History) -> None:
    target = database.target()
    own = START - timedelta(minutes=5)
    history.write([run(target, 0, events=(Event("a", "m", ts=own), Event("b", "m", attributes={"nul": "\x00"})))])
    events = query.events(database.engine, since=own)
    assert [(event["kind"], event["ts"]) for event in events] == [
        ("a", own),
        ("b", START + timedelta(milliseconds=20)),
    ]
    assert events[1]["attributes"] == {"nul": "\N{REPLACEMENT CHARACTER}"}
