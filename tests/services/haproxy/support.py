"""How the tests of this service read, act and wait."""

from collections.abc import Iterable
from typing import Any

from nms_workers.change import Change
from nms_workers.records import Event, Record
from nms_workers.services.haproxy.client import HaproxyClient
from nms_workers.services.haproxy.service import Haproxy


def read(client: HaproxyClient, poll: str = "stats") -> list[Record]:
    """Every record of one run of a poll."""
    return list(Haproxy.polls()[poll].run(client))


def act(client: HaproxyClient, name: str, /, **arguments: Any) -> Change:
    """Run an action as a job does: arguments validated first."""
    action = Haproxy.actions()[name]
    return action.run(client, **action.validate(arguments))


def undo(client: HaproxyClient, name: str, change: Change, /, **arguments: Any) -> Change:
    """Take an action back as a job does: by its declared undo, with those arguments it takes and `before`."""
    back = Haproxy.actions()[Haproxy.actions()[name].undo or ""]
    takes = back.arguments.model_fields
    given = {key: value for key, value in arguments.items() if key in takes}
    if "before" in takes:
        given["before"] = change.before
    return back.run(client, **back.validate(given))


def events(records: Iterable[Record]) -> dict[str, Event]:
    """The events by their fingerprint."""
    return {r.fingerprint: r for r in records if isinstance(r, Event)}


def state(client: HaproxyClient, server: str, backend: str = "be_app") -> str:
    """The state of a server in the statistics, empty when it is not there."""
    return next((row.state for row in client.get_servers(backend) if row.name == server), "")
