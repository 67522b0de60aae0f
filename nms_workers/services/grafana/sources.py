"""Data sources: what each says of its health, many at once and none for longer than it may take; and making them."""

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

from nms_workers.errors import Refused, Timeout
from nms_workers.services.grafana.client import GrafanaClient
from nms_workers.services.grafana.model import Datasource
from nms_workers.services.grafana.refusals import NotThere, told, words
from nms_workers.transport.deadline import deadline, time_left
from nms_workers.transport.http import Response
from nms_workers.transport.response import check
from nms_workers.transport.secret import Secret

Verdict = Literal["healthy", "unhealthy", "unchecked", "forbidden", "gone"]

_PUBLIC = ("type", "url", "access", "database", "user", "basicAuth", "basicAuthUser", "isDefault")  # what we set

_BY_WORDS: dict[str, Verdict] = {
    "plugin.notRegistered": "unhealthy",
    "plugin not found": "unhealthy",
    "plugin.notImplemented": "unchecked",
    "data source not found": "gone",
}
_BY_STATUS: dict[int, Verdict] = {403: "forbidden", 404: "unchecked", 501: "unchecked"}


class Checked(NamedTuple):
    """What a data source said of its health.

    Args:
        verdict: `unchecked`: its type has no health check. `forbidden`: we may not ask. `gone`: deleted meanwhile.
        words: its own, in one line.
        seconds: it took to say so.
    """

    verdict: Verdict
    words: str
    seconds: float


def checked(client: GrafanaClient, sources: Sequence[Datasource]) -> Iterator[tuple[Datasource, Checked]]:
    """Ask all for their health, `checks_at_once` at a time, in their order.

    Raises:
        Timeout: the time of the whole run is used up; one source that does not answer is unhealthy.
        Unreachable, AuthError, ParseError: it is Grafana that does not answer as it should.
    """
    with ThreadPoolExecutor(client.target.checks_at_once, "grafana-health") as pool:
        asked = [pool.submit(copy_context().run, _check, client, source) for source in sources]
        try:
            for source, answer in zip(sources, asked, strict=True):
                yield source, answer.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _check(client: GrafanaClient, source: Datasource) -> Checked:
    began = time.monotonic()
    try:
        with deadline(client.target.check_timeout):
            verdict, said = judged(client.ask_health(source.uid))
    except Timeout:
        if time_left() <= 0:  # of the whole run
            raise
        verdict, said = "unhealthy", f"no answer in {client.target.check_timeout:g} s"
    return Checked(verdict, said, time.monotonic() - began)


def judged(response: Response) -> tuple[Verdict, str]:
    """What an answer to a health check means. Grafana 9 and 10.0 say in words what later ones say in `messageId`.

    | answer | meaning |
    |---|---|
    | 200 with status OK, 400 with another status | what the plugin says |
    | 501; 404 "Not found"; `plugin.notImplemented` | this type has no health check |
    | 404 "Plugin not found"; `plugin.notRegistered` | its plugin is not installed |
    | 404 of the source itself | it was deleted meanwhile |
    | 403 | we lack `datasources:query` |
    | 500, and 503 with words of Grafana's | the plugin is broken |

    Source: pkg/api/datasources.go, pkg/plugins/errors.go of Grafana.

    Raises:
        Unreachable: 503 from something in front of Grafana.
    """
    said = told(response)
    text = words(said)
    if response.status == 503 and not text:
        check(response, "GET", (), ())
    if response.status not in (200, 400):
        known = _BY_WORDS.get(said.message_id) or _BY_WORDS.get(text.lower()) or _BY_STATUS.get(response.status)
        return known or "unhealthy", text or f"Grafana answered with {response.status}"
    response.json(dict[str, Any])  # a web page is no health
    return ("healthy" if said.status == "OK" else "unhealthy"), text


def create(
    client: GrafanaClient, name: str, uid: str | None, wanted: Mapping[str, Any], secrets: Mapping[str, Secret]
) -> tuple[dict[str, Any], bool]:
    """The data source of this name as it is now, without secrets, and whether it was made now.

    Args:
        wanted: as Grafana names things; None is left to Grafana.
        secrets: of `secureJsonData`; read when they are sent, and only told by name.

    Raises:
        Refused: there is another one of this name or uid.
    """
    asked = {key: value for key, value in wanted.items() if value is not None}
    found = _find(client, name, uid)
    if found is not None:
        if other := sorted(_differences(found, name, uid, asked, secrets)):
            hint = "change it in Grafana, delete it first, or choose another name"
            said = f"the data source {found.get('name')!r} is there, and differs in {', '.join(other)}"
            raise Refused(said, hint=hint)
        return public(found), False
    shown = {key: secret.reveal() for key, secret in secrets.items()}
    body = {"name": name, **({"uid": uid} if uid else {}), **asked, **({"secureJsonData": shown} if shown else {})}
    client.send("POST", "/api/datasources", body, hidden=sorted(filter(None, shown.values()), key=len, reverse=True))
    now = _find(client, name, uid)
    if now is None or (other := _differences(now, name, uid, asked, secrets)):
        raise Refused(f"Grafana took the data source {name!r} and does not show it as asked", hint="look at it there")
    return public(now), True


def delete(client: GrafanaClient, name: str) -> dict[str, Any] | None:
    """Delete it by its name; what it was, without secrets. None: it was not there."""
    found = _find(client, name, None)
    if found is None:
        return None
    if found.get("readOnly"):
        raise Refused(f"the data source {name!r} is read-only", hint="it comes from a file: take it out there")
    client.send("DELETE", f"/api/datasources/uid/{quote(str(found.get('uid')), safe='')}")
    if _find(client, name, None) is not None:
        raise Refused(f"Grafana deleted the data source {name!r} and still shows it", hint="look at the log of Grafana")
    return public(found)


def public(source: Mapping[str, Any]) -> dict[str, Any]:
    """What may be told of a data source; of its secrets only which there are."""
    shown = {key: source.get(key) for key in ("uid", "name", *_PUBLIC)}
    return shown | {"secrets": sorted(source.get("secureJsonFields") or {})}


def _find(client: GrafanaClient, name: str, uid: str | None) -> dict[str, Any] | None:
    """By name, or else by uid: one who has our uid under another name is in our way."""
    try:
        return client.get_datasource(name)
    except NotThere:
        pass
    other = next((one for one in client.get_datasources() if uid is not None and one.uid == uid), None)
    return client.get_datasource(other.name) if other else None


def _differences(
    found: Mapping[str, Any], name: str, uid: str | None, asked: Mapping[str, Any], secrets: Mapping[str, Secret]
) -> list[str]:
    """What is not as asked. What is secret cannot be read: it counts as so when it is set."""
    kept = found.get("jsonData") or {}
    options = asked.get("jsonData") or {}
    other = [f"jsonData.{key}" for key, value in options.items() if kept.get(key) != value]
    other += [key for key in _PUBLIC if key in asked and found.get(key) != asked[key]]
    other += [f"secureJsonData.{key}" for key in secrets if not (found.get("secureJsonFields") or {}).get(key)]
    other += ["name"] if found.get("name") != name else []
    return other + (["uid"] if uid and found.get("uid") != uid else [])
