"""What is known: services, targets, one poll by hand, samples and runs of the history."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
import typer

from nms_workers.cli.output import as_json, table
from nms_workers.errors import ConfigError, NmsError, Outcome, TargetError
from nms_workers.records import Record, Sample, SampleBlock
from nms_workers.service import Client, Poll, Service, seconds, services
from nms_workers.service import service as service_of
from nms_workers.settings import Settings, config_path
from nms_workers.transport.deadline import deadline

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
TargetName = Annotated[str, typer.Option("--target", "-t", help="Only this target.")]
Since = Annotated[str, typer.Option(help="How far back: 30s, 10m, 2h, 1d.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("services")(list_services)
    app.command("poll")(poll_now)
    app.command("samples")(list_samples)
    app.command("runs")(list_runs)
    app.command("events")(list_events)
    app.command("entities")(list_entities)


def list_services(json: Json = False) -> None:
    """List the kinds of system with their polls, actions and metrics."""
    if json:
        as_json(
            [
                {
                    "kind": kind,
                    "summary": one.summary(),
                    "polls": [{"name": p.name, "every": p.every, "summary": p.summary} for p in one.polls().values()],
                    "actions": [_action(one, name) for name in one.actions()],
                    "metrics": [vars(m) for m in one.metrics().values()],
                }
                for kind, one in services().items()
            ]
        )
        return
    rows = (
        {
            "service": kind,
            "polls": ", ".join(f"{p.name} ({p.every:g} s)" for p in one.polls().values()),
            "actions": ", ".join(one.actions()),
            "metrics": len(one.metrics()),
        }
        for kind, one in services().items()
    )
    table(("service", "polls", "actions", "metrics"), rows)


def _action(one: type[Service], name: str) -> dict[str, Any]:
    declared = one.actions()[name]
    return {
        "name": name,
        "summary": declared.summary,
        "undo": declared.undo,
        "runs_at": declared.runs_at,
        "confirm": declared.confirm,
        "arguments": declared.arguments.model_json_schema(),
    }


def list_targets(json: Json = False) -> None:
    """List the targets with their state and when each poll last went well."""
    from nms_workers.runtime import runtime
    from nms_workers.store.query import targets

    rows = targets(runtime().engine)
    if json:
        as_json(rows)
    else:
        table(("service", "name", "state", "source", "worker", "last_ok", "outcomes"), rows)


def poll_now(
    kind: Annotated[str, typer.Argument(metavar="SERVICE", help="The kind of system.")],
    poll: Annotated[str, typer.Argument(metavar="[POLL]", help="One of its polls; default: all.")] = "",
    target: TargetName = "",
    json: Json = False,
) -> None:
    """Poll here and now, without queue and without storing; prints the records. Exit 1 unless every outcome is ok.

    Example: nms-workers poll redis server --target cache
    """
    of = service_of(kind)
    if poll and poll not in of.polls():
        raise ConfigError(f"{kind} has no poll {poll!r}", hint="it has: " + ", ".join(of.polls()))
    wanted = [of.polls()[poll]] if poll else list(of.polls().values())
    runs: list[dict[str, Any]] = []
    for name, client in _clients(of, target):
        runs.extend(_run_once(name, client, one) for one in wanted)
        client.close()
    if json:
        as_json(runs)
    else:
        for run in runs:
            title = f"{kind}/{run['target']} {run['poll']}: {run['outcome']} {run['detail']}"
            table(("record", "what", "value"), run["records"], title=title)
            typer.echo("")
    if any(run["outcome"] is not Outcome.OK for run in runs):
        raise typer.Exit(1)


def _clients(of: type[Service], name: str) -> Iterator[tuple[str, Client]]:
    found = [t for t in Settings.load(config_path()).targets if t.service == of.kind and name in ("", t.name)]
    if not found:
        raise NmsError(
            f"no {of.kind} target {name!r} is in the settings" if name else f"no {of.kind} target is in the settings"
        )
    for target in found:
        yield target.name, of.client(target.validated())


def _run_once(target: str, client: Client, poll: Poll) -> dict[str, Any]:
    records: list[dict[str, Any]] = []
    outcome, detail = Outcome.OK, ""
    try:
        with deadline(poll.deadline):
            for item in poll.run({target: client} if poll.shard > 1 else client):
                record = item[1] if poll.shard > 1 else item
                if isinstance(record, NmsError):
                    raise record
                records.extend(_rows(record))
    except TargetError as exc:
        outcome, detail = (Outcome.PARTIAL if records else exc.outcome), str(exc)
    return {"target": target, "poll": poll.name, "outcome": outcome, "detail": detail, "records": records}


def _rows(record: Record) -> Iterator[dict[str, Any]]:
    if isinstance(record, Sample):
        yield {"record": "sample", "what": str(record.series), "value": record.value}
    elif isinstance(record, SampleBlock):
        for series, value in zip(record.layout.members, record.values.tolist(), strict=True):
            yield {"record": "sample", "what": str(series), "value": value}
    else:
        body = msgspec.to_builtins(record)
        kind = type(record).__name__.lower()
        yield {"record": kind, "what": f"{body.pop('kind', '')} {body.pop('key', '')}".strip(), "value": body}


def list_samples(
    metric: Annotated[str, typer.Argument(help="The metric's name.")] = "",
    target: TargetName = "",
    service: Annotated[str, typer.Option("--service", "-s", help="Only targets of this service.")] = "",
    since: Since = "10m",
    rate: Annotated[bool, typer.Option("--rate", help="Per second, counter resets handled.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 200,
    json: Json = False,
) -> None:
    """Read samples of the history.

    Example: nms-workers samples postgresql_wal_bytes_total --since 1h --rate
    """
    from nms_workers.runtime import runtime
    from nms_workers.store.query import samples

    rows = samples(
        runtime().engine,
        metric=metric or None,
        target=target or None,
        service=service or None,
        since=_ago(since),
        rate=rate,
        witnesses={kind: one.witnesses for kind, one in services().items() if one.witnesses},
        limit=limit,
    )
    if json:
        as_json(rows)
    else:
        table(("ts", "service", "target", "metric", "labels", "value"), rows)


def list_runs(since: Since = "10m", target: TargetName = "", json: Json = False) -> None:
    """Show how polls went: outcomes and P50, P95, P99 of their milliseconds, from the ledger."""
    from nms_workers.runtime import runtime
    from nms_workers.store.query import percentiles

    rows = percentiles(runtime().engine, since=_ago(since), target=target or None)
    if json:
        as_json(rows)
    else:
        table(("service", "target", "poll", "runs", "p50_ms", "p95_ms", "p99_ms", "outcomes"), rows)


def list_events(
    kind: Annotated[str, typer.Argument(help="The kind of event; default: all.")] = "",
    since: Since = "1d",
    target: TargetName = "",
    firing: Annotated[bool, typer.Option("--firing", help="Only what lasts now.")] = False,
    json: Json = False,
) -> None:
    """Show what happened, or what lasts now."""
    from nms_workers.runtime import runtime
    from nms_workers.store import query

    engine, name = runtime().engine, target or None
    if firing:
        rows = [row for row in query.firing(engine, target=name) if kind in ("", row["kind"])]
    else:
        rows = query.events(engine, kind=kind or None, since=_ago(since), target=name)
    if json:
        as_json(rows)
    else:
        columns = ("since" if firing else "ts", "service", "target", "severity", "kind", "message")
        table(columns if firing else (*columns, "state"), rows)


def list_entities(
    kind: Annotated[str, typer.Argument(help="The kind of entity; default: all.")] = "",
    target: TargetName = "",
    gone: Annotated[bool, typer.Option("--gone", help="Those that are no more.")] = False,
    json: Json = False,
) -> None:
    """Show what exists at the targets: databases, replicas, ..."""
    from nms_workers.runtime import runtime
    from nms_workers.store.query import entities

    rows = entities(runtime().engine, kind=kind or None, target=target or None, gone=gone)
    if json:
        as_json(rows)
    else:
        table(("service", "target", "kind", "key", "first_seen", "last_seen", "attributes"), rows)


def _ago(text: str) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds(text))
