"""Actions of the probe, asked for in a shell, and the rows of their jobs."""

import json
from typing import Any

from tests.real.fleet import Fleet, until
from tests.real.ledger import Ledger

_COLUMNS = ("state", "attempts", "error", "requested_by", "worker", "arguments")
_FINAL = ("succeeded", "unchanged", "failed", "refused")


def act(fleet: Fleet, action: str, effect: str, *options: str) -> str:
    """The id of the job that `nms-workers act` made, as soon as the fleet knows its target."""

    def submitted() -> str:
        done = fleet.run("act", "probe", action, f"effect={effect}", "--json", *options)
        if done.returncode != 0:
            assert "which probe target?" in done.stderr, done.stderr + done.stdout
            return ""
        return str(json.loads(done.stdout)["id"])

    return until(submitted, f"the job {action} {effect} is submitted")


def row(ledger: Ledger, job_id: str) -> dict[str, Any]:
    """The row of a job."""
    (found,) = ledger.rows(f"SELECT {', '.join(_COLUMNS)} FROM jobs WHERE id = %s", job_id)
    return dict(zip(_COLUMNS, found, strict=True))


def ended(ledger: Ledger, job_id: str, seconds: float = 45.0) -> dict[str, Any]:
    """The row of a job that reached its end."""
    until(lambda: row(ledger, job_id)["state"] in _FINAL, f"job {job_id} ends", seconds)
    return row(ledger, job_id)
