"""The settings of one Grafana server, and what may be asked of its objects."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
from pydantic import AfterValidator, AwareDatetime, Field, PositiveFloat, PositiveInt

from nms_workers.transport.http_settings import HttpSettings
from nms_workers.transport.secret import Secret

MAX_MODEL = 4 * 1024 * 1024  # bytes of JSON of one dashboard

_SECRET_NAME = re.compile(r"(password|passphrase|secret|token|(api|private|access|secret)_?key)\Z", re.IGNORECASE)


def _bounded(model: dict[str, Any]) -> dict[str, Any]:
    if (size := len(msgspec.json.encode(model))) > MAX_MODEL:
        raise ValueError(f"{size} bytes of JSON are more than {MAX_MODEL}")
    return model


def _public(options: dict[str, Any]) -> dict[str, Any]:
    if secret := sorted(name for name in _names(options) if _SECRET_NAME.search(name)):
        raise ValueError(f"{', '.join(secret)} would be readable by everybody: use secure_json_data, with references")
    return options


def _names(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
        for inner in value.values():
            yield from _names(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _names(inner)


def _public_url(url: str) -> str:
    if "@" in urlsplit(url).netloc:
        raise ValueError("a URL must not carry credentials: use user, basic_auth_user and secure_json_data")
    return url


def now() -> datetime:
    """This moment, in the milliseconds that Grafana keeps."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


# Grafana's own rule: pkg/util/shortid_generator.go. Safe in a path.
Uid = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,40}$")]
FolderUid = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{0,40}$")]  # empty: at the top, in no folder
Text = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f]{1,500}$")]
Title = Annotated[
    str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f\s]([^\x00-\x1f\x7f-\x9f]{0,188}[^\x00-\x1f\x7f-\x9f\s])?$")
]
SourceName = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f\s.][^\x00-\x1f\x7f-\x9f]{0,188}$")]
Key = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Lines = Annotated[str, Field(min_length=1, max_length=10_000, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]+$")]
Tags = Annotated[tuple[Text, ...], Field(max_length=50)]
When = Annotated[AwareDatetime, Field(ge=datetime(1971, 1, 1, tzinfo=UTC), le=datetime(2200, 1, 1, tzinfo=UTC))]
Model = Annotated[dict[str, Any], AfterValidator(_bounded)]
Options = Annotated[dict[str, Any], Field(max_length=200), AfterValidator(_bounded), AfterValidator(_public)]
Secrets = Annotated[dict[Key, Secret], Field(max_length=50)]
SourceUrl = Annotated[str, Field(pattern=r"^[^\x00-\x20\x7f-\x9f]{0,2000}$"), AfterValidator(_public_url)]


class GrafanaTarget(HttpSettings):
    """One Grafana server, 9 to 13, as one of its organisations sees it. Under a sub-path, the path belongs to `url`.

    Args:
        username, password: of a user. Only server administrators may read the statistics and the licence.
        token: of a service account, which belongs to one organisation.
        org_id: the organisation of a user who is in several; None: the one the user chose last.
        max_dashboards: how many dashboards, and folders, one poll reads at most.
        max_datasources: how many data sources one poll asks for their health at most.
        max_users: how many users of the organisation one poll reads at most.
        max_rules: how many alert rules one poll reads at most.
        max_alerts: how many firing alerts one poll tells at most.
        checks_at_once: how many data sources are asked for their health at the same time.
        check_timeout: seconds a data source may take to tell its health.
        active_days: a user is active who was seen in so many days.
    """

    org_id: PositiveInt | None = None
    max_dashboards: PositiveInt = 5000
    max_datasources: PositiveInt = 500
    max_users: PositiveInt = 5000
    max_rules: PositiveInt = 2000
    max_alerts: PositiveInt = 1000
    checks_at_once: Annotated[int, Field(ge=1, le=32)] = 8
    check_timeout: PositiveFloat = 10.0
    active_days: PositiveFloat = 30.0
