"""Which of several instances of one target to ask: smooth weighted round robin over those that answer.

The algorithm is nginx's (`ngx_http_upstream_round_robin.c`): each pick adds every weight to its instance's score,
takes the highest and subtracts the sum of the weights from it: 5:1:1 gives `a a b a c a a`, not five in a row.
"""

import math
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass


@dataclass
class _Instance:
    weight: int
    score: int = 0
    failures: int = 0
    next_probe: float = -math.inf  # only looked at while `down`
    down: bool = False


class Balancer:
    """Thread-safe. An instance that failed `failures` times in a row is left out, and tried every `probe` seconds.

    Args:
        weights: instance to its share, a positive whole number.
        failures: in a row, until an instance is left out.
        probe: seconds between two tries of an instance that is left out.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        weights: Mapping[str, int],
        *,
        failures: int = 3,
        probe: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._instances = {name: _Instance(weight) for name, weight in weights.items()}
        self._failures, self._probe, self._clock = failures, probe, clock
        self._lock = threading.Lock()

    def choose(self, tried: Collection[str] = ()) -> str:
        """The instance to ask now, one not in `tried` if any other is up. With all down, the one due soonest."""
        with self._lock:
            now = self._clock()
            usable = [name for name, one in self._instances.items() if not one.down or one.next_probe <= now]
            fresh = [name for name in usable if name not in tried] or usable
            name = self._pick(fresh) if fresh else min(self._instances, key=lambda n: self._instances[n].next_probe)
            self._instances[name].next_probe = now + self._probe  # a probe under way keeps others away
            return name

    def _pick(self, names: list[str]) -> str:
        candidates = {name: self._instances[name] for name in names}
        for one in candidates.values():
            one.score += one.weight
        best = max(candidates, key=lambda name: candidates[name].score)
        candidates[best].score -= sum(one.weight for one in candidates.values())
        return best

    def succeeded(self, name: str) -> bool:
        """It answered. True if that brings it back."""
        with self._lock:
            one = self._instances[name]
            back, one.down, one.failures = one.down, False, 0
            return back

    def failed(self, name: str) -> bool:
        """It did not answer. True if that puts it out."""
        with self._lock:
            one = self._instances[name]
            one.failures += 1
            out = not one.down and one.failures >= self._failures
            if out:
                one.down, one.next_probe = True, self._clock() + self._probe
            return out

    def down(self) -> set[str]:
        """Those left out now."""
        with self._lock:
            return {name for name, one in self._instances.items() if one.down}
