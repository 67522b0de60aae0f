"""What the tests of several services watch."""

from typing import Any

import pytest
from requests import PreparedRequest

from nms_workers.transport.adapter import DeadlineAdapter


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[PreparedRequest]:
    """Every request that leaves our clients, as it leaves."""
    seen: list[PreparedRequest] = []
    send = DeadlineAdapter.send

    def watched(self: DeadlineAdapter, request: PreparedRequest, *args: Any, **options: Any) -> Any:
        seen.append(request)
        return send(self, request, *args, **options)

    monkeypatch.setattr(DeadlineAdapter, "send", watched)
    return seen
