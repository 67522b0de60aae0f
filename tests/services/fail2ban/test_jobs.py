"""Jobs at a real fail2ban: a ban with a time of its own, one that follows from another service, one that was begun."""

from collections.abc import Iterator
from datetime import UTC, datetime
from ipaddress import ip_network
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import Engine

import nms_workers.services
from nms_workers.fleet.clients import Clients
from nms_workers.fleet.inventory import Inventory
from nms_workers.fleet.targets import sync
from nms_workers.jobs.desk import Desk
from nms_workers.jobs.job import Job, caused_by, get, newest
from nms_workers.jobs.people import undo
from nms_workers.jobs.run import run
from nms_workers.jobs.submit import submit
from nms_workers.jobs.sweep import sweep
from nms_workers.jobs.wish import Wish
from nms_workers.records import Event
from nms_workers.service import Client, services
from nms_workers.services.fail2ban.client import Fail2banClient
from nms_workers.services.fail2ban.target import Fail2banTarget
from nms_workers.settings import Settings, TargetConfig
from nms_workers.store.history import History
from tests.fleet.stores import database_url, engine, postgres_name, red, redis_server, rows
from tests.jobs import services as services_of_the_tests
from tests.jobs.conftest import ClientOf, Published, age, desk, published
from tests.servers import Fail2banServer, Server
from tests.services.fail2ban.support import done, read
from tests.store.slots import slot

__all__ = ["database_url", "desk", "engine", "postgres_name", "published", "red", "redis_server"]


@pytest.fixture(autouse=True)
def _stores(monkeypatch: pytest.MonkeyPatch, database_url: str, redis_server: Server) -> Iterator[None]:
    monkeypatch.setenv("NMS_DATABASE_URL", database_url)
    monkeypatch.setenv("NMS_REDIS_URL", redis_server.url)
    fence = [*nms_workers.services.__path__, *services_of_the_tests.__path__]
    monkeypatch.setattr(nms_workers.services, "__path__", fence)
    services.cache_clear()
    yield
    monkeypatch.undo()
    services.cache_clear()


@pytest.fixture
def client_of(engine: Engine, red: "redis.Redis", server: Fail2banServer, tmp_path: Path) -> ClientOf:
    """The targets `fail2ban/fw1` and `fence/gate`."""
    fw1 = {"service": "fail2ban", "name": "fw1", "socket": str(server.socket), "timezone": "UTC"}
    gate = {"service": "fence", "name": "gate", "book": str(tmp_path / "book")}
    inventory, clients = Inventory(red), Clients()
    sync(
        engine,
        inventory,
        Settings(targets=[TargetConfig.model_validate(one) for one in (fw1, gate)]),
        datetime.now(UTC),
    )
    by_name = {target.name: target for target in inventory.all().values()}
    return lambda job: clients.get(by_name[job.target])


def ban(address: str, **arguments: Any) -> Wish:
    return Wish("fail2ban", "ban_ip", "fw1", {"jail": "nms", "address": address, **arguments}, "ada")


def test_a_ban_of_so_many_seconds_is_lifted_then_by_a_job_that_survives(
    engine: Engine, desk: Desk, client_of: ClientOf, published: Published, server: Fail2banServer
) -> None:
    """The caller said `seconds` and no more. Everything but PostgreSQL and fail2ban may be new by then."""
    job = run(desk, submit(desk, ban("198.51.100.7", seconds="60")), "host:1", client_of)
    assert (job.state, job.undo_after) == ("succeeded", 60)
    lifting = newest(engine, 1)[0]
    assert (lifting.action, lifting.undoes, lifting.state) == ("unban_ip", job.id, "queued")
    assert done(server) == ["nms ban 198.51.100.7"]
    age(engine, 55)
    assert sweep(desk) == 0
    age(engine, 6)
    assert sweep(desk) == 1
    fresh = Fail2banClient(client_of(job).target)  # type: ignore[attr-defined]
    assert run(desk, published.jobs[-1], "other-host:2", lambda _: fresh).state == "succeeded"
    assert done(server) == ["nms ban 198.51.100.7", "nms unban 198.51.100.7"]


