"""Leaving a target alone that does not answer: one breaker a target, shared by the whole fleet through Redis.

Closed, it counts failures in a row; at the policy's threshold it opens, and nothing is asked for `reset` seconds. Then
it is half open: exactly one caller in the fleet is let through, the others go on waiting. That one's success closes it,
its failure opens it anew, and if it dies without a word the next one is let through when its time is over.

Each step is one Lua script on one hash, timed by the clock of Redis, so that it is atomic and no two machines need the
same time. While Redis is away every process goes by what it sees itself.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import redis
from cachetools import LRUCache

from nms_workers.errors import Skipped, TargetError, Timeout, Unreachable
from nms_workers.service import BreakerPolicy
from nms_workers.transport import metrics
from nms_workers.transport.deadline import time_left

log = logging.getLogger(__name__)

_MEMORY = 86_400.0  # seconds without a word until a breaker is forgotten
_REDIS_PAUSE = 5.0  # seconds Redis is not asked after it failed, so that each call does not wait for it anew
_LOCAL_MAX = 65_536  # breakers one process remembers while Redis is away

# The hash: `failures` in a row; `wake`, when the next try may go (no such field: closed); `trial`, one is under way.
# Times are milliseconds of Redis's clock.
_NOW = "local t = redis.call('TIME') local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"

_ALLOW = (  # ARGV: milliseconds a trial may take. Answer: milliseconds to wait, 0 to go.
    _NOW
    + """
local wake = tonumber(redis.call('HGET', KEYS[1], 'wake'))
if not wake then return 0 end
if now < wake then return wake - now end
redis.call('HSET', KEYS[1], 'wake', string.format('%d', now + ARGV[1]), 'trial', 1)
return 0
"""
)
_FAILURE = (  # ARGV: threshold, milliseconds to stay open, milliseconds to remember. Answer: 1 if that opened it.
    _NOW
    + """
local failures = redis.call('HINCRBY', KEYS[1], 'failures', 1)
redis.call('PEXPIRE', KEYS[1], ARGV[3])
local wake, trial = unpack(redis.call('HMGET', KEYS[1], 'wake', 'trial'))
if trial or (not wake and failures >= tonumber(ARGV[1])) then
  redis.call('HSET', KEYS[1], 'wake', string.format('%d', now + ARGV[2]))
  redis.call('HDEL', KEYS[1], 'trial')
  return 1
end
return 0
"""
)
_SUCCESS = "local wake = redis.call('HGET', KEYS[1], 'wake') redis.call('DEL', KEYS[1]) return wake and 1 or 0"
_STATE = (  # Answer: failures, milliseconds until `wake` or -1 when closed, whether a trial is under way.
    _NOW
    + """
