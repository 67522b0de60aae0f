"""The check itself: a request or an answer that is not as described is found."""

from collections.abc import Iterator
from typing import Any

import pytest
import requests
from werkzeug.wrappers import Request

from tests.contract.vendor import Contract
from tests.stubs.stub import Stub, route

DESCRIPTION: dict[str, Any] = {
    "openapi": "3.0.3",
    "info": {"title": "shop", "version": "1"},
    "paths": {
        "/things": {
            "get": {
                "parameters": [{"name": "limit", "in": "query", "schema": {"type": "integer"}}],
                "responses": {"200": {"description": "", "content": {"application/json": {"schema": {
                    "type": "array", "items": {"type": "string"}}}}}},
            },
            "post": {
                "requestBody": {"required": True, "content": {"application/json": {"schema": {
                    "type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}}}},
                "responses": {"201": {"description": ""}},
            },
        }
    },
}  # fmt: skip


class Shop(Stub):
    """Keeps names of things."""

    unchecked = {"/api/health": "not described"}  # noqa: RUF012

    def __init__(self, contract: Contract) -> None:
        self.things: list[Any] = []
        super().__init__(contract)

    def refuse(self, request: Request) -> Any:
        return ({"message": "who are you"}, 401) if request.headers.get("X-Key") == "wrong" else None

    @route("/api/things")
    def things_(self, _: Request) -> Any:
        return self.things

    @route("/api/things", "POST")
    def add(self, request: Request) -> Any:
        self.things.append(request.get_json().get("name"))
        return {}, 201

    @route("/api/health")
    def health(self, _: Request) -> Any:
        return {"up": True}


@pytest.fixture
def shop() -> Iterator[Shop]:
    one = Shop(Contract(DESCRIPTION, "/api"))
    yield one
    one.violations.clear()  # these tests look at them
    one.close()


def test_good_ones_pass_and_state_is_kept(shop: Shop) -> None:
    assert requests.post(f"{shop.url}/api/things", json={"name": "x"}, timeout=5).status_code == 201
    assert requests.get(f"{shop.url}/api/things?limit=3", timeout=5).json() == ["x"]
    assert requests.get(f"{shop.url}/api/health", timeout=5).json() == {"up": True}
    assert requests.get(f"{shop.url}/api/things", headers={"X-Key": "wrong"}, timeout=5).status_code == 401
    assert shop.paths("GET") == ["/api/things?limit=3", "/api/health", "/api/things"]
    assert shop.violations == []


@pytest.mark.parametrize(
    ("method", "path", "body", "words"),
    [
        ("GET", "/api/things?limit=many", None, "limit"),
        ("POST", "/api/things", {"title": "x"}, "'name' is a required property"),
        ("PUT", "/api/things", {"name": "x"}, "put not found"),
        ("GET", "/api/others", None, "Path not found"),
    ],
)
def test_a_request_that_is_not_as_described(shop: Shop, method: str, path: str, body: Any, words: str) -> None:
    requests.request(method, f"{shop.url}{path}", json=body, timeout=5)
    (violation,) = shop.violations
    assert violation.startswith(f"{method} {path}: ")
    assert words in violation


def test_an_answer_that_is_not_as_described(shop: Shop) -> None:
    shop.things.append(7)
    requests.get(f"{shop.url}/api/things", timeout=5)
    (violation,) = shop.violations
    assert violation.startswith("answer to GET /api/things: ")
    assert "7 is not of type 'string'" in violation


def test_whoever_got_a_wrong_one_is_told(shop: Shop) -> None:
    requests.get(f"{shop.url}/api/others", timeout=5)
    other = Shop(Contract(DESCRIPTION, "/api"))
    requests.get(f"{other.url}/api/others", timeout=5)
    with pytest.raises(AssertionError, match="others"):
        other.close()
