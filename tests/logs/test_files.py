"""Files that grow, are renamed, copied, emptied, deleted: each line once."""

import gzip
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from nms_workers.logs import files as module
from nms_workers.logs.batch import Batch
from tests.logs.conftest import Read, Reading, append, logs, numbered


def acknowledge(reading: Reading, count: int | None = None) -> None:
    """As if the first lines that came were delivered."""
    lines = tuple(reading.came[:count])
    batch = Batch(datetime.now(UTC), lines)
    reading.cursors.note(batch)
    reading.cursors.settle(batch)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "var"
    folder.mkdir()
    return folder / "app.log"


def test_a_file_that_grows(read: Read, path: Path) -> None:
    append(path, *numbered(1, 3))
    reading = read(logs(path))
    assert reading.look() == numbered(1, 3)
    with path.open("a") as file:
        file.write("line 00")
    assert reading.look() == []
    append(path, "0004", "line 000005\r", "gr\u00fc\u00dfe")
    assert reading.look() == ["line 000004", "line 000005", "gr\u00fc\u00dfe"]


def test_what_was_acknowledged_does_not_come_again_and_the_rest_has_the_same_ids(read: Read, path: Path) -> None:
    append(path, *numbered(1, 10))
    first = read(logs(path))
    first.look()
    acknowledge(first, 4)
    again = read(logs(path))
    assert again.look() == numbered(5, 10)
    assert [one.id for one in again.came] == [one.id for one in first.came[4:]]
    assert len({one.id for one in first.came}) == 10


def test_a_renamed_file_is_read_to_its_end_and_the_new_one_from_its_beginning(read: Read, path: Path) -> None:
    append(path, *numbered(1, 2))
    reading = read(logs(path))
    reading.look()
    with path.open("a") as writer:
        path.rename(path.with_name("app.log.1"))
        writer.write("line 000003\n")  # who writes has not noticed yet
        writer.flush()
        append(path, *numbered(5, 6))
        assert sorted(reading.look()) == numbered(3, 3) + numbered(5, 6)
        writer.write("line 000004\n")
    assert reading.look() == numbered(4, 4)


def test_rotated_more_than_once_between_two_looks(read: Read, path: Path) -> None:
    append(path, *numbered(1, 2))
    reading = read(logs(path))
    reading.look()
    append(path, *numbered(3, 3))
    path.rename(path.with_name("app.log.2"))
    append(path, *numbered(4, 5))
    path.rename(path.with_name("app.log.1"))
    append(path, *numbered(6, 6))
    assert sorted(reading.look()) == numbered(3, 6)


@pytest.mark.parametrize("name", ["app.log.1", "app.log-20261122", "app-2026-11-22.log", "app.log.2026-11-22"])
def test_renamed_while_nobody_looked(read: Read, path: Path, name: str) -> None:
    append(path, *numbered(1, 4))
    first = read(logs(path))
    first.look()
    acknowledge(first, 2)
    first.files.close()
    append(path, *numbered(5, 6))
    path.rename(path.with_name(name))
    append(path, *numbered(7, 8))
    again = read(logs(path))
    assert sorted(again.look()) == numbered(3, 8)
    assert {one.id for one in first.came[2:]} <= {one.id for one in again.came}


def test_came_and_went_while_nobody_looked(read: Read, path: Path) -> None:
    append(path, *numbered(1, 2))
    first = read(logs(path))
    first.look()
    acknowledge(first)
    path.rename(path.with_name("app.log.2"))
    append(path, *numbered(3, 4))
    path.rename(path.with_name("app.log.1"))
    append(path, *numbered(5, 6))
    assert sorted(read(logs(path)).look()) == numbered(3, 6)


def test_copied_and_emptied(read: Read, path: Path) -> None:
    append(path, *numbered(1, 2))
    reading = read(logs(path))
    reading.look()
    append(path, *numbered(3, 4))
    shutil.copyfile(path, path.with_name("app.log.1"))
    os.truncate(path, 0)
    append(path, *numbered(5, 5))
    assert sorted(reading.look()) == numbered(3, 5)
    append(path, *numbered(6, 6))
    assert reading.look() == numbered(6, 6)


def test_copied_and_emptied_again_into_the_same_copy_by_a_writer_that_outgrows_the_old_one(
    read: Read, path: Path
) -> None:
    copy = path.with_name("app.log.1")
    reading = read(logs(path))
    number = 0
    for round_ in range(4):
        append(path, *numbered(number + 1, number + 50 * (round_ + 1)))
        number += 50 * (round_ + 1)
        reading.look()
        append(path, *numbered(number + 1, number + 1))
        number += 1
        shutil.copyfile(path, copy)
        os.truncate(path, 0)
    append(path, *numbered(number + 1, number + 5))
    reading.look()
    assert sorted(reading.messages()) == numbered(1, number + 5)