local failures, wake, trial = unpack(redis.call('HMGET', KEYS[1], 'failures', 'wake', 'trial'))
return {tonumber(failures or 0), wake and math.max(0, wake - now) or -1, trial and 1 or 0}
"""
)


@dataclass(frozen=True)
class BreakerState:
    """How a breaker stands: failures in a row, and seconds until the next try may go."""

    name: Literal["closed", "open", "half-open"]
    failures: int
    wait: float


@dataclass
class _Local:
    """The same steps for one process. Times are seconds of the monotonic clock."""

    failures: int = 0
    wake: float | None = None
    trial: bool = False

    def allow(self, trial_seconds: float) -> float:
        now = time.monotonic()
        if self.wake is None:
            return 0.0
        if now < self.wake:
            return self.wake - now
        self.wake, self.trial = now + trial_seconds, True
        return 0.0

    def failure(self, policy: BreakerPolicy) -> bool:
        self.failures += 1
        if self.trial or (self.wake is None and self.failures >= policy.failures):
            self.wake, self.trial = time.monotonic() + policy.reset, False
            return True
        return False


class Breakers:
    """The breakers of all targets. Thread-safe; never raises anything but `Skipped`.

    Args:
        client: the Redis the fleet shares; give it short timeouts and no retries of its own. None: this process alone.
        prefix: of the keys in Redis.
    """

    def __init__(self, client: "redis.Redis | None", *, prefix: str = "nms:breaker:") -> None:
        self._redis, self._prefix = client, prefix
        self._scripts = {
            text: client.register_script(text) for text in (_ALLOW, _FAILURE, _SUCCESS, _STATE) if client is not None
        }
        self._shared = client is not None
        self._ask_again = 0.0 if client is not None else math.inf
        self._local: LRUCache[str, _Local] = LRUCache(_LOCAL_MAX)
        self._lock = threading.Lock()
        metrics.BREAKER_SHARED.set(self._shared)

    @contextmanager
    def guard(self, key: str, policy: BreakerPolicy) -> Iterator[None]:
        """Run what is inside under the breaker: `Unreachable` and `Timeout` are failures, any other answer is none.

        Raises:
            Skipped: the breaker is open.
        """
        self.allow(key, policy)
        try:
            yield
        except (Unreachable, Timeout):
            self.failure(key, policy)
            raise
        except Skipped:  # says nothing about the target
            raise
        except TargetError:
            self.success(key)
            raise
        else:
            self.success(key)

    def allow(self, key: str, policy: BreakerPolicy) -> None:
        """Whether the target may be asked now. Follow with `success` or `failure`.

        Raises:
            Skipped: it is open, or another one is just trying.
        """
        (refused,) = self.allow_all([key], policy)
        if refused:
            raise refused

    def allow_all(self, keys: Sequence[str], policy: BreakerPolicy) -> list[Skipped | None]:
        """`allow` for many targets in one round trip: for each None, or the refusal."""
        left = time_left()
        trial = max(policy.reset, left if left < _MEMORY else 0.0)
        answers = self._ask_all(_ALLOW, keys, int(trial * 1000))
        if answers is None:
            waits = [self._locally(key, lambda one: one.allow(trial)) for key in keys]
        else:
            waits = [answer / 1000 for answer in answers]
        return [_open(key, wait) if wait else None for key, wait in zip(keys, waits, strict=True)]

    def success(self, key: str) -> None:
        """It answered: closed, and the failures forgotten."""
        self.success_all([key])

    def success_all(self, keys: Sequence[str]) -> None:
        """`success` for many targets in one round trip."""
        answers = self._ask_all(_SUCCESS, keys) or [None] * len(keys)
        for key, answer in zip(keys, answers, strict=True):
            with self._lock:
                mine = self._local.pop(key, None)
            if answer or (mine and mine.wake is not None):
                log.info("the breaker of %s is closed: it answers again", key)

    def failure(self, key: str, policy: BreakerPolicy) -> None:
        """It did not answer."""
        memory = int((_MEMORY + policy.reset) * 1000)
        opened = self._ask(_FAILURE, key, policy.failures, int(policy.reset * 1000), memory)
        if opened is None:
            opened = self._locally(key, lambda one: one.failure(policy))
        if opened:
            metrics.BREAKER_OPENED.labels(key).inc()
            log.warning("the breaker of %s is open: the next try is in %g s", key, policy.reset)

    def state(self, key: str) -> BreakerState:
        """How it stands, as the fleet sees it, or this process while Redis is away."""
        answer = self._ask(_STATE, key)
        if answer is not None:
            failures, wait, trial = answer[0], answer[1] / 1000, bool(answer[2])
        else:
            with self._lock:
                mine = self._local.get(key, _Local())
            failures, trial = mine.failures, mine.trial
            wait = -1.0 if mine.wake is None else max(0.0, mine.wake - time.monotonic())
        if wait < 0:
            return BreakerState("closed", failures, 0.0)
        return BreakerState("half-open" if trial or wait == 0 else "open", failures, wait)

    def _locally(self, key: str, step: Callable[[_Local], float]) -> float:
        with self._lock:
            return step(self._local.setdefault(key, _Local()))

    def _ask(self, script: str, key: str, *arguments: int) -> Any:
        """The script's answer; None while Redis is away."""
        answers = self._ask_all(script, [key], *arguments)
        return None if answers is None else answers[0]

    def _ask_all(self, script: str, keys: Sequence[str], *arguments: int) -> list[Any] | None:
        """The script's answer for each key; None while Redis is away."""
        if self._redis is None or time.monotonic() < self._ask_again:
            return None
        try:
            with self._redis.pipeline(transaction=False) as pipe:
                many = pipe if len(keys) > 1 else None  # a pipeline of scripts asks first whether they are known
                asked = [self._scripts[script](keys=[self._prefix + key], args=arguments, client=many) for key in keys]
                answers = pipe.execute() if many else asked
        except redis.RedisError as exc:
            self._ask_again = time.monotonic() + _REDIS_PAUSE
            if self._now_shared(False):
                log.warning("breakers: Redis is away (%s), each process goes by itself", type(exc).__name__)
            return None
        if self._now_shared(True):
            log.info("breakers: Redis is back, the fleet shares them again")
        return answers

    def _now_shared(self, shared: bool) -> bool:
        """Note it; True if it was not so before."""
        with self._lock:
            changed, self._shared = self._shared != shared, shared
            if changed:
                metrics.BREAKER_SHARED.set(shared)
                if shared:
                    self._local.clear()
            return changed


def _open(key: str, wait: float) -> Skipped:
    metrics.BREAKER_SKIPPED.labels(key).inc()
    return Skipped(f"the breaker of {key} is open, next try in {math.ceil(wait)} s", hint="it did not answer")
