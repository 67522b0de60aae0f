"""Workers that reach PostgreSQL through PgBouncer, beside a control worker that reaches it itself."""

import psycopg
import pytest

from tests.conftest import StartServer
from tests.real.conftest import POSTGRES, REDIS, MakeFleet
from tests.real.fleet import until
from tests.real.ledger import Ledger
from tests.real.probe_server import ProbeServer
from tests.servers import Server

pytestmark = pytest.mark.real(POSTGRES, REDIS, "pgbouncer")


def test_polls_and_actions_through_it(
    own_postgres: Server, own_redis: Server, start_server: StartServer, make_fleet: MakeFleet, probe: ProbeServer
) -> None:
    with psycopg.connect(own_postgres.url) as connection:
        connection.execute("ALTER ROLE nms SET timezone = 'UTC'; ALTER ROLE nms SET statement_timeout = '30s'")
    through = {"NMS_DATABASE_URL": start_server("pgbouncer", to=own_postgres).url}
    fleet = make_fleet(own_postgres.url, own_redis.url)
    fleet.configure(fleet.target("one", probe.port, {"quick": None}))
    members = [fleet.worker("polls", **through), fleet.worker("actions", **through), fleet.worker("control")]
    for member in (*members, fleet.beat()):
        member.ready()
    ledger = Ledger(own_postgres.url, fleet.journal)
    until(lambda: ledger.outcomes("one")["ok"] >= 8, "polls are written through PgBouncer")
    done = [fleet.run("act", "probe", "apply", f"effect=ban{n}", "--target", "one", "--wait") for n in range(3)]
    assert [one.returncode for one in done] == [0, 0, 0], done[0].stderr + fleet.logs()[-3000:]
    assert set(ledger.outcomes("one")) <= {"ok", "expired"}, "a busy machine may be late; nothing else went wrong"
    assert "prepared statement" not in fleet.logs()
