"""Suricata: what is polled, and the actions on rules, data sets, host bits, memory caps and the sources of alerts."""

import base64
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import blake2b
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, StringConstraints

from nms_workers.arguments import AddressToCutOff
from nms_workers.change import Change
from nms_workers.errors import Refused
from nms_workers.records import Entity, Event, Record, Sample
from nms_workers.service import Service, action, poll
from nms_workers.services.suricata import block, counters, rules
from nms_workers.services.suricata.client import SuricataClient
from nms_workers.services.suricata.ruleset import PREVIOUS
from nms_workers.services.suricata.target import SuricataTarget

Sid = Annotated[int, Field(ge=1, le=4_294_967_295)]
RulesetName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\.rules$")]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$")]
Bytes = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,15}(kb|mb|gb)?$")]
Content = Annotated[str, StringConstraints(min_length=1, max_length=64 << 20)]
TargetName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:@/-]{0,99}$")]
JailName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.][A-Za-z0-9_.-]{0,63}$")]
FlowId = Annotated[int, Field(ge=1, le=(1 << 63) - 1)]
Within = Annotated[int, Field(ge=1, le=7 * 86_400)]  # seconds
BanSeconds = Annotated[int, Field(ge=1, le=1_000_000_000)]
SetType = Literal["string", "md5", "sha256", "ipv4", "ip"]

_DIGESTS = {"md5": 32, "sha256": 64}  # hexadecimal digits
_UNITS = {"": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30}


