"""The tests of `in_other_kernel.py`, and those of foreign rules again, on another Linux kernel."""

import inspect
from pathlib import Path

import pytest

from tests.services.traffic_control import in_other_kernel, test_foreign
from tests.services.traffic_control.other_kernel import results


@pytest.mark.real("user-mode-linux", "iproute2")
def test_on_another_kernel(tmp_path: Path) -> None:
    modules = (in_other_kernel, test_foreign)
    files = [Path(inspect.getfile(module)) for module in modules]
    found = results(files, tmp_path)
    assert {name: ending for name, ending in found.items() if ending != "passed"} == {}
    written = {f"{module.__name__}.{name}" for module in modules for name in vars(module) if name.startswith("test_")}
    assert {name.partition("[")[0] for name in found} == written
