"""Making and deleting data sources. Their secrets are read when they are sent, and never told."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from nms_workers.errors import Refused
from nms_workers.services.grafana.client import GrafanaClient
from nms_workers.services.grafana.refusals import NotThere
from nms_workers.transport.secret import Secret

_PUBLIC = ("type", "url", "access", "database", "user", "basicAuth", "basicAuthUser", "isDefault")  # what we set


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
    with suppress(NotThere):
        return client.get_datasource(name)
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
