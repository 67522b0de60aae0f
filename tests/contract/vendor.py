"""Vendors' own descriptions of their APIs, for checks only: read from `NMS_SPECS_DIR`, never part of the project."""

import json
import os
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from openapi_core import Config, OpenAPI
from openapi_core.contrib.werkzeug import WerkzeugOpenAPIRequest, WerkzeugOpenAPIResponse
from openapi_core.exceptions import OpenAPIError
from werkzeug.wrappers import Request, Response

SPECS = Path(os.environ.get("NMS_SPECS_DIR") or Path(__file__).parents[3] / "shared" / "specs")


class Contract:
    """What a vendor says of its API.

    Args:
        description: an OpenAPI 3 document as a mapping; its own list of servers does not matter.
        base: where its paths begin at the server: `/api`.
    """

    def __init__(self, description: Mapping[str, Any], base: str = "") -> None:
        self._openapi = OpenAPI.from_dict(
            {**description, "servers": [{"url": base or "/"}]}, config=Config(spec_validator_cls=None)
        )

    def faults(self, request: Request, response: Response | None) -> list[str]:
        """What is wrong with a request, and with its answer when that is a good one; empty: nothing."""
        asked = WerkzeugOpenAPIRequest(request)
        where = f"{request.method} {request.full_path.rstrip('?')}"
        found = [f"{where}: {_words(exc)}" for exc in _errors(lambda: self._openapi.validate_request(asked))]
        if response is not None and response.status_code < 300:
            got = WerkzeugOpenAPIResponse(response)
            said = _errors(lambda: self._openapi.validate_response(asked, got))
            found += [f"answer to {where}: {_words(exc)}" for exc in said]
        return found


def description(file: str) -> dict[str, Any]:
    """A description by its path below the folder; skips the test where the folder is not there."""
    path = SPECS / file
    if not path.exists():
        pytest.skip(f"the vendor's description {file} is not in {SPECS} (NMS_SPECS_DIR)")
    return _read(path)


@cache
def _read(path: Path) -> dict[str, Any]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return dict(json.loads(text))
    return dict(yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)))  # noqa: S506 - both are safe


def _errors(check: Callable[[], object]) -> list[OpenAPIError]:
    try:
        check()
    except OpenAPIError as exc:
        return [exc]
    return []


def _words(exc: BaseException) -> str:
    """The error and what it came from: the last says which field."""
    told = [str(exc)]
    if schema_errors := getattr(exc.__cause__, "schema_errors", None):
        told += [f"{'.'.join(map(str, one.absolute_path))}: {one.message[:300]}" for one in schema_errors]
    elif exc.__cause__ is not None:
        told.append(str(exc.__cause__))
    return "; ".join(told)
