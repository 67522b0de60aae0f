"""Due times as pure functions: a slot is known from the target's name and the interval alone.

Nothing has to be remembered to know which slots there should have been, so none can be forgotten: what is due next, and
what should be in the ledger, is computed. All times are integer milliseconds since the epoch.
"""

from hashlib import blake2b


def phase(service: str, target: str, poll: str, every_ms: int) -> int:
    """The target's stable offset inside the interval: targets spread evenly, also right after a restart."""
    digest = blake2b(f"{service}/{target}/{poll}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % every_ms


def latest_due(now_ms: int, every_ms: int, phase_ms: int) -> int:
    """The last due time at or before `now_ms`."""
    return (now_ms - phase_ms) // every_ms * every_ms + phase_ms


def tick(every: float) -> float:
    """How often dispatch looks at a poll with this interval (both in seconds): a twelfth of it, from 1 to 10 s.

    At least twice an interval: with two slots in one look the older one would never be dispatched.
    """
    return min(10.0, max(1.0, every / 12), every / 2)


def late(every: float) -> float:
    """How late (seconds) a slot may still be dispatched. What is older is not polled to catch up; it is expired."""
    return min(every, 3 * tick(every) + 2)


def settled(every: float) -> float:
    """Seconds after which a slot has ended in any case: its message expired at `every`, its run ends 0.8 later."""
    return every * 1.8 + 5
