"""One source: how fast it may be read, and what waits for its continuation."""

from nms_workers.logs.batch import Line
from nms_workers.logs.feed import Feed
from nms_workers.logs.joining import Piece, rule_of
from nms_workers.logs.origin import Origin
from nms_workers.settings import Logs


class Clock:
    """A clock that is set by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def feed(clock: Clock, came: list[Line], **settings: object) -> Feed:
    """The feed of a source."""
    origin = Origin("source", "file", "network", rule_of(""), {})
    return Feed(origin, Logs.model_validate(settings), came.append, clock)


def test_more_than_a_second_of_lines_at_once_is_worked_off() -> None:
    clock, came = Clock(), list[Line]()
    one = feed(clock, came, lines_per_second=10)
    for number in range(10):
        one.add(Piece("x", str(number), str(number + 1)))
    assert one.pause() == 0
    for number in range(10, 40):
        one.add(Piece("x", str(number), str(number + 1)))
    assert one.pause() == 3.0
    clock.now += 2.0
    assert one.pause() == 1.0
    clock.now += 60.0
    assert one.pause() == 0


def test_what_may_go_on_is_waited_for() -> None:
    clock, came = Clock(), list[Line]()
    one = feed(clock, came, join_for=2.0)
    one.add(Piece("it failed", "0", "10"))
    clock.now += 1.5
    one.idle()
    one.add(Piece("  here", "10", "17"))
    clock.now += 1.5
    one.idle()
    assert came == []
    assert one.waits
    clock.now += 0.5
    one.idle()
    assert [line.document["message"] for line in came] == ["it failed\n  here"]
    assert [(line.source, line.stream, line.after) for line in came] == [("source", "network", "17")]
    one.end()
    assert [line.document for line in came[1:]] == [{}]


def test_an_id_is_of_the_place_and_of_the_source() -> None:
    ids = []
    for start in ("0", "0", "10"):
        came = list[Line]()
        one = feed(Clock(), came)
        one.add(Piece("the same", start, "20"))
        one.flush()
        ids += [line.id for line in came]
    assert ids[0] == ids[1] != ids[2]
