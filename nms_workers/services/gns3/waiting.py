"""Changes that take longer than an answer: they are asked for once, and then looked at until they are there.

A change that takes minutes holds no worker: after a while its job is put back, and looks again later.
"""

import time
from collections.abc import Callable
from typing import TypeVar

from nms_workers.change import about_to_ask, can_be_put_back
from nms_workers.errors import Refused, TargetError, Timeout, Underway
from nms_workers.services.gns3.client import Gns3Client
from nms_workers.transport.deadline import remaining

T = TypeVar("T")

_LONGEST = 3600.0  # seconds a change is waited for where no deadline ends it earlier
_PATIENCE = 15.0  # seconds a job waits before it is put back, and until it looks again
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0  # seconds between two looks
_HINT = "look at the server's log; if it is only slow, raise settle, and run this again: what was done stays done"


def change(client: Gns3Client, request: tuple[str, str, object], look: Callable[[], T | None], what: str) -> T:
    """Send a request, and return what `look` finds when it first finds something.

    The server goes on working when an answer takes longer than we wait for it (a project with many nodes takes
    minutes), so no answer in time is no failure: only the deadline of the job is.

    Args:
        request: method, path, body.
        what: the state waited for, for the message: "PC1 is started".

    Raises:
        Refused: the server said that it did it, and nothing came of it.
        Timeout: the deadline passed.
        Underway: the job has waited for long enough.
    """
    if not about_to_ask(f"{request[0]} {request[1]}: {what}"):
        return wait(look, what)
    try:
        client.send(*request)
    except Timeout:
        return wait(look, what)
    return wait(look, what, client.target.settle, Refused)


def wait(look: Callable[[], T | None], what: str, limit: float = _LONGEST, otherwise: type[TargetError] = Timeout) -> T:
    """Look until there is something, for `limit` seconds; then raise `otherwise`. The job's deadline ends it too.

    Raises:
        Underway: the job has waited for long enough.
    """
    began, pause = time.monotonic(), _SHORTEST_PAUSE
    patience = _PATIENCE if can_be_put_back() else _LONGEST
    while (found := look()) is None:
        waited = time.monotonic() - began
        if waited >= patience and waited < limit:
            raise Underway(f"it is not yet so that {what}", again=_PATIENCE)
        if waited >= limit:
            raise otherwise(f"GNS3 took the command, and {limit:g} s later it is not so that {what}", hint=_HINT)
        time.sleep(remaining(pause))
        pause = min(pause * 1.5, _LONGEST_PAUSE)
    return found
