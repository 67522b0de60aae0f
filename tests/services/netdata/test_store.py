"""What comes of alarms in the store: each is told once and resolved once, each change once, whoever asks."""

from typing import Any

from nms_workers.services.netdata.client import NetdataClient
from nms_workers.services.netdata.service import Netdata
from nms_workers.store import query
from nms_workers.store.history import History
from tests.servers import NetdataServer
from tests.services.netdata.conftest import Connect
from tests.services.netdata.support import read
from tests.services.records import await_true, events
from tests.store.conftest import Database, make_database, newest  # noqa: F401 - fixtures
from tests.store.slots import START, slot


class Fleet:
    """Runs a poll with a new client each time, as a worker does that was just started, and stores what it read."""

    def __init__(self, database: Database, url: str, connect: Connect) -> None:
        self.database, self._url, self._connect = database, url, connect
        self._target = database.target(service="netdata")
        self._history = History(database.engine, lambda _: None)
        self._slots = 0

    def run(self, poll: str, client: NetdataClient | None = None) -> None:
        """One slot."""
        told = events(read(client or self._connect(self._url), poll))
        about: dict[str, Any] = {"service": "netdata", "poll": poll, "complete": True, "events": tuple(told)}
        about["enumerated"] = tuple(Netdata.polls()[poll].enumerates)
        self._slots += 1
        self._history.write([slot(self._target, self._slots, [], **about)])

    def told(self, kind: str) -> list[tuple[str, str]]:
        """State and severity of the events of the level's alarm that are stored, by time."""
        rows = "SELECT state, severity FROM events WHERE kind = :kind AND fingerprint LIKE :name ORDER BY ts"
        name = "%nms_level" if kind == "alarm" else "%"
        return [(state, severity) for state, severity in self.database.rows(rows, kind=kind, name=name)]


def test_an_alarm_is_told_once_and_resolved_once_across_restarts(
    agent: NetdataServer,
    newest: Database,  # noqa: F811
    connect: Connect,
) -> None:
    fleet, client = Fleet(newest, agent.url, connect), connect(agent.url)
    fleet.run("alarms")
    agent.level(60)
    await_true(lambda: [one.status for one in client.get_alarms()] == ["WARNING"])
    for _ in range(3):
        fleet.run("alarms")
    assert fleet.told("alarm") == [("firing", "warning")]
    (lasting,) = query.firing(newest.engine)
    assert lasting["since"] > START

    agent.level(0)
    await_true(lambda: not list(client.get_alarms()))
    for _ in range(3):
        fleet.run("alarms")
    assert fleet.told("alarm") == [("firing", "warning"), ("resolved", "info")]
    assert query.firing(newest.engine) == []


def test_each_transition_is_stored_once_across_restarts(
    agent: NetdataServer,
    newest: Database,  # noqa: F811
    connect: Connect,
) -> None:
    fleet, client = Fleet(newest, agent.url, connect), connect(agent.url)
    fleet.run("transitions", client)
    before = len(fleet.told("alarm_transition"))
    for level, status in ((95, ["CRITICAL"]), (0, [])):
        agent.level(level)
        await_true(lambda wanted=status: [one.status for one in client.get_alarms()] == wanted)
        fleet.run("transitions", client)
        fleet.run("transitions")
    new = fleet.told("alarm_transition")[before:]
    assert [state for state, _ in new] == ["occurred"] * len(new)
    assert [severity for _, severity in new][-2:] == ["critical", "info"]
    assert len(new) == len(events(read(connect(agent.url), "transitions"))) - before
