import subprocess
from collections.abc import Iterator

import pytest

from nms_workers.bench.snmp import REPETITIONS, TABLES, BenchError, agents, run
from nms_workers.bench.snmp_agents import COLUMNS
from nms_workers.services.snmp.client import SnmpClient
from nms_workers.services.snmp.target import SnmpTarget

STORED = 22  # of the 26 columns: the others are counters of 32 bits that have a twin of 64


@pytest.fixture
def port() -> Iterator[int]:
    with agents(1, 3, len(COLUMNS)) as ports:
        yield ports[0]


def test_a_fleet_is_measured_and_compared() -> None:
    found = run(targets=20, ports=48, rounds=5)
    assert found["varbinds"] == 20 * 5 * (48 * STORED + 1), "every value of every port, and the uptime"
    assert float(found["ratio_to_pysnmp"]) > 10  # docs/performance.md has it at full size, where it is above 20
    assert float(found["varbinds_per_cpu_second"]) > float(found["pysnmp_varbinds_per_cpu_second"]) > 0
    assert sum(float(found[f"{who}_share"]) for who in ("worker", "database", "redis")) == pytest.approx(1, abs=0.01)


def test_memory_stays_where_it_is() -> None:
    """The long form, 100,000 polls, is in docs/performance.md."""
    found = run(targets=20, ports=2, rounds=50)
    assert float(found["worker_rss_mb"]) < float(found["worker_rss_mb_after_a_tenth"]) + 8


@pytest.mark.parametrize("wrong", [{"targets": 0}, {"columns": len(COLUMNS) + 1}, {"rounds": -1}])
def test_a_run_that_cannot_be_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(BenchError, match="at least 1"):
        run(**wrong)


@pytest.mark.real("snmpd")  # and snmpbulkwalk, of the package snmp beside it
@pytest.mark.parametrize("repetitions", [1, 7, REPETITIONS])
@pytest.mark.parametrize("table", [*TABLES, "1.3.6.1"])
def test_the_agents_answer_net_snmp_as_they_answer_us(
    port: int, table: str, repetitions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_PUBLIC", "public")
    argv = ["snmpbulkwalk", "-v2c", "-cpublic", "-Onq", f"-Cr{repetitions}", f"127.0.0.1:{port}", table]
    env = {"MIBS": "", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=30, check=True)
    lines = [line for line in done.stdout.splitlines() if "No more variables" not in line]
    theirs = [line.split(" ", 1)[0].lstrip(".") for line in lines]
    settings = {"host": "127.0.0.1", "port": port, "community": "env:TEST_PUBLIC", "max_repetitions": repetitions}
    ours = [oid for oid, _ in SnmpClient(SnmpTarget.model_validate(settings)).walk(table)]
    assert theirs == ours
    assert len(ours) == {"1.3.6.1": 3 * (len(COLUMNS) + 2) + 4}.get(table, len(ours)) > 0
