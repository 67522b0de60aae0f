"""Two joined hosts, and the actions of the service upon one of them."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nms_workers.change import Change
from nms_workers.services.traffic_control.service import TrafficControl
from tests.services.traffic_control import lab as labs
from tests.services.traffic_control.lab import Lab

Act = Callable[..., Change]


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Network namespaces of this test's own."""
    with labs.lab() as made:
        yield made


@pytest.fixture
def act(lab: Lab) -> Act:
    """`act(action, **arguments)`: run an action on the interface `left`, as a job does."""

    def run(name: str, **arguments: Any) -> Change:
        declared = TrafficControl.actions()[name]
        return declared.run(lab.client(), **declared.validate({"interface": "left"} | arguments))

    return run
