"""The committed pages of the services say what the code says."""

from pathlib import Path

import pytest

from nms_workers.pages import page
from nms_workers.service import services

FOLDER = Path(__file__).parent.parent / "docs" / "services"


@pytest.mark.parametrize("kind", services())
def test_the_page_of_a_service_is_up_to_date(kind: str) -> None:
    assert (FOLDER / f"{kind}.md").read_text(encoding="utf-8") == page(services()[kind]), "run `make docs`"


@pytest.mark.parametrize("kind", services())
def test_a_page_names_every_poll_action_and_metric(kind: str) -> None:
    one = services()[kind]
    text = page(one)
    for name in (*one.polls(), *one.actions(), *one.metrics(), *one.Target.model_fields):
        assert f"`{name}`" in text


def test_no_page_is_left_of_a_service_that_is_gone() -> None:
    assert {path.stem for path in FOLDER.glob("*.md")} == set(services())
