"""Dashboards: saving one, deleting one, and putting back what was there. Each looks first, and looks again after."""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

from nms_workers.errors import Refused
from nms_workers.services.grafana.client import GrafanaClient
from nms_workers.services.grafana.model import Dashboard, Saved
from nms_workers.services.grafana.refusals import Conflict, Forbidden, NotThere, Overtaken
from nms_workers.services.grafana.target import FolderUid, Model, Uid

_TRIES = 3  # somebody else may save between our look and our save
_SERVERS_OWN = ("id", "uid", "version")  # of a model: Grafana counts and names for itself


class Grant(BaseModel):
    """A permission of a dashboard's own: of a role, or a team or user by its number; 1 view, 2 edit, 4 administer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    permission: NonNegativeInt
    role: Annotated[str, Field(pattern=r"^[A-Za-z]{0,20}$")] = ""
    team: NonNegativeInt = 0
    user: NonNegativeInt = 0

    @property
    def body(self) -> dict[str, Any]:
        """As Grafana takes it."""
        whole = {"permission": self.permission, "role": self.role, "teamId": self.team, "userId": self.user}
        return {name: value for name, value in whole.items() if value}


class Kept(BaseModel):
    """What an action found before it changed a dashboard.

    Args:
        model: the whole of it, None when it was not there.
        version: which it was.
        grants: permissions of its own, read when it is deleted; None: nobody read them, or we may not.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    uid: Uid
    folder: FolderUid = ""
    version: int = 0
    model: Model | None = None
    grants: frozenset[Grant] | None = None


def uid_for(title: str, folder: str) -> str:
    """The uid of a dashboard nobody named one for: the same for the same title and folder, so that twice is as once."""
    return "nms-" + blake2b(f"{folder}\x00{title}".encode(), digest_size=10).hexdigest()


def look(client: GrafanaClient, uid: str) -> Dashboard | None:
    """The dashboard of this uid, if there is one."""
    try:
        return client.get_dashboard(uid)
    except NotThere:
        return None


def kept(uid: str, found: Dashboard | None) -> Kept:
    """What has to be known to put it back."""
    if found is None:
        return Kept(uid=uid)
    return Kept(uid=uid, folder=found.meta.folder_uid, version=found.meta.version, model=plain(found.dashboard))


def plain(model: Mapping[str, Any]) -> dict[str, Any]:
    """A model without what Grafana counts for itself."""
    return {name: value for name, value in model.items() if name not in _SERVERS_OWN}


def save(  # noqa: PLR0913 - they are named
    client: GrafanaClient, uid: str, model: Mapping[str, Any], *, folder: str | None, message: str, overwrite: bool
) -> tuple[Kept, Dashboard, bool]:
    """What was there, what is there now, and whether it was saved now.

    It is saved over the version that we looked at, never blindly. When somebody else has saved meanwhile (412), we look
    again if we may overwrite, so that what we say was there before is true.

    Args:
        folder: the uid of its folder, empty for none; None leaves it where it is.

    Raises:
        Conflict: another one is there and `overwrite` is False, or others save all the time.
        Refused: it comes from a file, or Grafana does not take it.
    """

    def once() -> tuple[Kept, Dashboard, bool]:
        found = look(client, uid)
        place = folder if folder is not None else found.meta.folder_uid if found else ""
        if found is not None and _is(found, wanted, place):
            return kept(uid, found), found, False
        if found is not None:
            _may_change(uid, found, overwrite)
        version = found.meta.version if found else 0
        body = {"dashboard": wanted | {"uid": uid, "version": version}, "folderUid": place, "message": message}
        saved = client.send("POST", "/api/dashboards/db", body | {"overwrite": False}).json(Saved)
        now = look(client, uid)
        if now is None or now.meta.version < saved.version or now.meta.folder_uid != place:
            raise Refused(f"Grafana saved the dashboard {uid} and does not show it", hint="look at the log of Grafana")
        return kept(uid, found), now, True

    wanted = plain(model)
    tries = stop_after_attempt(_TRIES if overwrite else 1)
    return Retrying(retry=retry_if_exception_type(Overtaken), stop=tries, reraise=True)(once)


def delete(client: GrafanaClient, uid: str) -> tuple[Kept, Dashboard | None]:
    """Delete it, if it is there; what there was."""
    found = look(client, uid)
    if found is None:
        return Kept(uid=uid), None
    _may_change(uid, found, True)
    before = kept(uid, found).model_copy(update={"grants": grants(client, uid)})
    client.send("DELETE", f"/api/dashboards/uid/{quote(uid, safe='')}")
    if look(client, uid) is not None:
        raise Refused(f"Grafana deleted the dashboard {uid} and still shows it", hint="look at the log of Grafana")
    return before, found


def restore(client: GrafanaClient, before: Kept, model: Mapping[str, Any]) -> tuple[Kept, Dashboard, bool]:
    """Put a dashboard back, with the permissions of its own if they were kept; returns as `save` does.

    Raises:
        Refused: as `save` does; or it is back, and its permissions are not.
    """
    was, now, saved = save(
        client, before.uid, model, folder=before.folder, message="put back by nms-workers", overwrite=True
    )
    if before.grants is None or before.grants == grants(client, before.uid):
        return was, now, saved
    items = [grant.body for grant in before.grants]
    client.send("POST", f"/api/dashboards/uid/{quote(before.uid, safe='')}/permissions", {"items": items})
    if before.grants != grants(client, before.uid):
        hint = "set them in Grafana: until then others may see it"
        raise Refused(f"the dashboard {before.uid} is back, and its permissions are not", hint=hint)
    return was, now, True


def grants(client: GrafanaClient, uid: str) -> frozenset[Grant] | None:
    """The permissions of a dashboard's own; None: we may not read them."""
    try:
        found = client.get_permissions(uid)
    except Forbidden:
        return None
    own = (one for one in found if not one.inherited)
    return frozenset(Grant(permission=o.permission, role=o.role, team=o.team_id, user=o.user_id) for o in own)


def about(found: Dashboard | None, uid: str) -> dict[str, Any]:
    """What is told of a dashboard after a change."""
    if found is None:
        return {"uid": uid, "exists": False}
    meta = found.meta
    where = {"folder": meta.folder_uid, "url": meta.url, "version": meta.version}
    return {"uid": uid, "exists": True, "title": found.title, **where}


def _is(found: Dashboard, wanted: Mapping[str, Any], folder: str) -> bool:
    """Whether it is so already. Grafana may add fields that nobody asked for."""
    model = found.dashboard
    same = all(name in model and model[name] == value for name, value in wanted.items())
    return same and found.meta.folder_uid == folder


def _may_change(uid: str, found: Dashboard, overwrite: bool) -> None:
    if found.meta.provisioned:
        place = found.meta.provisioned_external_id
        hint = f"change the file {place}" if place else "change the file it comes from"
        raise Refused(f"the dashboard {uid} ({found.title}) is provisioned", hint=f"{hint}, or allowUiUpdates there")
    if not overwrite:
        said = f"another dashboard has the uid {uid}: {found.title!r}, version {found.meta.version}"
        raise Conflict(said, hint="overwrite=true replaces it; undo puts it back")
