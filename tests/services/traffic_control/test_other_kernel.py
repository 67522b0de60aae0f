"""The tests of `in_other_kernel.py`, on another Linux kernel."""

from pathlib import Path

import pytest

from tests.services.traffic_control import in_other_kernel
from tests.services.traffic_control.other_kernel import results


@pytest.mark.timeout(360)
def test_on_another_kernel(tmp_path: Path) -> None:
    found = results([Path(in_other_kernel.__file__)], tmp_path)
    assert {name: ending for name, ending in found.items() if ending != "passed"} == {}
    written = {f"{in_other_kernel.__name__}.{name}" for name in vars(in_other_kernel) if name.startswith("test_")}
    assert {name.partition("[")[0] for name in found} == written