class Suricata(Service):
    """Intrusion detection: counters, rules and memory by the command socket, alerts by the event log.

    A worker reads it on its own host: the command socket, the event log and the rule files are local. A target on
    another host names the worker there (`worker`), and its polls and actions go to that one.

    Alerts, anomalies and dropped packets become events with the time and the fingerprint of their record, each exactly
    once: how far the log was read is noted, and what a dead worker had read is read again and recognized.

    Who cannot reach the host's files may read alerts, rules and statistics over HTTP: `nms-workers gateway suricata`
    serves `/eve/alerts`, `/rules`, `/stats`, `/health` and `/openapi.json` beside the engine, to those with its token.
    """

    kind = "suricata"
    Target = SuricataTarget
    client = SuricataClient

    @poll(every="15s", enumerates=("engine",))
    def counters(self, client: SuricataClient) -> Iterator[Record]:
        """Every counter of the engine, by thread where it is one of a thread; its version and modes."""
        dump = client.ask("dump-counters", dict[str, Any])
        yield from counters.TABLE.samples(dump)
        unknown = counters.unknown(dump)
        yield Sample("suricata_unknown_counters", len(unknown))
        about = {
            "version": client.ask("version", str),
            "running_mode": client.ask("running-mode", str),
            "capture_mode": client.ask("capture-mode", str),
        }
        yield Sample("suricata_info", 1, about)
        yield Entity("engine", str(client.target.socket), about | {"unknown_counters": unknown[:100]})

    @poll(every="30s", enumerates=("interface",))
    def interfaces(self, client: SuricataClient) -> Iterator[Record]:
        """Packets captured, lost and bypassed at each interface."""
        for name in client.ask("iface-list", dict[str, Any]).get("ifaces", ()):
            stat = client.ask("iface-stat", dict[str, int], iface=name)
            for field, metric in _INTERFACE.items():
                if field in stat:
                    yield Sample(f"suricata_interface_{metric}_total", stat[field], {"interface": name})
            yield Entity("interface", name)

    @poll(every="60s")
    def memcaps(self, client: SuricataClient) -> Iterator[Record]:
        """The memory each part of the engine may use."""
        for one in client.ask("memcap-list", list[dict[str, str]]):
            if (limit := _bytes(one["value"])) is not None:
                yield Sample("suricata_memcap_bytes", limit, {"part": one["name"]})

    @poll(every="60s", enumerates=("failed_rule",))
    def rules(self, client: SuricataClient) -> Iterator[Record]:
        """How many rules are in force and when they were loaded; those that failed fire as events."""
        for one in client.ask("ruleset-stats", list[dict[str, int]]):
            tenant = {"tenant": str(one.get("id", 0))}
            for state in ("loaded", "failed", "skipped"):
                if f"rules_{state}" in one:
                    yield Sample(f"suricata_rules_{state}", one[f"rules_{state}"], tenant)
        for loaded in client.ask("ruleset-reload-time", list[dict[str, Any]]):
            at = datetime.fromisoformat(loaded["last_reload"]).astimezone(UTC)
            yield Sample("suricata_rules_reload_time_seconds", at.timestamp(), {"tenant": str(loaded.get("id", 0))})
        for failed in client.ask("ruleset-failed-rules", list[dict[str, Any]])[:1000]:
            yield _failed_rule(failed)

    @poll(every="10s")
    def events(self, client: SuricataClient) -> Iterator[Record]:
        """The event log: alerts, anomalies and drops as events; every record counted."""
        yield from client.read_log()

    @action(runs_at="edge", undo="restore_rule", deadline="300s")
    def update_rule(self, client: SuricataClient, sid: Sid, enabled: bool) -> Change:
        """Switch a rule on or off in its file, and load the rules."""
        found = [rule for rule in client.get_rules() if (rule.sid, rule.gid) == (sid, 1)]
        if not found:
            raise Refused(f"no rule file holds the rule {sid}", hint="see get_rules, and rule-files in suricata.yaml")
        word = "on" if enabled else "off"
        before = {"enabled": any(rule.enabled for rule in found), "files": sorted({rule.file for rule in found})}
        if all(rule.enabled is enabled for rule in found):
            return Change(changed=False, message=f"rule {sid} was switched {word} already", before=before, after=before)
        for file in sorted({rule.file for rule in found if rule.enabled is not enabled}):
            client.ruleset.put_live(Path(file), rules.switched(rules.read(Path(file)), sid, enabled=enabled))
        return Change(True, f"rule {sid} is switched {word}", before, before | {"enabled": enabled})

    @action(runs_at="edge", deadline="300s")
    def restore_rule(self, client: SuricataClient, sid: Sid, before: dict[str, Any]) -> Change:
        """Switch a rule as it was before `update_rule`."""
        return self.update_rule(client, sid, enabled=before.get("enabled") is True)

    @action(runs_at="edge", undo="restore_ruleset", deadline="300s")
    def upload_ruleset(self, client: SuricataClient, content: Content, name: RulesetName) -> Change:
        """Put a rule file live once the engine has tested it; the old one is kept, and put back if loading fails."""
        own = rules.parsed(content, name)
        if not any(rule.enabled for rule in own):
            raise Refused(f"{name} would hold no rule that is switched on", hint="a rule ends with (...; sid:N;)")
        path = client.ruleset.folder / name
        if not client.ruleset.names(path):
            raise Refused(f"Suricata does not load {path}", hint=f"name {name} in rule-files of suricata.yaml")
        old = rules.read(path) if path.exists() else ""
        before, after = _about(old, name), _about(content, name)
        if old == content:
            return Change(changed=False, message=f"{name} was live already", before=before, after=after)
        client.ruleset.put_live(path, content)
        return Change(True, f"{name} is live with {after['enabled']} rules", before, after)

    @action(runs_at="edge", deadline="300s")
    def restore_ruleset(self, client: SuricataClient, name: RulesetName, before: dict[str, Any]) -> Change:
        """Put the rule file of before an `upload_ruleset` live again, if it is the one that was kept."""
        path = client.ruleset.folder / name
        kept = path.with_name(path.name + PREVIOUS)
        was = _about(rules.read(path) if path.exists() else "", name)
        if was["digest"] == before.get("digest"):
            return Change(False, f"{name} was as then already", was, was)
        text = rules.read(kept) if before.get("digest") else ""  # there was none: an empty one has the same effect
        wanted = _about(text, name)
        if wanted["digest"] != before.get("digest"):
            raise Refused(f"{kept} is not the file of then: another upload followed", hint="upload what it held")
        client.ruleset.put_live(path, text)
        return Change(True, f"{name} is as it was, with {wanted['enabled']} rules", was, wanted)

    @action(runs_at="edge", deadline="300s")
    def reload_rules(self, client: SuricataClient) -> Change:
        """Load the rule files anew and wait until that is done."""
        before = _loaded(client)
        client.ruleset.reload()
        after = _loaded(client)
        return Change(True, f"{after['rules_loaded']} rules are loaded, {after['rules_failed']} failed", before, after)

    @action(runs_at="edge", undo="remove_from_dataset")
    def add_to_dataset(self, client: SuricataClient, dataset: Name, type: SetType, value: str) -> Change:
        """Put a value into a data set that rules look at."""
        return _change_dataset(client, "add", dataset, type, value)

    @action(runs_at="edge", undo="add_to_dataset")
    def remove_from_dataset(self, client: SuricataClient, dataset: Name, type: SetType, value: str) -> Change:
        """Take a value out of a data set that rules look at."""
        return _change_dataset(client, "remove", dataset, type, value)

    @action(runs_at="edge", undo="remove_hostbit")
    def add_hostbit(
        self, client: SuricataClient, address: AddressToCutOff, hostbit: Name, expire: PositiveInt
    ) -> Change:
        """Mark a host with a bit that rules look at, for `expire` seconds."""
        if address.num_addresses != 1:
            raise Refused(f"{address} is a network; a bit marks one host")
        host = str(address.network_address)
        before = _hostbits(client, host)
        if before.get(hostbit, 0) >= expire:
            return Change(False, f"{host} had the bit {hostbit} already", {"hostbits": before}, {"hostbits": before})
        client.ask("add-hostbit", ipaddress=host, hostbit=hostbit, expire=expire)
        after = _hostbits(client, host)
        if hostbit not in after:
            raise Refused(f"{host} did not get the bit {hostbit}", hint="do the rules in force name it?")
        return Change(True, f"{host} has the bit {hostbit}", {"hostbits": before}, {"hostbits": after})

    @action(runs_at="edge")
    def remove_hostbit(self, client: SuricataClient, address: str, hostbit: Name) -> Change:
        """Take a bit from a host."""
        host = _address(address)
        before = _hostbits(client, host)
        if hostbit not in before:
            return Change(False, f"{host} did not have the bit {hostbit}", {"hostbits": before}, {"hostbits": before})
        client.ask("remove-hostbit", ipaddress=host, hostbit=hostbit)
        after = _hostbits(client, host)
        return Change(True, f"{host} lost the bit {hostbit}", {"hostbits": before}, {"hostbits": after})

    @action(runs_at="edge", undo="restore_memcap")
    def set_memcap(self, client: SuricataClient, part: Name, memcap: Bytes) -> Change:
        """Set the memory that a part of the engine may use (`flow`, `64mb`), until it is started anew."""
        before = client.ask("memcap-show", dict[str, str], config=part)["value"]
        client.ask("memcap-set", config=part, memcap=memcap)  # what it shows is rounded: only setting is sure
        after = client.ask("memcap-show", dict[str, str], config=part)["value"]
        message = f"{part} may use {after}"
        return Change(before != after, message, {"memcap": before}, {"memcap": after})

    @action(runs_at="edge")
    def restore_memcap(self, client: SuricataClient, part: Name, before: dict[str, Any]) -> Change:
        """Set the memory of a part to what it was before `set_memcap`, rounded as the engine shows it."""
        memcap = str(before.get("memcap", ""))
        if _bytes(memcap) is None:
            raise Refused(
                f"{part} had no limit that can be set: {memcap!r:.40}", hint="restart Suricata to have it back"
            )
        return self.set_memcap(client, part, memcap)

    @action(runs_at="edge")
    def block_alert_source(  # noqa: PLR0913, PLR0917 - the arguments of the job
        self,
        client: SuricataClient,
        fail2ban: TargetName,
        jail: JailName,
        flow_id: FlowId | None = None,
        sid: Sid | None = None,
        source: AddressToCutOff | None = None,
        within: Within = 3600,
        seconds: BanSeconds | None = None,
        dry_run: bool = False,
    ) -> Change:
        """Have the fail2ban target ban where an alert came from; the alert is the evidence in that job's audit.

        The alert is the newest of the last `within` seconds of this flow, or of this rule from this source. `seconds`
        is what `ban_ip` takes. The ban is a job of its own: guards look at it, and it is undone like any other.
        """
        if flow_id is None and (sid is None or source is None):
            raise Refused("it is not said which alert is meant", hint="give flow_id, or sid and source")
        alert = client.find_alert(sid=sid, source=source, flow_id=flow_id, within=within)
        wanted = block.ban(alert, fail2ban, jail, seconds)
        what = f"{jail} of {fail2ban} {'would be' if dry_run else 'is'} asked to ban {wanted.arguments['address']}"
        return Change(True, what, {"alert": wanted.evidence}, {"ban": wanted.arguments}, (wanted,))


