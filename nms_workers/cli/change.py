"""Actions and their jobs."""

import getpass
import os
import time
import uuid
from typing import TYPE_CHECKING, Annotated

import typer

from nms_workers.cli.output import as_json, table
from nms_workers.errors import NmsError

if TYPE_CHECKING:
    from nms_workers.jobs.job import Job

COLUMNS = ("id", "state", "service", "action", "target", "requested_by", "created_at", "attempts", "message")


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(act)
    jobs = typer.Typer(help="Look at jobs.", no_args_is_help=True)
    jobs.command("list")(list_jobs)
    jobs.command("show")(show)
    app.add_typer(jobs, name="jobs")


def act(
    service: Annotated[str, typer.Argument(help="The kind of system, as `nms-workers services` lists it.")],
    action: Annotated[str, typer.Argument(help="One of its actions.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="The action's arguments.")
    ] = None,
    target: Annotated[str, typer.Option("--target", "-t", help="Needed when the service has several.")] = "",
    reason: Annotated[str, typer.Option(help="Why; kept with the job.")] = "",
    key: Annotated[str, typer.Option(help="Idempotency key: the same key is the same job.")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the job's end.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait.")] = 60.0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run an action as a durable job.

    Example: nms-workers act redis flushdb --target cache confirm=cache --wait
    """
    from nms_workers.app import create_app
    from nms_workers.jobs.job import get
    from nms_workers.jobs.submit import Wish, action_of, submit
    from nms_workers.publish import publish_job
    from nms_workers.runtime import runtime

    action_of(service, action)
    here = runtime()
    wish = Wish(
        service=service,
        action=action,
        target=target or _only_target(service),
        arguments=_arguments(arguments or []),
        requested_by=os.environ.get("SUDO_USER") or getpass.getuser(),
        reason=reason,
        idempotency_key=key or None,
    )
    celery = create_app(here.settings)
    job = submit(here.engine, lambda job: publish_job(celery, job), wish)
    ends = time.monotonic() + timeout
    while wait and not job.done and time.monotonic() < ends:
        time.sleep(0.1)
        job = get(here.engine, job.id)
    _print(job, json=json)
    if job.done and job.state not in ("succeeded", "unchanged"):
        raise typer.Exit(1)
    if wait and not job.done:
        typer.echo(f"still {job.state} after {timeout:g} s: is a worker of class `actions` running?", err=True)
        raise typer.Exit(1)


def list_jobs(
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the newest jobs."""
    from nms_workers.jobs.job import newest
    from nms_workers.runtime import runtime

    jobs = newest(runtime().engine, limit)
    if json:
        as_json([job.as_json() for job in jobs])
    else:
        table(COLUMNS, map(_row, jobs))


def show(
    job_id: Annotated[uuid.UUID, typer.Argument(metavar="ID")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show one job."""
    from nms_workers.jobs.job import get
    from nms_workers.runtime import runtime

    _print(get(runtime().engine, job_id), json=json)


def _only_target(service: str) -> str:
    from nms_workers.runtime import runtime

    names = [target.name for target in runtime().inventory.all().values() if target.service == service]
    if len(names) != 1:
        found = ", ".join(sorted(names)) or "none"
        raise NmsError(f"which {service} target?", hint=f"say --target; there is {found}")
    return names[0]


def _arguments(pairs: list[str]) -> dict[str, object]:
    found: dict[str, object] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise NmsError(f"{pair!r} is not an argument", hint="write key=value")
        found[key] = value
    return found


def _row(job: "Job") -> dict[str, object]:
    message = job.error or (job.result or {}).get("message", "")
    return job.as_json() | {"message": message, "created_at": f"{job.created_at:%Y-%m-%d %H:%M:%S}"}


def _print(job: "Job", *, json: bool) -> None:
    if json:
        as_json(job.as_json())
        return
    rows = [{"field": key, "value": value} for key, value in job.as_json().items() if value not in (None, "", {})]
    table(("field", "value"), rows)