def test_a_ban_for_the_jail_s_own_time_or_of_somebody_else_is_not_lifted(
    engine: Engine, desk: Desk, client_of: ClientOf
) -> None:
    run(desk, submit(desk, ban("198.51.100.7", seconds=600)), "host:1", client_of)
    ended = run(desk, submit(desk, ban("198.51.100.7", seconds=60)), "host:1", client_of)
    assert (ended.state, len(newest(engine))) == ("unchanged", 2), "the second found the ban of the first"


def test_a_ban_whose_worker_died_after_it_is_still_lifted(
    engine: Engine, desk: Desk, client_of: ClientOf, server: Fail2banServer
) -> None:
    job = submit(desk, ban("198.51.100.7", seconds=60))

    class Killed(BaseException):
        pass

    class Dying(Fail2banClient):
        def ban(self, jail: str, network: Any) -> None:
            super().ban(jail, network)
            raise Killed

    def die(claimed: Job) -> Client:
        return Dying(client_of(claimed).target)  # type: ignore[attr-defined]

    with pytest.raises(Killed):
        run(desk, job, "host:1", die)
    age(engine, 600)
    sweep(desk)
    ended = run(desk, job, "host:2", client_of)
    assert (ended.state, ended.attempts, ended.before) == ("succeeded", 2, {"banned": False})
    assert newest(engine, 1)[0].undoes == job.id
    assert done(server) == ["nms ban 198.51.100.7"]


def test_another_service_s_action_has_somebody_banned_and_its_undo_lets_him_in(
    engine: Engine, desk: Desk, client_of: ClientOf, published: Published, server: Fail2banServer
) -> None:
    def follow_up(address: str) -> dict[str, Any]:
        what = {"service": "fail2ban", "action": "ban_ip", "target": "fw1"}
        return what | {"arguments": {"jail": "nms", "address": address}, "evidence": {"signature_id": 2010935}}

    then = [follow_up("198.51.100.7"), follow_up("127.0.0.1")]
    parent = submit(desk, Wish("fence", "report", "gate", {"then": then}, "ada"))
    _work(desk, published, client_of)
    banned, refused = caused_by(engine, parent.id)
    assert (banned.state, banned.evidence, banned.requested_by) == ("succeeded", {"signature_id": 2010935}, "ada")
    assert (refused.state, "loopback" in str(refused.error)) == ("refused", True)
    assert done(server) == ["nms ban 198.51.100.7"]

    undo(desk, parent.id, "bob")
    _work(desk, published, client_of)
    assert done(server) == ["nms ban 198.51.100.7", "nms unban 198.51.100.7"]
    assert get(engine, get(engine, parent.id).undone_by or parent.id).state == "succeeded"


def test_each_ban_and_its_end_are_told_once_whatever_process_reads_them(
    engine: Engine, client_of: ClientOf, server: Fail2banServer, database_url: str
) -> None:
    """Two processes read in turn, and a third that never saw the ban: one beginning and one end of each stay."""
    (target_id,) = [row[0] for row in rows(engine, "SELECT id FROM targets WHERE service = 'fail2ban'")]
    connected = Fail2banTarget(socket=server.socket, timezone="UTC")
    first, second = Fail2banClient(connected), Fail2banClient(connected)
    history, numbers = History(engine, lambda _: None), count()

    def read_by(client: Fail2banClient) -> None:
        events = tuple(one for one in read(client, "bans") if isinstance(one, Event))
        what = {"events": events, "complete": True, "enumerated": ("ban",), "service": "fail2ban", "poll": "bans"}
        history.write([slot(target_id, next(numbers), [], **what)])

    for address in ("198.51.100.7", "198.51.100.8"):
        first.ban("nms", ip_network(address))
    for client in (first, second, first, second):
        read_by(client)
    first.unban("nms", ip_network("198.51.100.7"))
    for client in (first, second):
        read_by(client)
    first.unban("nms", ip_network("198.51.100.8"))
    for client in (Fail2banClient(connected), first, second):
        read_by(client)
    told = rows(engine, "SELECT fingerprint, state FROM events ORDER BY fingerprint, state")
    assert told == [(f"ban:nms:198.51.100.{n}", state) for n in (7, 8) for state in ("firing", "resolved")]


def _work(desk: Desk, published: Published, client_of: ClientOf) -> None:
    done_before = 0
    while done_before < len(published.jobs):
        run(desk, published.jobs[done_before], "host:1", client_of)
        done_before += 1