_INTERFACE = {"pkts": "packets", "drop": "drops", "bypassed": "bypassed", "invalid-checksums": "invalid_checksums"}


def _failed_rule(failed: dict[str, Any]) -> Event:
    text, file = str(failed.get("rule", "")), str(failed.get("filename", ""))
    name = blake2b(f"{file}\0{text}".encode(errors="replace"), digest_size=16).hexdigest()
    attributes = {
        "rule": text.encode(errors="replace").decode()[:4000],
        "file": file,
        "line": failed.get("line", 0),
        "tenant": failed.get("tenant_id", 0),
    }
    message = f"the rule in line {failed.get('line', '?')} of {file} could not be loaded"
    return Event("failed_rule", message, "warning", fingerprint=name, state="firing", attributes=attributes)


def _loaded(client: SuricataClient) -> dict[str, int]:
    """Rules over all tenants by state."""
    stats = client.ask("ruleset-stats", list[dict[str, int]])
    return {key: sum(one.get(key, 0) for one in stats) for key in ("rules_loaded", "rules_failed", "rules_skipped")}


def _about(text: str, name: str) -> dict[str, Any]:
    found = rules.parsed(text, name)
    digest = blake2b(text.encode(errors="surrogateescape"), digest_size=16).hexdigest() if text else ""
    return {"rules": len(found), "enabled": sum(rule.enabled for rule in found), "digest": digest}


