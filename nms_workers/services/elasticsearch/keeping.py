"""How long data is kept: by the lifecycle of a data stream, or by a policy of index lifecycle management.

A data stream that both could manage is managed by the policy where it prefers it, which is the default
(https://www.elastic.co/docs/manage-data/lifecycle). A policy may serve many.
"""

from typing import Any

from nms_workers.change import Change
from nms_workers.errors import Refused
from nms_workers.services.elasticsearch import model
from nms_workers.services.elasticsearch.client import ElasticsearchClient

_ILM = "Index Lifecycle Management"


def set_retention(client: ElasticsearchClient, name: str, retention: str, shared: bool) -> Change:
    """Keep the data of a data stream or an index for so long.

    Raises:
        Refused: there is no such thing, nothing manages the index, or its policy serves others too and `shared` is not
            set.
    """
    stream = client.get_data_stream(name)
    if stream is None:
        return _by_policy(client, name, _policy_of_index(client, name), {name}, retention, shared)
    if stream.system:
        raise Refused(f"data stream {name} belongs to the system", hint="its own settings say how long it keeps data")
    if (policy := _policy_of(stream)) is not None:
        own = {name, *(one.index_name for one in stream.indices)}
        return _by_policy(client, name, policy, own, retention, shared)
    return _by_lifecycle(client, stream, retention)


def restore(client: ElasticsearchClient, name: str, before: dict[str, Any]) -> Change:
    """Keep data as long as before `set_retention`.

    Raises:
        Refused: `before` is not what `set_retention` gave, or something else manages the data now.
    """
    match before:
        case {"managed_by": "lifecycle", "lifecycle": dict() | None as lifecycle}:
            stream = client.get_data_stream(name)
            if stream is None:
                return Change(False, f"there is no data stream {name}", {}, {})
            now = _body(stream.lifecycle)
            if now == lifecycle:
                return Change(False, f"{name} keeps data as then already", before, before)
            client.put_lifecycle(name, lifecycle)
            return Change(True, f"{name} keeps data as before", {"managed_by": "lifecycle", "lifecycle": now}, before)
        case {"managed_by": "policy", "policy": str() as policy, "delete": dict() | None as phase}:
            found = client.get_policy(policy).policy
            now = found.phases.get("delete")
            if now == phase:
                return Change(False, f"policy {policy} deletes as then already", before, before)
            phases = {one: told for one, told in found.phases.items() if one != "delete"}
            client.put_policy(policy, phases | ({} if phase is None else {"delete": phase}), found.meta)
            state = {"managed_by": "policy", "policy": policy}
            return Change(True, f"policy {policy} deletes as before", state | {"delete": now}, before)
        case _:
            raise Refused("this is not what set_retention found before", hint="undo the job of set_retention itself")


def _by_lifecycle(client: ElasticsearchClient, stream: model.DataStream, retention: str) -> Change:
    had = _body(stream.lifecycle)
    before = {"managed_by": "lifecycle", "lifecycle": had}
    if stream.lifecycle and stream.lifecycle.enabled and stream.lifecycle.data_retention == retention:
        return Change(False, f"{stream.name} keeps data for {retention} already", before, before)
    client.put_lifecycle(stream.name, (had or {}) | {"data_retention": retention, "enabled": True})
    now = client.get_data_stream(stream.name)
    if now is None or now.lifecycle is None or now.lifecycle.data_retention != retention:
        raise Refused(f"the cluster took the retention of {stream.name}, and does not have it", hint="look at its log")
    after: dict[str, Any] = {"managed_by": "lifecycle", "lifecycle": _body(now.lifecycle)}
    message = f"{stream.name} keeps data for {retention}"
    if (bounded := now.lifecycle.effective_retention) not in (None, retention):
        message += f", and the cluster's own bound makes it {bounded}"
        after["effective_retention"] = bounded
    return Change(True, message, before, after)


def _by_policy(  # noqa: PLR0913, PLR0917 - one call each
    client: ElasticsearchClient, name: str, policy: str, own: set[str], retention: str, shared: bool
) -> Change:
    found = client.get_policy(policy)
    phase = found.policy.phases.get("delete")
    state = {"managed_by": "policy", "policy": policy}
    before = state | {"delete": phase}
    if phase is not None and phase.get("min_age") == retention:
        return Change(False, f"policy {policy} of {name} deletes after {retention} already", before, before)
    others = sorted({*found.in_use_by.indices, *found.in_use_by.data_streams} - own)
    if others and not shared:
        hint = "say shared=true to change it for all, or give it a policy of its own"
        raise Refused(f"policy {policy} of {name} serves {len(others)} more: {', '.join(others[:5])}", hint=hint)
    changed = (phase or {"actions": {"delete": {}}}) | {"min_age": retention}
    client.put_policy(policy, found.policy.phases | {"delete": changed}, found.policy.meta)
    now = client.get_policy(policy).policy.phases.get("delete")
    if now is None or now.get("min_age") != retention:
        raise Refused(f"the cluster took policy {policy}, and does not have it", hint="does another write it too?")
    return Change(True, f"policy {policy} of {name} deletes after {retention}", before, state | {"delete": now})


def _policy_of(stream: model.DataStream) -> str | None:
    """The policy that manages what the data stream will write next; None: its lifecycle does, or nothing."""
    if stream.ilm_policy is None:
        return None
    if stream.managed_by is not None:  # 8.11 and later say it
        return stream.ilm_policy if stream.managed_by == _ILM else None
    return stream.ilm_policy if stream.prefer_ilm or stream.lifecycle is None else None


def _policy_of_index(client: ElasticsearchClient, name: str) -> str:
    index = client.get_index(name)
    if index is None:
        raise Refused(f"there is no data stream and no index {name}", hint="get_indices lists what there is")
    if index.data_stream is not None:
        raise Refused(f"index {name} belongs to data stream {index.data_stream}", hint="name the data stream")
    policy = index.settings.get("index.lifecycle.name")
    if not policy:
        hint = "give it a policy (index.lifecycle.name), or make it a data stream"
        raise Refused(f"nothing manages how long index {name} is kept", hint=hint)
    return str(policy)


def _body(lifecycle: model.Lifecycle | None) -> dict[str, Any] | None:
    """A lifecycle as it is put."""
    if lifecycle is None:
        return None
    told = {name: getattr(lifecycle, name) for name in ("enabled", "data_retention", "downsampling")}
    told["downsampling_method"] = lifecycle.downsampling_method
    return {name: value for name, value in told.items() if value is not None}
