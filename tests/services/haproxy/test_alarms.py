"""A state of a server is told once when it begins and once when it ends, whoever reads: through the store."""

from collections.abc import Callable, Iterator

import pytest

from nms_workers.records import Entity, Event
from nms_workers.services.haproxy.client import HaproxyClient
from nms_workers.services.haproxy.service import Haproxy
from nms_workers.store import query
from nms_workers.store.history import History
from tests.servers import HaproxyServer
from tests.services.haproxy.conftest import App, Connect, settled
from tests.services.haproxy.support import act, read, state
from tests.services.records import await_true
from tests.store.conftest import Database, make_database, newest
from tests.store.slots import START, slot

__all__ = ["make_database", "newest"]  # fixtures


@pytest.fixture
def keep(newest: Database) -> Iterator[Callable[[HaproxyClient], list[tuple[str, str]]]]:
    """`keep(client)`: run the poll, store what it gave as a worker does; what was told since, without d1."""
    target, told, number = newest.target("lb", "haproxy"), 0, 0

    def run(client: HaproxyClient) -> list[tuple[str, str]]:
        nonlocal told, number
        records, number = read(client), number + 1
        result = slot(
            target,
            number,
            [],
            service="haproxy",
            target="lb",
            poll="stats",
            complete=True,
            enumerated=tuple(Haproxy.polls()["stats"].enumerates),
            events=tuple(one for one in records if isinstance(one, Event)),
            entities=tuple(one for one in records if isinstance(one, Entity)),
        )
        history = History(newest.engine, lambda _: None)  # a new one each time: nothing is known but what is stored
        history.write([result])
        every = query.events(newest.engine, since=START)
        new, told = every[told:], len(every)
        return [(one["fingerprint"], one["state"]) for one in new if "be_dead" not in one["fingerprint"]]

    yield run
    newest.engine.dispose()


def test_each_change_of_a_state_is_told_once_across_restarts(
    server: HaproxyServer, connect: Connect, apps: list[App], keep: Callable[[HaproxyClient], list[tuple[str, str]]]
) -> None:
    down, maintenance = "server_down:be_app/app1", "server_maintenance:be_app/app1"
    assert keep(connect(server)) == []
    apps[0].well = False
    await_true(lambda: state(connect(server), "app1") == "DOWN")
    assert keep(connect(server)) == [(down, "firing")]
    assert keep(connect(server)) == []
    server.restart()  # with it the process has forgotten
    await_true(lambda: state(connect(server), "app1") == "DOWN")
    assert keep(connect(server)) == []
    act(connect(server), "set_server_state", backend="be_app", server="app1", state="maint")
    assert sorted(keep(connect(server))) == [(down, "resolved"), (maintenance, "firing")]
    apps[0].well = True
    act(connect(server), "set_server_state", backend="be_app", server="app1", state="ready")
    settled(connect(server))
    assert keep(connect(server)) == [(maintenance, "resolved")]
    assert keep(connect(server)) == []
