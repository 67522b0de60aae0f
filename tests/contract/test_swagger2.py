"""A description in Swagger 2.0 checks as one in OpenAPI 3.0 does."""

from typing import Any

import pytest
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request, Response

from tests.contract.swagger2 import as_openapi3
from tests.contract.vendor import Contract

DESCRIPTION: dict[str, Any] = {
    "swagger": "2.0",
    "info": {"title": "shop", "version": "1"},
    "basePath": "/v1",
    "parameters": {"limit": {"name": "limit", "in": "query", "type": "integer", "maximum": 9}},
    "responses": {"Things": {"description": "", "schema": {"type": "array", "items": {"$ref": "#/definitions/thing"}}}},
    "definitions": {
        "named": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
        "thing": {
            "additionalProperties": False,
            "allOf": [
                {"$ref": "#/definitions/named"},
                {"type": "object", "properties": {"weight": {"type": "integer", "x-nullable": True}}},
            ],
        },
        "label": {"$ref": "#/definitions/named/properties/name"},
    },
    "paths": {
        "/things": {
            "parameters": [{"$ref": "#/parameters/limit"}],
            "get": {"responses": {"200": {"$ref": "#/responses/Things"}}},
            "post": {
                "parameters": [
                    {"name": "data", "in": "body", "required": True, "schema": {"$ref": "#/definitions/thing"}}
                ],
                "responses": {"201": {"description": ""}},
            },
        }
    },
}


def faults(method: str, query: str = "", body: Any = None, answer: str = "[]") -> list[str]:
    request = Request(EnvironBuilder("/v1/things", method=method, query_string=query, json=body).get_environ())
    status = 201 if method == "POST" else 200
    return Contract(as_openapi3(DESCRIPTION), "/v1").faults(
        request, Response(answer, status, content_type="application/json")
    )


@pytest.mark.parametrize(
    ("method", "query", "body", "answer"),
    [
        ("GET", "limit=9", None, '[{"name": "x", "weight": null}]'),
        ("POST", "", {"name": "x", "weight": 7}, ""),
    ],
    ids=["get", "post"],
)
def test_good_ones_pass(method: str, query: str, body: Any, answer: str) -> None:
    assert faults(method, query, body, answer) == []


@pytest.mark.parametrize(
    ("method", "query", "body", "answer", "words"),
    [
        ("GET", "limit=many", None, "[]", "limit"),
        ("GET", "limit=10", None, "[]", "limit"),
        ("GET", "", None, '[{"weight": 7}]', "'name' is a required property"),
        ("POST", "", {"weight": 7}, "", "'name' is a required property"),
        ("POST", "", {"name": "x", "weight": "7"}, "", "'7' is not of type 'integer'"),
        ("PUT", "", None, "", "put not found"),
    ],
    ids=["no number", "too large", "answer", "body lacks", "body of another type", "method"],
)
def test_wrong_ones_are_found(method: str, query: str, body: Any, answer: str, words: str) -> None:
    (fault,) = faults(method, query, body, answer)[:1]
    assert words in fault