def test_copied_and_emptied_while_nobody_looked(read: Read, path: Path) -> None:
    append(path, *numbered(1, 6))
    first = read(logs(path))
    first.look()
    acknowledge(first, 3)
    append(path, *numbered(7, 8))
    shutil.copyfile(path, path.with_name("app.log.1"))
    os.truncate(path, 0)
    append(path, *numbered(9, 9))
    again = read(logs(path))
    assert sorted(again.look()) == numbered(4, 9)
    assert {one.id for one in first.came[3:]} <= {one.id for one in again.came}


def test_emptied_without_a_copy(read: Read, path: Path) -> None:
    append(path, *numbered(1, 3))
    reading = read(logs(path))
    reading.look()
    acknowledge(reading)
    os.truncate(path, 0)
    append(path, *numbered(4, 4))
    assert reading.look() == numbered(4, 4)


def test_a_line_without_an_end_is_told_when_its_file_has_left(
    read: Read, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LEAVING_SECONDS", 0.0)
    path.write_text("line 000001\nline 000002")
    reading = read(logs(path))
    assert reading.look() == numbered(1, 1)
    path.unlink()
    assert reading.look() == numbered(2, 2)
    ended = [one.source for one in reading.came if not one.document]
    assert ended == [reading.came[0].source]
    acknowledge(reading)
    (row,) = reading.cursors.files(str(path))
    assert row.done


def test_rotated_before_the_first_look_is_not_read(read: Read, path: Path) -> None:
    append(path.with_name("app.log.1"), *numbered(1, 2))
    append(path, *numbered(3, 3))
    assert read(logs(path)).look() == numbered(3, 3)
    assert read(logs(path)).look() == numbered(3, 3)


def test_from_the_end(read: Read, path: Path) -> None:
    append(path, *numbered(1, 2))
    settings = logs(path, files={"start": "end"})
    reading = read(settings)
    assert reading.look() == []
    append(path, *numbered(3, 3))
    assert read(settings).look() == numbered(3, 3)
    path.rename(path.with_name("app.log.1"))
    append(path, *numbered(4, 4))
    reading = read(settings)
    assert sorted(reading.look()) == numbered(3, 4)


def test_a_pattern_finds_new_files_and_no_rotated_ones(read: Read, path: Path) -> None:
    append(path, *numbered(1, 1))
    reading = read(logs(path.parent / "*"))
    assert reading.look() == numbered(1, 1)
    path.rename(path.with_name("app.log.1"))
    append(path, *numbered(2, 2))
    append(path.with_name("other.log"), *numbered(3, 3))
    path.with_name("old.log.2.gz").write_bytes(b"packed")
    assert sorted(reading.look()) == numbered(2, 3)
    assert reading.look() == []


def test_two_names_of_one_file(read: Read, path: Path) -> None:
    append(path, *numbered(1, 2))
    path.with_name("link.log").hardlink_to(path)
    reading = read(logs(path.parent / "*.log"))
    assert reading.look() == numbered(1, 2)
    append(path, *numbered(3, 3))
    assert reading.look() == numbered(3, 3)


def test_more_files_than_may_be_followed(read: Read, path: Path) -> None:
    for number in range(5):
        one = path.with_name(f"{'cadbe'[number]}.log")
        append(one, *numbered(number, number))
        os.utime(one, (1_000_000_000 + number, 1_000_000_000 + number))
    reading = read(logs(path.parent / "*.log", max_files=3))
    assert sorted(reading.look()) == numbered(2, 4)  # those that were written last
    os.utime(path.with_name("c.log"))
    assert reading.look() == []  # and they are followed on


def test_a_long_line_is_cut_and_marked(read: Read, path: Path) -> None:
    append(path, "x" * 1000, "short")
    reading = read(logs(path, line_bytes=100))
    assert reading.look() == ["x" * 100, "short"]
    assert reading.came[0].document["log"]["flags"] == ["truncated"]
    assert "flags" not in reading.came[1].document["log"]
    assert reading.came[1].document["log"]["offset"] == 1001


def test_a_line_longer_than_what_is_read_at_once(read: Read, path: Path) -> None:
    append(path, "a", "x" * 400_000, "b")
    assert read(logs(path, line_bytes=1000)).look() == ["a", "x" * 1000, "b"]


def test_who_says_too_much_is_read_more_slowly(read: Read, path: Path, tmp_path: Path) -> None:
    append(path, *numbered(1, 50_000))
    quiet = path.with_name("quiet.log")
    append(quiet, "one")
    reading = read(logs(path, quiet, lines_per_second=10))
    came = reading.look()
    assert "one" in came
    assert 10 <= len(came) < 50_000
    append(quiet, "two")
    assert reading.look() == ["two"]


def test_what_is_no_file_is_told_and_the_rest_is_read(read: Read, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    os.mkfifo(path.with_name("pipe.log"))
    path.with_name("folder.log").mkdir()
    append(path, *numbered(1, 1))
    reading = read(logs(path.parent / "*.log"))
    assert reading.look() == numbered(1, 1)
    assert reading.look() == []
    told = [one for one in caplog.messages if "cannot be read" in one]
    assert len(told) == 2


def test_gone_before_it_was_read_is_told(read: Read, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = REGISTRY.get_sample_value("nms_logs_lost_files_total") or 0.0
    append(path, *numbered(1, 2))
    reading = read(logs(path))
    reading.look()
    acknowledge(reading, 1)
    path.rename(path.with_name("app.log.1"))
    path.with_name("app.log.1.gz").write_bytes(gzip.compress(path.with_name("app.log.1").read_bytes()))
    path.with_name("app.log.1").unlink()
    append(path, *numbered(3, 3))
    assert read(logs(path)).look() == numbered(3, 3)
    assert REGISTRY.get_sample_value("nms_logs_lost_files_total") == before + 1
    assert "cannot be read any more" in caplog.text
    assert read(logs(path)).look() == numbered(3, 3)
    assert REGISTRY.get_sample_value("nms_logs_lost_files_total") == before + 1


def test_a_number_that_is_used_again(read: Read, path: Path) -> None:
    """What is created in the place of a deleted file often gets its inode."""
    append(path, *numbered(1, 5))
    reading = read(logs(path))
    reading.look()
    acknowledge(reading)
    reading.files.close()
    (row,) = reading.cursors.files(str(path))
    other = path.with_name("other")
    append(other, *numbered(6, 20))
    reading.cursors.keep_file(row._replace(inode=other.stat().st_ino))
    other.replace(path)
    assert read(logs(path)).look() == numbered(6, 20)


def test_renamed_and_renamed_back(read: Read, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append(path, *numbered(1, 2))
    reading = read(logs(path))
    reading.look()
    for first in (3, 5):
        path.rename(path.with_name("away"))
        reading.look()
        append(path.with_name("away"), *numbered(first, first))
        path.with_name("away").rename(path)
        append(path, *numbered(first + 1, first + 1))
        if first == 5:
            assert reading.look() == []  # its last lines are on their way
            acknowledge(reading)
        assert reading.look() == numbered(first, first + 1)
        monkeypatch.setattr(module, "_LEAVING_SECONDS", 0.0)  # the second time it is given up meanwhile


def test_written_anew_with_the_same_beginning(read: Read, path: Path) -> None:
    append(path, *numbered(1, 200))
    reading = read(logs(path))
    reading.look()
    acknowledge(reading)
    append(path, *numbered(201, 210))
    reading.look()
    os.truncate(path, 0)
    append(path, *numbered(1, 205))
    assert reading.look() == []  # what was read last is on its way
    acknowledge(reading)
    assert reading.look() == numbered(1, 205)
    append(path, *numbered(206, 220))
    assert reading.look() == numbered(206, 220)


def test_what_is_deleted_and_delivered_is_forgotten(read: Read, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LEAVING_SECONDS", 0.0)
    append(path, *numbered(1, 2))
    reading = read(logs(path.parent / "*.log"))
    reading.look()
    path.unlink()
    reading.look()
    assert len(reading.cursors.files(str(path))) == 1
    acknowledge(reading)
    reading.look()
    assert reading.cursors.files(str(path)) == []
    assert reading.cursors.sources() == []


def test_a_rotated_file_that_cannot_be_read_does_not_hold_up_the_others(read: Read, path: Path) -> None:
    append(path, *numbered(1, 1))
    reading = read(logs(path))
    reading.look()
    acknowledge(reading)
    path.with_name("app.log.1").mkdir()
    path.with_name("app.log.2").symlink_to(path.with_name("nowhere"))
    append(path, *numbered(2, 2))
    assert read(logs(path)).look() == numbered(2, 2)