def _change_dataset(
    client: SuricataClient, how: Literal["add", "remove"], dataset: str, kind: SetType, value: str
) -> Change:
    member = {"setname": dataset, "settype": kind, "datavalue": _member(kind, value)}
    before, wanted = _in_dataset(client, member), how == "add"
    if before is wanted:
        message = f"{dataset} {'held' if wanted else 'did not hold'} the value already"
        return Change(False, message, {"member": before}, {"member": before})
    client.ask(f"dataset-{how}", **member)
    after = _in_dataset(client, member)
    if after is not wanted:
        raise Refused(f"{dataset} {'does not hold' if wanted else 'still holds'} the value", hint="see Suricata's log")
    return Change(
        True, f"{dataset} {'holds' if wanted else 'no longer holds'} the value", {"member": before}, {"member": after}
    )


def _in_dataset(client: SuricataClient, member: dict[str, str]) -> bool:
    try:
        client.ask("dataset-lookup", **member)
    except Refused as exc:
        if "item not found" in exc.message:
            return False
        raise Refused(
            f"{exc.message} (data set {member['setname']}, type {member['settype']})",
            hint="a data set is there when suricata.yaml or a rule in force names it",
        ) from None
    return True


def _member(kind: SetType, value: str) -> str:
    """A value as the command socket takes it.

    Raises:
        Refused: it is none of this type.
    """
    if kind == "string":
        if not 0 < len(value) <= 4096:
            raise Refused("a value has 1 to 4096 characters")
        return base64.b64encode(value.encode()).decode()
    if digits := _DIGESTS.get(kind):
        if not re.fullmatch(f"[0-9a-fA-F]{{{digits}}}", value):
            raise Refused(f"a {kind} has {digits} hexadecimal digits")
        return value.lower()
    address = _address(value)
    if kind == "ipv4" and ":" in address:
        raise Refused(f"{address} is no IPv4 address", hint="use a data set of the type ip")
    return address


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise Refused(f"{text!r:.80} is no address") from None


def _hostbits(client: SuricataClient, host: str) -> dict[str, int]:
    """Bits of a host with the seconds they still last."""
    try:
        answer = client.ask("list-hostbit", dict[str, Any], ipaddress=host)
    except Refused as exc:
        if "host not found" in exc.message:  # it has never had one
            return {}
        raise
    return {str(one["name"]): int(one["expire"]) for one in answer.get("hostbits", ())}


def _bytes(text: str) -> int | None:
    """Bytes of `16mb`; None for `unlimited`."""
    match = re.fullmatch(r"([0-9]+)(kb|mb|gb)?", text.strip())
    return int(match[1]) * _UNITS[match[2] or ""] if match else None
