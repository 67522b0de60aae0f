"""Elasticsearch's own description of its API, as a check."""

import io
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from werkzeug.wrappers import Request, Response

from tests.contract.vendor import Contract, description

Json = dict[str, Any]

SPEC = "elasticsearch/elasticsearch-openapi-8.17.json"
_OF_ALL = {"filter_path", "error_trace", "human", "pretty", "format", "h", "s", "full_id"}  # format to s: of every _cat


class Vendor(Contract):
    """Elasticsearch's own description. Media types with a version are checked as the plain ones it names.

    Beside what the description says, a query parameter that it does not name is a fault.
    """

    def __init__(self) -> None:
        told = _repaired(description(SPEC))
        shapes = told["components"]["schemas"]
        for column in shapes["cat.shards:ShardsRecord"]["properties"].values():
            column["nullable"] = True  # what a shard does not have is null
        managed = shapes["ilm.explain_lifecycle:LifecycleExplainManaged"]["properties"]
        managed["managed"] = {"type": "boolean"}  # not text
        self._paths = told["paths"]
        self._shared = told["components"]["parameters"]
        super().__init__(told)

    def faults(self, request: Request, response: Response | None) -> list[str]:
        plain = None
        if response is not None:
            whole = getattr(response, "whole", response.get_data())
            plain = Response(whole, response.status_code, content_type="application/json")
        found = self._unknown(request)
        for at, query in enumerate(_one_by_one(request)):
            environ = dict(request.environ) | {"QUERY_STRING": query, "wsgi.input": io.BytesIO(request.get_data())}
            if request.get_data():
                environ["CONTENT_TYPE"] = "application/json"
            found += super().faults(Request(environ), None if at else plain)
        return found

    def _unknown(self, request: Request) -> list[str]:
        """Query parameters that the description does not name."""
        operation = self._operation(request)
        if operation is None:
            return []  # told already
        named = {self._name(one) for one in operation.get("parameters", ())} | _OF_ALL
        where = f"{request.method} {request.full_path}"
        return [f"{where}: no parameter {name}" for name in request.args if name not in named]

    def _operation(self, request: Request) -> Json | None:
        method = request.method.lower()
        for path in sorted(self._paths, key=lambda one: one.count("{")):
            pattern = re.sub(r"\\\{[^}]*\\\}", "[^/]+", re.escape(path))
            if re.fullmatch(pattern, request.path) and method in self._paths[path]:
                return dict(self._paths[path][method])
        return None

    def _name(self, parameter: Json) -> str:
        if "$ref" in parameter:
            parameter = self._shared[parameter["$ref"].rpartition("/")[2].replace("~1", "/")]
        return str(parameter["name"])


def _repaired(told: Any) -> Any:
    """The description without three faults that it has all over.

    Discriminators that lead nowhere, alternatives that include each other, and `object` where it means anything.
    """
    if isinstance(told, list):
        return [_repaired(one) for one in told]
    if not isinstance(told, dict):
        return told
    made = {name: _repaired(one) for name, one in told.items()}
    if "propertyName" in (made.get("discriminator") or {}):
        del made["discriminator"]
    if isinstance(made.get("oneOf"), list):
        made["anyOf"] = made.pop("oneOf")
    return {} if made.get("type") == "object" and made.keys() <= {"type", "description"} else made


def _one_by_one(request: Request) -> Iterator[str]:
    """The query with one value of each list (`open,hidden`) at a time: the description knows the single values."""
    lists = {name: text.split(",") for name, text in request.args.items()}
    for at in range(max((len(values) for values in lists.values()), default=1)):
        yield urlencode({name: values[min(at, len(values) - 1)] for name, values in lists.items()})
