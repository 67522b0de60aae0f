"""Restarts of containers that the health of the fleet asks for: jobs like all others."""

from sqlalchemy import Connection

from nms_workers.fleet.health import Asked, Restart
from nms_workers.jobs.job import new_id
from nms_workers.jobs.row import about_to_be_sent
from nms_workers.jobs.submit import write
from nms_workers.jobs.wish import Wish
from nms_workers.settings import Settings

REQUESTER = "health"
_EXPIRES = 600.0  # seconds: an old restart is worse than none


def restart(connection: Connection, settings: Settings, wanted: Restart) -> Asked:
    """Write the job of a restart in the caller's transaction.

    Raises:
        ConfigError, NmsError, Refused: there is no such engine, or the docker service does not take the container.
    """
    reason = f"{wanted.target} is unhealthy, attempt {wanted.attempt}: {wanted.why}"[:2000]
    wish = Wish(
        service="docker",
        action="restart",
        target=wanted.engine,
        arguments={"container": wanted.container},
        requested_by=REQUESTER,
        reason=reason.replace("\x00", ""),
        expires=_EXPIRES,
    )
    evidence = {"target": wanted.target, "attempt": wanted.attempt, "check": wanted.why}
    job = write(connection, settings, wish, new_id(), evidence=evidence, **about_to_be_sent())
    return Asked(job.id, job.error or "it was refused" if job.state == "refused" else "")
