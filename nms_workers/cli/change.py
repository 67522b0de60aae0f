"""Actions and their jobs."""

import getpass
import os
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nms_workers.cli.output import as_json, table
from nms_workers.errors import ConfigError, NmsError
from nms_workers.service import seconds

if TYPE_CHECKING:
    from nms_workers.jobs.desk import Desk
    from nms_workers.jobs.job import Job
    from nms_workers.jobs.wish import Wish
    from nms_workers.service import Client

COLUMNS = ("id", "state", "service", "action", "target", "requested_by", "created_at", "attempts", "message")

JobId = Annotated[uuid.UUID, typer.Argument(metavar="ID")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Reason = Annotated[str, typer.Option(help="Why; kept with the job.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for the end.")]
Timeout = Annotated[float, typer.Option(help="Seconds to wait.")]


def _duration(text: str) -> float:
    try:
        return seconds(text)
    except ConfigError as exc:
        raise typer.BadParameter(str(exc)) from None


def _option(help_text: str) -> object:
    return typer.Option(parser=_duration, metavar="DURATION", help=help_text)


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(act)
    app.command()(plan)
    jobs = typer.Typer(
        help="Look at jobs, cancel them, undo what they did, have them done again.", no_args_is_help=True
    )
    jobs.command("list")(list_jobs)
    for command in (show, cancel, undo, retry):
        jobs.command()(command)
    app.add_typer(jobs, name="jobs")


def act(
    service: Annotated[str, typer.Argument(help="The kind of system, as `nms-workers services` lists it.")],
    action: Annotated[str, typer.Argument(help="One of its actions.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="The action's arguments.")
    ] = None,
    target: Annotated[str, typer.Option("--target", "-t", help="Needed when the service has several.")] = "",
    reason: Reason = "",
    key: Annotated[str, typer.Option(help="Idempotency key: the same key is the same job.")] = "",
    expires: Annotated[float | None, _option("Begun within this time, or not at all.")] = None,
    after: Annotated[float | None, _option("Not now, but so long from now.")] = None,
    every: Annotated[float | None, _option("Again and again at this interval, until it is cancelled.")] = None,
    undo_after: Annotated[float | None, _option("Undo it so long after it was done.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    wait: Wait = False,
    timeout: Timeout = 60.0,
    json: Json = False,
) -> None:
    """Run an action as a durable job.

    Example: nms-workers act redis flushdb --target cache confirm=cache --wait
    """
    from nms_workers.jobs.submit import submit
    from nms_workers.jobs.wish import Wish, action_of

    action_of(service, action)
    wish = Wish(
        service=service,
        action=action,
        target=target or _only_target(service),
        arguments=_arguments(arguments or []),
        requested_by=_who(),
        reason=reason,
        idempotency_key=key or None,
        expires=expires,
        after=after,
        every=every,
        undo_after=undo_after,
    )
    desk = _desk()
    if dry_run:
        _preview(desk, wish, json=json)
        return
    _follow(desk, submit(desk, wish), wait=wait, timeout=timeout, json=json)


def plan(
    file: Annotated[Path, typer.Argument(metavar="FILE.toml", help="The plan: its name and its steps.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what each step would do.")] = False,
    wait: Wait = False,
    timeout: Timeout = 300.0,
    json: Json = False,
) -> None:
    """Run several actions in order. When one fails, those that were done are undone, the last one first.

    Example: nms-workers plan isolate.toml --wait
    """
    from nms_workers.jobs.job import of_plan
    from nms_workers.jobs.plan import Plan, submit_plan

    wanted, desk = Plan.load(file), _desk()
    if dry_run:
        for wish in wanted.wishes(_who()):
            _preview(desk, wish, json=json)
        return
    jobs = submit_plan(desk, wanted, _who())
    ends = time.monotonic() + timeout
    while wait and not all(job.done for job in jobs) and time.monotonic() < ends:
        time.sleep(0.1)
        jobs = list(of_plan(desk.engine, jobs[0].plan or jobs[0].id))
    _list(jobs, json=json)
    if any(job.done and not job.good for job in jobs) or (wait and not all(job.done for job in jobs)):
        raise typer.Exit(1)


def list_jobs(
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    state: Annotated[str, typer.Option(help="Only those in this state.")] = "",
    json: Json = False,
) -> None:
    """List the newest jobs."""
    from nms_workers.jobs.job import newest
    from nms_workers.runtime import runtime
    from nms_workers.store.schema import JOB_STATES

    if state and state not in JOB_STATES:
        raise NmsError(f"{state!r} is no state of a job", hint="there are " + ", ".join(JOB_STATES))
    _list(newest(runtime().engine, limit, state=state or None), json=json)


def show(job_id: JobId, json: Json = False) -> None:
    """Show one job and all that happened to it."""
    from nms_workers.jobs.audit import history
    from nms_workers.jobs.job import caused_by, get
    from nms_workers.runtime import runtime

    engine = runtime().engine
    job, events = get(engine, job_id), [event.as_json() for event in history(engine, job_id)]
    followed = caused_by(engine, job_id)
    if json:
        as_json(job.as_json() | {"events": events, "follow_ups": [one.as_json() for one in followed]})
        return
    _print(job, json=False)
    table(("ts", "event", "who", "why"), events)
    if followed:
        table(COLUMNS, map(_row, followed))


def cancel(job_id: JobId, reason: Reason = "", json: Json = False) -> None:
    """Take a job out of the queue; of a recurring one, all that were to come."""
    from nms_workers.jobs.people import cancel as call_off

    _print(call_off(_desk(), job_id, _who(), reason), json=json)


def undo(job_id: JobId, reason: Reason = "", wait: Wait = False, timeout: Timeout = 60.0, json: Json = False) -> None:
    """Take back what a job did, by the action that its own declares as its undo."""
    from nms_workers.jobs.people import undo as take_back

    desk = _desk()
    _follow(desk, take_back(desk, job_id, _who(), reason), wait=wait, timeout=timeout, json=json)


def retry(job_id: JobId, reason: Reason = "", wait: Wait = False, timeout: Timeout = 60.0, json: Json = False) -> None:
    """Have a job that did not succeed done again, as a new job."""
    from nms_workers.jobs.people import again

    desk = _desk()
    _follow(desk, again(desk, job_id, _who(), reason), wait=wait, timeout=timeout, json=json)


def _desk() -> "Desk":
    from nms_workers.app import create_app
    from nms_workers.runtime import runtime
    from nms_workers.tasks import desk_of

    return desk_of(create_app(runtime().settings))


def _who() -> str:
    return os.environ.get("SUDO_USER") or getpass.getuser()


def _follow(desk: "Desk", job: "Job", *, wait: bool, timeout: float, json: bool) -> None:
    from nms_workers.jobs.audit import history
    from nms_workers.jobs.job import get

    ends = time.monotonic() + timeout
    while wait and not job.done and time.monotonic() < ends:
        time.sleep(0.1)
        job = get(desk.engine, job.id)
    _print(job, json=json)
    if job.done and not job.good:
        raise typer.Exit(1)
    if wait and not job.done:
        last = history(desk.engine, job.id)[-1]
        typer.echo(f"still {job.state} after {timeout:g} s; last: {last.event} {last.why}".rstrip(), err=True)
        raise typer.Exit(1)


def _preview(desk: "Desk", wish: "Wish", *, json: bool) -> None:
    from nms_workers.jobs.preview import preview
    from nms_workers.runtime import runtime

    def client() -> "Client":
        here = runtime()
        found = next(t for t in here.inventory.all().values() if (t.service, t.name) == (wish.service, wish.target))
        return here.clients.get(found)

    seen = preview(desk, wish, client)
    if json:
        as_json(seen.as_json())
    elif seen.refused:
        typer.echo(f"it would be refused: {seen.refused}")
    elif seen.would:
        typer.echo(f"{'it would change: ' if seen.would.changed else 'nothing to do: '}{seen.would.message}")
        for one, why in seen.then:
            said = " ".join(f"{key}={value}" for key, value in one.arguments.items())
            typer.echo(f"then: {one.service} {one.action} on {one.target} {said}" + (f": {why}" if why else ""))
    else:
        said = " ".join(f"{key}={value}" for key, value in seen.arguments.items())
        typer.echo(f"it would run: {wish.service} {wish.action} on {wish.target} {said}".rstrip())
    if seen.refused:
        raise typer.Exit(1)


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


def _list(jobs: "Sequence[Job]", *, json: bool) -> None:
    if json:
        as_json([job.as_json() for job in jobs])
    else:
        table(COLUMNS, map(_row, jobs))


def _row(job: "Job") -> dict[str, object]:
    message = job.error or (job.result or {}).get("message", "")
    return job.as_json() | {"message": message, "created_at": f"{job.created_at:%Y-%m-%d %H:%M:%S}"}


def _print(job: "Job", *, json: bool) -> None:
    if json:
        as_json(job.as_json())
        return
    rows = [{"field": key, "value": value} for key, value in job.as_json().items() if value not in (None, "", {})]
    table(("field", "value"), rows)
