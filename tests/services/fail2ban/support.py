"""How the tests of this service read, act and wait."""

from collections.abc import Iterable
from datetime import UTC, datetime

from nms_workers.change import Change
from nms_workers.records import Event, Record
from nms_workers.services.fail2ban.client import Fail2banClient
from nms_workers.services.fail2ban.service import Fail2ban
from tests.servers import Fail2banServer
from tests.services.records import events


def read(client: Fail2banClient, poll: str) -> list[Record]:
    """Every record of one run of a poll."""
    return list(Fail2ban.polls()[poll].run(client))


def act(client: Fail2banClient, name: str, **arguments: object) -> Change:
    """One run of an action, its arguments validated as the fleet does."""
    action = Fail2ban.actions()[name]
    return action.run(client, **action.validate(arguments))


def ended(records: Iterable[Record]) -> list[Event]:
    """The ends of bans."""
    return [event for event in events(records, "ban") if event.state == "resolved"]


def done(server: Fail2banServer) -> list[str]:
    """What the jails did, line by line: `nms ban 192.0.2.1`."""
    return server.action_log.read_text().splitlines() if server.action_log.exists() else []


def fail_to_log_in(server: Fail2banServer, address: str, times: int = 2) -> None:
    """Write failures to the log that the jail `nms` reads."""
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
    with server.jail_log.open("a") as log:
        log.writelines(f"{now} app: login failed from {address}\n" for _ in range(times))
