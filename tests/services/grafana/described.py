"""The vendor's description of Grafana 9.3.2, put right where the server never was as described."""

import copy
from functools import cache

from tests.contract.vendor import Contract, description

DESCRIPTION = "grafana/openapi3-9.3.2.json"


@cache
def described() -> Contract:
    """What requests and answers are checked against; skips the test where it is not there."""
    found = copy.deepcopy(description(DESCRIPTION))
    found.pop("security", None)  # told by `refuse`, in the server's own words
    # those paths begin with /api twice, since the base is /api too
    found["paths"] = {path.removeprefix("/api"): methods for path, methods in found["paths"].items()}
    # a duration is text there: "5m"
    found["components"]["schemas"]["ProvisionedAlertRule"]["properties"]["for"] = {"type": "string"}
    saved = found["components"]["responses"]["postDashboardResponse"]["content"]["application/json"]["schema"]
    saved["properties"]["id"] = {"type": "integer"}
    saved["required"].remove("title")  # it is called slug
    gone = found["components"]["responses"]["deleteDashboardResponse"]["content"]["application/json"]["schema"]
    gone["required"].remove("id")  # 13 has no numbers
    return Contract(found, "/api")
