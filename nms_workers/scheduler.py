"""Celery beat for a fleet: several may run, one leads; a changed settings file is taken over without a restart.

Nothing is kept on disk: what is due follows from the clock (`fleet.slots`), so a beat that died left nothing to
recover, and the next one goes on at once. The lease only spares the work of two; were both to lead for a moment,
dispatch would still publish every slot once.
"""

import logging
import os
import time
import uuid
from datetime import UTC, datetime
from typing import Any

import redis
from celery.beat import Scheduler
from sqlalchemy.exc import SQLAlchemyError

from beat_schedule import beat_schedule
from nms_workers.fleet.pauses import resume, stop
from nms_workers.fleet.targets import sync
from nms_workers.heartbeat import folder
from nms_workers.runtime import runtime
from nms_workers.settings import config_path
from nms_workers.settings_file import SettingsFile

log = logging.getLogger(__name__)

LEASE_SECONDS = 15.0
SYNC_AGAIN_SECONDS = 5.0  # PostgreSQL that does not answer must not hold up what is due
LOOK_SECONDS = 2.0  # how often the settings file and the inventory are looked at

_HOLD = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_DROP = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


def _now_ms() -> int:
    return int(time.time() * 1000)


class Lease:
    """Leadership among beats: a key in Redis that only its holder renews."""

    def __init__(self, client: "redis.Redis", key: str = "nms:lease:beat", seconds: float = LEASE_SECONDS) -> None:
        self._hold = client.register_script(_HOLD)
        self._drop = client.register_script(_DROP)
        self._key, self._seconds = key, seconds
        self._token = uuid.uuid4().hex
        self._held_until = 0.0
        self._renew_at = 0.0

    def held(self) -> bool:
        """Whether this process leads now; takes or renews the lease where needed. Redis away: nobody leads for long."""
        now = time.monotonic()
        if now < self._renew_at:
            return now < self._held_until
        try:
            mine = bool(self._hold(keys=[self._key], args=[self._token, int(self._seconds * 1000)]))
        except redis.RedisError:
            self._renew_at = now + 0.5
            return now < self._held_until
        self._held_until = now + self._seconds if mine else 0.0
        self._renew_at = now + (self._seconds / 3 if mine else 1.0)
        return mine

    def drop(self) -> None:
        """Let another lead at once."""
        self._held_until = self._renew_at = 0.0
        try:
            self._drop(keys=[self._key], args=[self._token])
        except redis.RedisError as exc:
            log.info("the lease of beat ends by itself: Redis is away (%s)", type(exc).__name__)


class LeaderScheduler(Scheduler):
    """Beat's scheduler with a lease, a heartbeat file and a reload."""

    def __init__(self, *args: Any, **options: Any) -> None:
        here = runtime()
        self._file = SettingsFile(config_path(), here.settings)
        self._lease = Lease(here.redis)
        self._leads = False
        self._led = False
        self._to_sync = True
        self._sync_at = 0.0
        self._look_at = 0.0
        self._heartbeat = folder(here.settings) / "beat.heartbeat"
        self._heartbeat.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(*args, **options)

    def tick(self, *args: Any, **options: Any) -> float:
        """Send what is due, if this beat leads; returns seconds until the next call."""
        self._look()
        if not self._lead():
            return float(self.max_interval)
        if self._to_sync and time.monotonic() >= self._sync_at:
            self._to_sync = not self._sync()
            self._sync_at = time.monotonic() + SYNC_AGAIN_SECONDS
        return float(super().tick(*args, **options))

    def schedules_equal(self, old: object, new: object) -> bool:
        """Celery compares every entry at every tick, which is most of an idle beat's work; we know when they change."""
        return True

    def adjust(self, n: float | None, drift: float = 0.0) -> float | None:
        """Celery wakes 10 ms early, and then asks without a pause until the time has come."""
        return n

    def close(self) -> None:
        """Hand over: a beat that stands by leads at once, and if there is none, no slot is due any more."""
        if self._leads:
            try:
                stop(runtime().redis, _now_ms())
            except redis.RedisError as exc:
                log.warning("the stop of beat is not noted: Redis is away (%s)", type(exc).__name__)
            self._lease.drop()
        super().close()

    def _lead(self) -> bool:
        leads = self._lease.held()
        if leads == self._leads:
            return leads
        if leads:
            try:
                resume(runtime().redis, _now_ms(), running=self._led)
            except redis.RedisError:
                return False  # to be tried again at the next tick
            self._led = self._to_sync = True
        self._leads = leads
        log.info("beat %s %s", os.getpid(), "leads" if leads else "stands by: another one leads")
        return leads

    def _look(self) -> None:
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_SECONDS
        self._heartbeat.touch()
        if self._file.changed():
            self.merge_inplace(beat_schedule(self._file.settings))
            self._heap = None  # Celery's: to be made anew
            self._to_sync = True
        elif self._leads:
            self._to_sync = self._to_sync or self._inventory_lost()

    def _inventory_lost(self) -> bool:
        try:
            return not runtime().inventory.known()
        except redis.RedisError:
            return False

    def _sync(self) -> bool:
        here = runtime()
        try:
            log.info("%s", sync(here.engine, here.inventory, self._file.settings, datetime.now(UTC)))
        except (SQLAlchemyError, redis.RedisError) as exc:
            log.warning("targets are not synced yet: %s", type(exc).__name__)
            return False
        return True
