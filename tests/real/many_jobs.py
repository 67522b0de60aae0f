"""A producer that submits many jobs and does not give up, run beside a fleet: `python -m ... COUNT TARGETS`.

Each job has an idempotency key: it cannot know whether a submit that failed was committed, so it submits again.
"""

import sys

from sqlalchemy.exc import OperationalError
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from nms_workers.app import create_app
from nms_workers.jobs.desk import Desk
from nms_workers.jobs.submit import submit
from nms_workers.jobs.wish import Wish
from nms_workers.runtime import runtime
from nms_workers.tasks import desk_of


@retry(retry=retry_if_exception_type(OperationalError), wait=wait_fixed(0.5), stop=stop_after_delay(180), reraise=True)
def _submit(desk: Desk, number: int, targets: int) -> None:
    arguments = {"effect": f"effect {number}"}
    submit(desk, Wish("probe", "apply", f"it{number % targets}", arguments, "chaos", idempotency_key=f"key {number}"))


def main(count: int, targets: int) -> None:
    """Submit."""
    desk = desk_of(create_app(runtime().settings))
    for number in range(count):
        _submit(desk, number, targets)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
