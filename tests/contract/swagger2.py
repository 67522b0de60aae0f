"""Descriptions in Swagger 2.0, as OpenAPI 3.0 writes the same."""

from collections.abc import Mapping
from typing import Any

_OF_A_PARAMETER = ("name", "in", "required", "description")
_VERBS = ("get", "put", "post", "delete", "patch", "head", "options")
_JSON = "application/json"


def as_openapi3(swagger: Mapping[str, Any]) -> dict[str, Any]:
    """The same description. Bodies are JSON, which is all that ours speak; `security` is left out."""
    schemas = {name: _schema(one) for name, one in swagger.get("definitions", {}).items()}
    return {
        "openapi": "3.0.3",
        "info": swagger["info"],
        "components": {"schemas": schemas},
        "paths": {path: _path(swagger, item) for path, item in swagger["paths"].items()},
    }


def _path(swagger: Mapping[str, Any], item: Mapping[str, Any]) -> dict[str, Any]:
    common = item.get("parameters", [])
    return {verb: _operation(swagger, item[verb], common) for verb in _VERBS if verb in item}


def _operation(swagger: Mapping[str, Any], operation: Mapping[str, Any], common: list[Any]) -> dict[str, Any]:
    parameters = [_resolved(swagger, one) for one in (*common, *operation.get("parameters", []))]
    made: dict[str, Any] = {
        "parameters": [_parameter(one) for one in parameters if one["in"] != "body"],
        "responses": {code: _response(_resolved(swagger, one)) for code, one in operation["responses"].items()},
    }
    for body in (one for one in parameters if one["in"] == "body"):
        content = {_JSON: {"schema": _schema(body["schema"])}}
        made["requestBody"] = {"required": body.get("required", False), "content": content}
    return made


def _parameter(one: Mapping[str, Any]) -> dict[str, Any]:
    schema = {name: value for name, value in one.items() if name not in _OF_A_PARAMETER}
    return {name: one[name] for name in _OF_A_PARAMETER if name in one} | {"schema": _schema(schema)}


def _response(one: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {"description": one.get("description", "")}
    if "schema" in one:
        made["content"] = {_JSON: {"schema": _schema(one["schema"])}}
    return made


def _resolved(swagger: Mapping[str, Any], one: Mapping[str, Any]) -> Mapping[str, Any]:
    """A parameter or response, where only a reference to it stands."""
    if "$ref" not in one:
        return one
    _, place, name = one["$ref"].split("/")
    found: Mapping[str, Any] = swagger[place][name]
    return found


def _schema(one: Any) -> Any:
    if isinstance(one, list):
        return [_schema(part) for part in one]
    if not isinstance(one, Mapping):
        return one
    made = {name: _schema(value) for name, value in one.items()}
    if isinstance(reference := made.get("$ref"), str):
        made["$ref"] = reference.replace("#/definitions/", "#/components/schemas/", 1)
    if made.pop("x-nullable", False) is True:
        made["nullable"] = True
    if "allOf" in made and made.get("additionalProperties") is False:
        del made["additionalProperties"]  # meant of all parts together; each part alone would allow nothing
    return made
