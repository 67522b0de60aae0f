"""Which unhealthy containers are restarted now, and why the others are not. Decides only; nothing is done here.

A container is restarted when its target stayed unhealthy, those it depends on are well, its last restart is long enough
ago, and the fleet has not just restarted others. After so many attempts it is given up until it is healthy again.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from nms_workers.settings import Repair


@dataclass(frozen=True)
class Patient:
    """A target as its repair sees it.

    Args:
        name: `service/name`.
        unhealthy: whether it is, and failed often enough since its last restart.
        engine, container: where its container is; empty: it is none, or none that we know.
        allowed: its container may be restarted.
        depends_on: names of targets, with or without their service.
        restarts: when it was restarted, the newest last.
        given_up: it was restarted often enough.
        busy: a restart is under way.
    """

    name: str
    unhealthy: bool
    engine: str = ""
    container: str = ""
    allowed: bool = False
    depends_on: tuple[str, ...] = ()
    restarts: tuple[datetime, ...] = ()
    given_up: bool = False
    busy: bool = False


@dataclass(frozen=True)
class Decision:
    """What is done about an unhealthy one: one of these, or nothing.

    Args:
        attempt: its container is restarted, for the n-th time; 0: it is not.
        given_up: it is given up, now.
        held: why it is not restarted now.
    """

    attempt: int = 0
    given_up: bool = False
    held: str = ""


@dataclass
class Ward:
    """All targets of the fleet.

    Args:
        patients: those that are looked at, by `service/name`.
        gone: names of targets that were and are not any more.
    """

    patients: Mapping[str, Patient]
    gone: Collection[str] = ()
    _by_short: dict[str, list[str]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        for name in (*self.patients, *self.gone):
            self._by_short.setdefault(name.partition("/")[2], []).append(name)

    def decide(self, rules: Repair, now: datetime, sick: Collection[str]) -> dict[str, Decision]:
        """What is done about each unhealthy one that is a container.

        Args:
            sick: all that are unhealthy, those among them that were restarted a moment ago.
        """
        minute_ago = now - timedelta(minutes=1)
        just_now = sum(moment > minute_ago for one in self.patients.values() for moment in one.restarts)
        left = rules.per_minute - just_now
        decided: dict[str, Decision] = {}
        for name, one in sorted(self.patients.items()):
            if not one.unhealthy or not one.container or one.busy or one.given_up:
                continue
            waits_for = self._waits_for(name, sick)
            decision = _alone(one, rules, now) if not waits_for else Decision(held=f"it waits for {waits_for}")
            if decision.attempt and left <= 0:
                decision = Decision(held=f"{rules.per_minute} containers were restarted in the last minute")
            left -= bool(decision.attempt)
            decided[name] = decision
        return decided

    def unknown(self, one: Patient) -> list[str]:
        """Names it depends on that no target has."""
        return [name for name in one.depends_on if not self._named(name)]

    def _waits_for(self, name: str, sick: Collection[str]) -> str:
        """The first of those it depends on, near or far, that is not well. In a circle nobody waits for the other."""
        for other in self._reached(name):
            if (other in sick or other in self.gone) and name not in self._reached(other):
                return f"{other}, which is {'gone' if other in self.gone else 'unhealthy'}"
        return ""

    def _reached(self, name: str) -> list[str]:
        """All that it depends on, near or far, the nearest first."""
        found: dict[str, None] = {}
        waiting = [name]
        while waiting:
            one = self.patients.get(waiting.pop(0))
            for wanted in one.depends_on if one else ():
                new = [other for other in self._named(wanted) if other not in found]
                found.update(dict.fromkeys(new))
                waiting += new
        return list(found)

    def _named(self, name: str) -> Iterable[str]:
        return [name] if name in self.patients or name in self.gone else self._by_short.get(name, ())


def _alone(one: Patient, rules: Repair, now: datetime) -> Decision:
    """As if there were no others."""
    if not one.allowed:
        return Decision(held="its container has no label nms.restart=true, and no rule allows it")
    recent = since(one.restarts, rules, now)
    if len(recent) >= rules.attempts:
        return Decision(given_up=True)
    if recent:
        again = recent[-1] + timedelta(seconds=min(rules.backoff * 2.0 ** (len(recent) - 1), rules.within))
        if now < again:
            return Decision(held=f"attempt {len(recent) + 1} of {rules.attempts} comes at {again:%H:%M:%S} UTC")
    return Decision(attempt=len(recent) + 1)


def since(restarts: Iterable[datetime], rules: Repair, now: datetime) -> tuple[datetime, ...]:
    """Those that count."""
    return tuple(moment for moment in restarts if moment > now - timedelta(seconds=rules.within))
