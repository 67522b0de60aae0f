"""Our classes of worker on each broker, through the API of pytest-celery: round trip, broker restart, worker kill."""

import time
from collections.abc import Callable, Iterator

import pytest
from pytest_celery import CeleryBrokerCluster, CeleryTestBroker, CeleryTestSetup, CeleryTestWorker, CeleryWorkerCluster

from tests.conftest import StartServer
from tests.real.conftest import POSTGRES, REDIS, MakeFleet
from tests.real.fleet import Fleet, Member, until
from tests.real.ledger import Ledger
from tests.real.nodes import ServerNode, Setup, WorkerNode
from tests.real.probe_server import ProbeServer
from tests.servers import Server

Send = Callable[[str], Callable[[], bool]]


@pytest.fixture(
    params=[
        pytest.param(REDIS, marks=pytest.mark.real(REDIS)),
        pytest.param("rabbitmq", marks=pytest.mark.real("rabbitmq")),
    ]
)
def broker_server(request: pytest.FixtureRequest, start_server: StartServer) -> Server:
    """The broker of this run."""
    return start_server(request.param)


@pytest.fixture
def fleet(make_fleet: MakeFleet, database: str, own_redis: Server, broker_server: Server, probe: ProbeServer) -> Fleet:
    """A fleet around the broker of this run, with the target `it` known."""
    fleet = make_fleet(database, own_redis.url, broker_server.url)
    fleet.configure(fleet.target("it", probe.port, {"steady": "10m"}))
    (beat,) = fleet.crew("beat")
    until(lambda: Ledger(database, fleet.journal).rows("SELECT 1 FROM schedules"), "the target is known")
    assert beat.stop() == 0
    return fleet


@pytest.fixture
def celery_setup_cls() -> type[CeleryTestSetup]:
    return Setup


@pytest.fixture
def celery_broker_cluster(broker_server: Server) -> CeleryBrokerCluster:
    return CeleryBrokerCluster(CeleryTestBroker(ServerNode(broker_server)))


@pytest.fixture
def celery_backend_cluster() -> None:
    """The ledger and the jobs are our results."""


@pytest.fixture(params=["polls", "actions"])
def worker_class(request: pytest.FixtureRequest) -> str:
    """Threads and early acknowledgement, or prefork and late."""
    return str(request.param)


@pytest.fixture
def celery_worker_cluster(fleet: Fleet, worker_class: str, celery_setup_app: object) -> Iterator[CeleryWorkerCluster]:
    cluster = CeleryWorkerCluster(CeleryTestWorker(WorkerNode(fleet, worker_class), celery_setup_app))
    yield cluster
    cluster.teardown()


@pytest.fixture
def send(celery_setup: CeleryTestSetup, ledger: Ledger, probe: ProbeServer) -> Send:
    """`send("first")`: send a task of the worker's class; the answer tells whether it ran and was stored."""

    def poll(_: str) -> Callable[[], bool]:
        ((target,),) = ledger.rows("SELECT id FROM targets")
        arguments = {"slots": [[target, int(time.time() * 1000)]], "targets": ["it"], "manual": True}
        stored = len(ledger.stored())
        celery_setup.app.send_task("nms.probe.steady", kwargs=arguments, queue="poll.probe")
        return lambda: len(ledger.stored()) == stored + 1

    def action(effect: str) -> Callable[[], bool]:
        arguments = {"target": "it", "effect": effect}
        sent = celery_setup.app.send_task("nms.probe.apply", kwargs=arguments, queue="act.probe")
        return lambda: ledger.rows("SELECT 1 FROM jobs WHERE id = %s AND state = 'succeeded'", sent.id) != []

    return {"polls": poll, "actions": action}[celery_setup.worker.worker_name]


@pytest.mark.real(POSTGRES)
def test_a_worker_serves_and_goes_on_after_its_broker_s_restart_and_its_own_death(
    celery_setup: CeleryTestSetup, send: Send, probe: ProbeServer
) -> None:
    worker, broker = celery_setup.worker, celery_setup.broker
    assert celery_setup.ready(control=True)
    assert worker.version.startswith("5.6.")
    until(send("first"), "a task runs")

    broker.restart(force=True)
    member: Member = worker.container.member
    returned = time.time()
    until(lambda: member.beats(returned), "the worker consumes again")
    until(send("second"), "a task runs after the broker's restart")

    worker.kill()
    assert worker.container.status == "exited"
    third = send("third")
    worker.restart()
    until(third, "the next worker runs what was sent meanwhile")

    assert probe.seen.effects in ({}, {"first": 1, "second": 1, "third": 1})
    assert sum(probe.seen.reads.values()) in (0, 3)
    assert sum(probe.seen.effects.values()) + sum(probe.seen.reads.values()) == 3
