"""Many containers read at once, each within a time of its own: one that hangs costs itself only."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

from nms_workers.errors import Refused, TargetError
from nms_workers.services.docker.failures import NotThere
from nms_workers.services.docker.model import Summary
from nms_workers.transport.deadline import deadline

T = TypeVar("T")


def read_each(
    containers: Sequence[Summary], read: Callable[[str], T], *, at_once: int, limit: float
) -> Iterator[tuple[Summary, T]]:
    """What `read` gives for the id of each container, in their order, without those that are gone meanwhile.

    Args:
        at_once: how many are read at the same time.
        limit: seconds for each.

    Raises:
        Refused: some could not be read, once the others were given.
        TargetError: none could be; that of the first.
    """

    def one(container: Summary) -> T | TargetError:
        try:
            with deadline(limit):
                return read(container.id)
        except TargetError as exc:
            return exc

    failed: list[tuple[Summary, TargetError]] = []
    with ThreadPoolExecutor(at_once, thread_name_prefix="docker") as pool:
        futures = [pool.submit(copy_context().run, one, container) for container in containers]
        try:
            for container, future in zip(containers, futures, strict=True):
                got = future.result()
                if not isinstance(got, TargetError):
                    yield container, got
                elif not isinstance(got, NotThere):
                    failed.append((container, got))
        finally:
            for future in futures:
                future.cancel()
    _tell(failed, len(containers))


def _tell(failed: Sequence[tuple[Summary, TargetError]], all_: int) -> None:
    if not failed:
        return
    first = failed[0][1]
    if len(failed) == all_ > 1:
        raise first
    names = ", ".join(one.name for one, _ in failed[:10])
    hint = "it may be starting over and over; raise stats_timeout if the engine is only slow"
    raise Refused(f"{len(failed)} of {all_} containers could not be read ({names}): {first.message}", hint=hint)
