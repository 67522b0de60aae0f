"""From what the history says to records."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

from nms_workers.records import Entity, Event, Record, Sample
from nms_workers.services.flows.client import SETTLED, FlowsClient
from nms_workers.services.flows.detection import Anomaly, anomalies
from nms_workers.services.flows.history import Row

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
NOW_MINUTES = 5  # that the rate of now is taken of, where it is compared with the past
SILENT, ANOMALY = "exporter_silent", "volume_anomaly"

Conversation = tuple[str, str, str]  # exporter, source, destination


def of_exporters(client: FlowsClient) -> Iterator[Record]:
    """What each exporter is, does and did in the last whole minute; an event while it is silent."""
    now = datetime.now(UTC)
    until = _minute(now - SETTLED)
    everyone = client.exporters()
    kept = everyone[: client.target.max_exporters]
    sums = client.exporter_sums(until - MINUTE, until)
    yield Sample("flows_exporters", len(everyone))
    yield Sample("flows_exporters_left_out", len(everyone) - len(kept))
    for row in kept:
        name = {"exporter": row["exporter"]}
        total = sums.get(row["exporter"], {})
        for measure, metric in (("octets", "bytes"), ("packets", "packets"), ("flows", "flows")):
            yield Sample(f"flows_exporter_{metric}_per_second", float(total.get(measure, 0)) / 60, name)
        for measure in ("datagrams", "flows", "lost"):
            yield Sample(f"flows_exporter_{measure}_total", row[measure], name)
        yield Sample("flows_exporter_templates", row["templates"], name)
        yield Sample("flows_exporter_last_seen_timestamp_seconds", row["last_seen"].timestamp(), name)
        yield Entity("exporter", row["exporter"], _about(row))
        if now - row["last_seen"] > timedelta(seconds=client.target.silent_after):
            yield Event(
                SILENT,
                f"{row['exporter']} has sent no flows since {row['last_seen']:%Y-%m-%d %H:%M:%S} UTC",
                "warning",
                fingerprint=f"{SILENT} {row['exporter']}",
                state="firing",
                attributes=_about(row),
            )


def of_interfaces(client: FlowsClient) -> Iterator[Record]:
    """What went through each interface in the last whole minute, by the names and speeds that SNMP tells.

    Of a device that SNMP does not read, the names are those of its options records.
    """
    until = _minute(datetime.now(UTC) - SETTLED)
    rows = client.interface_sums(until - MINUTE, until, client.target.max_interfaces)
    targets = sorted({row["target_id"] for row in rows} - {None})
    names = client.interface_names(targets) if targets else {}
    speeds = client.interface_speeds(targets) if targets else {}
    yield Sample("flows_interfaces_left_out", rows[0]["all_of_them"] - len(rows) if rows else 0)
    seen: set[tuple[str, str]] = set()
    for row in rows:
        called = names.get((row["target_id"], row["interface"])) or row["told"] or ""
        if not called or (row["exporter"], called) in seen:  # two that are called the same are two nevertheless
            called = f"ifIndex {row['interface']}"
        seen.add((row["exporter"], called))
        labels = {"exporter": row["exporter"], "interface": called}
        speed = speeds.get((row["target_id"], called), 0.0)
        for way in ("in", "out"):
            octets = float(row[f"{way}_octets"] or 0) / 60
            yield Sample(f"flows_interface_{way}_bytes_per_second", octets, labels)
            yield Sample(f"flows_interface_{way}_packets_per_second", float(row[f"{way}_packets"] or 0) / 60, labels)
            if speed > 0:
                yield Sample(f"flows_interface_{way}_usage_ratio", 8 * octets / speed, labels)


def of_anomalies(client: FlowsClient) -> Iterator[Event]:
    """Exporters and conversations that have far more than in the hours before."""
    target, now = client.target, datetime.now(UTC)
    until = _minute(now - SETTLED)
    since = until - NOW_MINUTES * MINUTE
    this_hour = now.replace(minute=0, second=0, microsecond=0)
    oldest = this_hour - target.anomaly_hours * HOUR
    past = client.past_of_exporters(oldest, this_hour)
    hours: dict[str, dict[datetime, float]] = {}
    for row in past:
        hours.setdefault(row["exporter"], {})[row["ts"]] = float(row["octets"]) / 3600
    thresholds = {
        "least": target.anomaly_least,
        "factor": target.anomaly_factor,
        "hours": max(1, target.anomaly_hours // 4),
    }
    rates = {one: float(row["octets"]) / (60 * NOW_MINUTES) for one, row in client.exporter_sums(since, until).items()}
    known = {exporter: list(by_hour.values()) for exporter, by_hour in hours.items()}
    for anomaly in anomalies(rates, known, **thresholds):  # type: ignore[arg-type]
        yield _event(f"exporter {anomaly.key}", {"exporter": anomaly.key}, anomaly)
    talking = client.largest_conversations(since, until, target.anomaly_conversations)
    now_by_pair = {_pair(row): float(row["octets"]) / (60 * NOW_MINUTES) for row in talking}
    before = _by_pair(client.past_of_conversations(talking, oldest, this_hour)) if talking else {}
    # the hours in which its exporter was known are those of a conversation: it had nothing in those that lack it
    history = {pair: [before.get(pair, {}).get(hour, 0.0) for hour in hours.get(pair[0], ())] for pair in now_by_pair}
    for found in anomalies(now_by_pair, history, **thresholds):  # type: ignore[arg-type]
        exporter, source, destination = found.key
        about = {"exporter": exporter, "source": source, "destination": destination}
        yield _event(f"{source} to {destination} at {exporter}", about, found)


def _event(what: str, about: dict[str, str], found: Anomaly[str] | Anomaly[Conversation]) -> Event:
    figures = {"bytes_per_second": found.rate, "usual_bytes_per_second": found.usual}
    if found.score < float("inf"):  # JSON has no word for it
        figures["score"] = found.score
    return Event(
        ANOMALY,
        f"{what}: {found.rate / 1e6:.3g} MB/s, usual are {found.usual / 1e6:.3g} MB/s",
        "warning",
        fingerprint=f"{ANOMALY} {' '.join(about.values())}",
        state="firing",
        attributes={**about, **figures},
    )


def _about(row: Row) -> dict[str, object]:
    return {
        "target": f"{row['service']}/{row['name']}" if row["name"] else None,
        "versions": list(row["versions"]),
        "first_seen": row["first_seen"].isoformat(),
        "last_seen": row["last_seen"].isoformat(),
        "flows": row["flows"],
        "lost": row["lost"],
        "templates": row["templates"],
    }


def _pair(row: Row) -> Conversation:
    return row["exporter"], row["source"], row["destination"]


def _by_pair(rows: list[Row]) -> Mapping[Conversation, dict[datetime, float]]:
    found: dict[Conversation, dict[datetime, float]] = {}
    for row in rows:
        found.setdefault(_pair(row), {})[row["ts"]] = float(row["octets"]) / 3600
    return found


def _minute(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)
