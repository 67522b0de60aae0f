"""One submitter of a fleet, run as a process: asks the guards and writes the row, as often as it can, in its own name.

    python -m tests.jobs.submitter DATABASE_URL REQUESTER ATTEMPTS LIMIT

It says `ready`, waits for a line, and then prints how many of its jobs were let in.
"""

import sys

from sqlalchemy import insert

from nms_workers.jobs.guards import refusal
from nms_workers.jobs.job import new_id
from nms_workers.jobs.wish import Wish
from nms_workers.settings import Guards, Settings
from nms_workers.store.engine import make_engine
from nms_workers.store.schema import jobs
from tests.jobs.services.fence.service import Fence


def main(url: str, requester: str, attempts: int, limit: str) -> None:
    """Submit."""
    engine = make_engine(url)
    settings = Settings(guards=Guards.model_validate_json(limit))
    wish = Wish("fence", "unban", "gate", {"address": "198.51.100.7"}, requested_by=requester)
    let_in = 0
    engine.connect().close()
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(attempts):
        with engine.begin() as connection:
            if refusal(connection, settings, wish, Fence.actions()["unban"], wish.arguments) is None:
                row = {"id": new_id(), "service": "fence", "action": "unban", "target": "gate"}
                connection.execute(insert(jobs).values(row | {"requested_by": requester, "state": "queued"}))
                let_in += 1
    print(let_in)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
