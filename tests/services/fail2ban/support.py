"""How the tests of this service read, act and wait."""

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from nms_workers.records import Entity, Event, Record, Sample
from nms_workers.service import Change
from nms_workers.services.fail2ban.client import Fail2banClient
from nms_workers.services.fail2ban.service import Fail2ban
from tests.servers import Fail2banServer


def read(client: Fail2banClient, poll: str) -> list[Record]:
    """Every record of one run of a poll."""
    return list(Fail2ban.polls()[poll].run(client))


def act(client: Fail2banClient, name: str, **arguments: object) -> Change:
    """One run of an action, its arguments validated as the fleet does."""
    action = Fail2ban.actions()[name]
    return action.run(client, **action.validate(arguments))


def value(records: Iterable[Record], metric: str, **labels: str) -> float:
    """The value of one series; a KeyError when it is not there."""
    found = {r.series.labels: r.value for r in records if isinstance(r, Sample) and r.metric == metric}
    return found[tuple(sorted(labels.items()))]


def events(records: Iterable[Record], kind: str) -> list[Event]:
    """The events of one kind."""
    return [r for r in records if isinstance(r, Event) and r.kind == kind]


def ended(records: Iterable[Record]) -> list[Event]:
    """The ends of bans."""
    return [event for event in events(records, "ban") if event.state == "resolved"]


def entities(records: Iterable[Record], kind: str) -> dict[str, dict[str, Any]]:
    """Key to attributes of the entities of one kind."""
    return {r.key: r.attributes for r in records if isinstance(r, Entity) and r.kind == kind}


def done(server: Fail2banServer) -> list[str]:
    """What the jails did, line by line: `nms ban 192.0.2.1`."""
    return server.action_log.read_text().splitlines() if server.action_log.exists() else []


def fail_to_log_in(server: Fail2banServer, address: str, times: int = 2) -> None:
    """Write failures to the log that the jail `nms` reads."""
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
    with server.jail_log.open("a") as log:
        log.writelines(f"{now} app: login failed from {address}\n" for _ in range(times))


def await_true(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """What the condition returns when it first is true."""
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.05)
    return result
