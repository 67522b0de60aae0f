"""A shipper with real files, and clusters that hold what it ships."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from nms_workers.logs.batch import Line
from nms_workers.logs.cursors import Cursors
from nms_workers.logs.deadletters import DeadLetters
from nms_workers.logs.elastic import ElasticOutlet
from nms_workers.logs.files import Files
from nms_workers.logs.intake import Intake
from nms_workers.logs.origin import Way
from nms_workers.logs.outlet import Outlet
from nms_workers.logs.shipper import Shipper, Sources
from nms_workers.services.elasticsearch.client import ElasticsearchClient
from nms_workers.services.elasticsearch.target import ElasticsearchTarget
from nms_workers.settings import Logs
from tests.fleet.stores import wait_until
from tests.services.elasticsearch.conftest import StartStub, start_stub, vendor
from tests.stubs.elasticsearch import ElasticsearchStub

__all__ = ["start_stub", "vendor"]

HOST = "testhost"


def logs(*paths: Path | str, service: str = "json", **settings: Any) -> Logs:
    """Settings with these paths of one service; of the kind `json` no line belongs to another."""
    files = settings.pop("files", {})
    return Logs.model_validate(
        {"files": [{"paths": [str(one) for one in paths], "service": service, **files}], **settings}
    )


@dataclass
class Reading:
    """Files read without being shipped: what came is at hand, and can be acknowledged."""

    files: Files
    cursors: Cursors
    intake: Intake
    came: list[Line] = field(default_factory=list)

    def look(self) -> list[str]:
        """One scan, everything read; the messages that came with it."""
        self.files.scan()
        while self.files.read():
            pass
        new = self.intake.take(1_000_000, 1 << 40, 0, 0)
        self.came += new
        return [one.document["message"] for one in new if one.document]

    def messages(self) -> list[str]:
        """All that came."""
        return [one.document["message"] for one in self.came if one.document]


@dataclass
class Shipping:
    """A running shipper."""

    shipper: Shipper
    thread: threading.Thread

    def died(self) -> None:
        """Wait until a fault has ended it."""
        self.thread.join(30)
        assert not self.thread.is_alive()

    def stop(self) -> None:
        """End it in order."""
        self.shipper.stop()
        self.thread.join(30)
        assert not self.thread.is_alive()


Ship = Callable[..., Shipping]


@pytest.fixture
def stub(start_stub: StartStub) -> ElasticsearchStub:
    """A cluster that is held against its vendor's description."""
    return start_stub()


def elastic(url: str, folder: Path, **settings: Any) -> ElasticOutlet:
    """The outlet to a cluster."""
    # a stub that checks its answers takes its time
    target = ElasticsearchTarget(url=url, retry={"attempts": 1}, timeout={"total": 20})
    letters = DeadLetters(folder / "dead-letters.jsonl", settings.pop("dead_letter_bytes", 1_000_000))
    return ElasticOutlet(ElasticsearchClient(target), settings.pop("retention", {}), letters)


@pytest.fixture
def ship(tmp_path: Path, stub: ElasticsearchStub) -> Iterator[Ship]:
    """`ship(settings, outlet)`: a shipper in this process, its state in `tmp_path/logs`; default outlet: the stub."""
    running: list[Shipping] = []

    def start(settings: Logs, outlet: Outlet | None = None) -> Shipping:
        folder = tmp_path / "state"
        cursors = Cursors(folder)
        shipper = Shipper(settings, Sources(settings.files, {}, HOST), cursors, outlet or elastic(stub.url, folder))

        def run() -> None:
            with suppress(RuntimeError):  # a test that lets it die looks at what it left
                shipper.run()

        thread = threading.Thread(target=run)
        thread.start()
        running.append(Shipping(shipper, thread))
        return running[-1]

    yield start
    for one in running:
        one.stop()


Read = Callable[..., Reading]


@pytest.fixture
def read(tmp_path: Path) -> Iterator[Read]:
    """`read(settings)`: files and cursors without a cluster; again with `read` after `.files.close()`."""
    opened: list[Reading] = []

    def start(settings: Logs) -> Reading:
        for one in opened:
            one.files.close()
            one.cursors.close()
        opened.clear()
        cursors = Cursors(tmp_path / "state")
        intake = Intake(1 << 40)
        opened.append(Reading(Files(Way(settings, cursors, intake), settings.files, HOST), cursors, intake))
        return opened[-1]

    yield start
    for one in opened:
        one.files.close()
        one.cursors.close()


def append(path: Path, *lines: str) -> None:
    """Write lines at the end of a file."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines)


def numbered(first: int, last: int) -> list[str]:
    """Lines that are told apart."""
    return [f"line {number:06}" for number in range(first, last + 1)]


def messages(stub: ElasticsearchStub, stream: str = "nms-monitoring-logs") -> list[str]:
    """The messages that a data stream holds, in the order in which they came."""
    return [document["message"] for _, document in stub.documents(stream)]


def wait_for(stub: ElasticsearchStub, wanted: Sequence[str], stream: str = "nms-monitoring-logs") -> None:
    """Until a data stream holds so many documents; they must be these, each once."""
    wait_until(lambda: len(messages(stub, stream)) >= len(wanted), 90)
    assert sorted(messages(stub, stream)) == sorted(wanted)
