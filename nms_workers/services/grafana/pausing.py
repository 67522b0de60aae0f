"""Pausing alert rules, and letting them run again, without changing who keeps them."""

from typing import Any
from urllib.parse import quote

from nms_workers.errors import Refused
from nms_workers.services.grafana.client import GrafanaClient

# Who keeps a rule ("provenance"): nobody in particular, so that people change it in Grafana; or programs, over the API.
_PEOPLE, _PROGRAMS = "", "api"
_READ_ONLY = ("provenance", "updated")


def set_paused(client: GrafanaClient, uid: str, paused: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """How the rule was and how it is now.

    The rest of the rule is sent back as it was read. A rule that people keep is sent with `X-Disable-Provenance`:
    without it Grafana would take it out of their hands. One that programs keep is sent without, or it would be refused.

    Source: grafana.com/docs, HTTP API, alerting provisioning.

    Raises:
        NotThere: no such rule.
        Refused: it comes from a file or another tool, or this Grafana is too old to pause rules.
    """
    rule = client.get_alert_rule(uid)
    before = _state(rule)
    keeper = before["provenance"]
    if before["paused"] is paused:
        return before, before
    if keeper not in (_PEOPLE, _PROGRAMS):
        hint = "set isPaused in the file" if keeper == "file" else "pause it with the tool that keeps it"
        raise Refused(f"the rule {uid} ({rule.get('title')}) is kept by {keeper!r}", hint=hint)
    if before["paused"] is None:
        raise Refused("this Grafana cannot pause rules over its API", hint="pause it by hand, or renew Grafana")
    path = f"/api/v1/provisioning/alert-rules/{quote(uid, safe='')}"
    headers = {"X-Disable-Provenance": "true"} if keeper == _PEOPLE else {}
    wanted = {name: value for name, value in rule.items() if name not in _READ_ONLY} | {"isPaused": paused}
    client.send("PUT", path, wanted, headers=headers)
    after = _state(client.get_alert_rule(uid))
    if after["paused"] is not paused or after["provenance"] != keeper:
        raise Refused(f"Grafana took the rule {uid} and shows it as {after}", hint="look whether others change it too")
    return before, after


def _state(rule: dict[str, Any]) -> dict[str, Any]:
    told = {"title": rule.get("title"), "folder": rule.get("folderUID"), "group": rule.get("ruleGroup")}
    return told | {"paused": rule.get("isPaused"), "provenance": rule.get("provenance") or ""}
