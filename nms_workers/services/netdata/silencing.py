"""Alarms of an agent that shall not be told to anybody, and that shall again.

The agent can only add to what it holds back, and let go of all of it.
Source: https://learn.netdata.cloud/docs/alerts-&-notifications/the-health-management-api.
"""

from typing import Any

import msgspec

from nms_workers.change import Change
from nms_workers.errors import Refused
from nms_workers.services.netdata.client import NetdataClient
from nms_workers.services.netdata.model import Silencer, Silencers

_NOTHING = Silencers(all=False, type="None")
_OTHERS_HINT = "reset_alarms lets everything go that is held back; then silence anew"


def silence(client: NetdataClient, silencer: Silencer) -> Change:
    """Have nobody notified of the alarms that a silencer names; of any where it names none.

    Raises:
        Refused: alarms are disabled there, which silencing would turn into silenced.
    """
    before, everything = client.get_silencers(), silencer == Silencer()
    done = before.all if everything else (before.all or silencer in before.silencers)
    what = "every alarm" if everything else f"alarms with {_words(silencer)}"
    if done and before.type == "SILENCE":
        return _change(False, f"nobody is notified of {what} already", before, before)
    if before.type == "DISABLE":
        raise Refused("alarms are disabled there: silencing would let them be evaluated again", hint=_OTHERS_HINT)
    client.silence("SILENCE ALL" if everything else "SILENCE", silencer)
    after = client.get_silencers()
    if after.type != "SILENCE" or not (after.all if everything else silencer in after.silencers):
        raise Refused(f"the agent took the command and does not hold back {what}", hint="look at its error.log")
    return _change(True, f"nobody is notified of {what}", before, after)


def reset(client: NetdataClient) -> Change:
    """Evaluate all alarms and notify of all.

    Raises:
        Refused: something is held back still.
    """
    before = client.get_silencers()
    if before == _NOTHING:
        return _change(False, "no alarm is held back", before, before)
    client.silence("RESET")
    return _verified(client, _NOTHING, before, "no alarm is held back any more")


def restore(client: NetdataClient, then: dict[str, Any]) -> Change:
    """Hold back what was held back then, and nothing else.

    Args:
        then: the `before` or `after` of a change.

    Raises:
        Refused: it is none, or the agent did not come to it.
    """
    try:
        wanted = msgspec.convert(then, Silencers)
    except msgspec.ValidationError as exc:
        raise Refused(f"this is not what an agent held back: {exc}") from None
    before = client.get_silencers()
    if before == wanted:
        return _change(False, "what is held back is as it was", before, before)
    client.silence("RESET")
    command = "" if wanted.type == "None" else wanted.type
    for silencer in reversed(wanted.silencers):  # each goes before those that are there
        client.silence(command, silencer)
    if wanted.all:
        client.silence(f"{wanted.type} ALL")
    elif command and not wanted.silencers:
        client.silence(command)
    return _verified(client, wanted, before, "what is held back is as it was")


def _verified(client: NetdataClient, wanted: Silencers, before: Silencers, message: str) -> Change:
    after = client.get_silencers()
    if after != wanted:
        raise Refused("the agent took the commands and holds back something else", hint="look at its error.log")
    return _change(True, message, before, after)


def _change(changed: bool, message: str, before: Silencers, after: Silencers) -> Change:
    return Change(changed, message, msgspec.to_builtins(before), msgspec.to_builtins(after))


def _words(silencer: Silencer) -> str:
    return ", ".join(f"{name} {pattern}" for name, pattern in msgspec.to_builtins(silencer).items())
