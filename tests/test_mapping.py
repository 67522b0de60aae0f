"""Tables that turn wide answers into samples."""

from pathlib import Path

import pytest

from nms_workers.errors import ConfigError
from nms_workers.mapping import MappingTable

TABLE = """\
field,metric,scale,labels,none,words
status,x_health,,,,"green=0,yellow=1,*=2"
jvm.uptime_in_millis,x_uptime_seconds,0.001,,,
jvm.pools.*.used,x_pool_bytes,,pool={0},,
jvm.pools.old.used,x_old_bytes,,,,
indices.*.*.hits,x_hits_total,,"index={0},shard={1}",,
limit,x_limit_bytes,,,-1,
a\\.b,x_dotted,,,,
text,x_text,,,,
seen,,,,,
about.**,,,,,
"""


@pytest.fixture
def table(tmp_path: Path) -> MappingTable:
    path = tmp_path / "fields.csv"
    path.write_text(TABLE)
    return MappingTable(path)


def told(table: MappingTable, answer: dict[str, object], **labels: str) -> list[tuple[str, float, dict[str, str]]]:
    return [(one.metric, one.value, dict(one.labels)) for one in table.samples(answer, labels)]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"jvm": {"uptime_in_millis": 1500}}, [("x_uptime_seconds", 1.5, {})]),
        ({"jvm": {"uptime_in_millis": 1795377194929}}, [("x_uptime_seconds", 1795377194.929, {})]),
        ({"jvm": {"pools": {"young": {"used": 7}}}}, [("x_pool_bytes", 7, {"pool": "young"})]),
        ({"jvm": {"pools": {"old": {"used": 7}}}}, [("x_old_bytes", 7, {})]),
        ({"indices": {"logs-1.2": {"0": {"hits": 3}}}}, [("x_hits_total", 3, {"index": "logs-1.2", "shard": "0"})]),
        ({"limit": -1}, []),
        ({"limit": 0}, [("x_limit_bytes", 0, {})]),
        ({"a.b": 1}, [("x_dotted", 1, {})]),
        ({"a": {"b": 1}}, []),
        ({"status": "green"}, [("x_health", 0, {})]),
        ({"status": "purple"}, [("x_health", 2, {})]),
        ({"text": "12.5"}, [("x_text", 12.5, {})]),
        ({"text": "many"}, []),
        ({"text": True}, [("x_text", 1, {})]),
        ({"text": None, "seen": 4, "new": 5}, []),
        ({"jvm": 5, "text": {"a": 1}, "indices": {"x": [1, 2]}}, []),
    ],
)
def test_samples(
    table: MappingTable, answer: dict[str, object], expected: list[tuple[str, float, dict[str, str]]]
) -> None:
    assert told(table, answer) == expected


def test_labels_of_the_caller_are_added(table: MappingTable) -> None:
    answer: dict[str, object] = {"jvm": {"pools": {"young": {"used": 7}}}}
    assert told(table, answer, node="n1") == [("x_pool_bytes", 7, {"node": "n1", "pool": "young"})]


def test_what_the_table_does_not_have_is_named(table: MappingTable) -> None:
    answer = {
        "status": "green",
        "seen": 1,
        "about": {"deep": {"down": 3}},
        "jvm": {"pools": {"old": {"used": 1, "max": 2}}, "threads": 5},
        "indices": {"i": {"0": {"hits": 1, "misses": 2}}},
        "words": "are not numbers",
    }
    assert table.unknown(answer) == ["indices.i.0.misses", "jvm.pools.old.max", "jvm.threads"]


def test_an_answer_without_end_ends(table: MappingTable) -> None:
    answer: dict[str, object] = {}
    inner = answer
    for _ in range(5000):
        inner["deeper"] = inner = {}
    assert told(table, answer) == []
    assert len(table.unknown(answer)) == 1


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("status,,,,,", "names status twice"),
        ("b,x,many,,,", "b: Invalid literal for Fraction: 'many'"),
        ("b,x,,pool,,", "b: 'pool' is no name=text"),
        ("b,x,,,,up", "b: 'up' is no name=text"),
    ],
)
def test_a_table_with_a_fault_is_refused(tmp_path: Path, row: str, reason: str) -> None:
    path = tmp_path / "fields.csv"
    path.write_text(f"{TABLE}{row}\n")
    with pytest.raises(ConfigError, match=r"fields\.csv") as told_of:
        MappingTable(path)
    assert reason in str(told_of.value)
