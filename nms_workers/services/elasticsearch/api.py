"""The official clients, on our transport. Each takes 0.7 s to import: only who speaks to such a cluster does.

Client 9 asks for the answers of version 9, which a server of version 8 refuses to give, so each has its own
(https://www.elastic.co/docs/reference/elasticsearch/clients/python#compatibility).
"""

import importlib
import warnings
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from elastic_transport import ApiResponseMeta, BaseNode, HttpHeaders, NodeConfig, SerializationError
from elastic_transport._node import NodeApiResponse

from nms_workers.errors import ParseError, Refused, TargetError
from nms_workers.services.elasticsearch.failures import EXPLAINED, explained
from nms_workers.transport.http import HttpClient, Response

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

_MODULES = {8: "elasticsearch8", 9: "elasticsearch"}


class Api:
    """The official client of one major version.

    Args:
        http: sends every request: its settings, limits and errors hold.
        major: 8 or 9.
    """

    def __init__(self, http: HttpClient, major: int) -> None:
        self.module: ModuleType = importlib.import_module(_MODULES[major])
        # Printed at every call that is not final yet, such as the list of tasks, which is there since version 2.
        warnings.filterwarnings("ignore", category=self.module.exceptions.GeneralAvailabilityWarning)
        self.helpers: ModuleType = importlib.import_module(f"{_MODULES[major]}.helpers")
        # The two classes have the same methods wherever we call them; types are checked against the newer one.
        self.client: Elasticsearch = self.module.Elasticsearch(
            "http://elasticsearch:9200",  # it wants one; ours knows where
            node_class=_node_class(http),
            meta_header=False,
            max_retries=0,
            retry_on_timeout=False,
            retry_on_status=(),
        )

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What the official client raises, beside what our transport does."""
        return self.module.ApiError, SerializationError

    def meaning(self, exc: Any) -> TargetError:
        """Our error for one of `errors`."""
        if isinstance(exc, self.module.UnsupportedProductError):
            hint = "the url may point at OpenSearch, or at a proxy that drops the header X-Elastic-Product"
            return ParseError("the server does not say that it is Elasticsearch", hint=hint)
        if isinstance(exc, SerializationError) and exc.message.startswith("Unable to serialize"):
            return Refused("what was to be sent cannot be written as JSON", hint="times as text, no objects of Python")
        if isinstance(exc, SerializationError):
            hint = "the answer may have been cut off: look at the target's log and at any proxy in between"
            return ParseError("the answer is no JSON", hint=hint)
        return Refused(f"the cluster answered with {exc.meta.status}: {exc.message:.200}", hint="send less, and later")


def _node_class(http: HttpClient) -> type[BaseNode]:
    """The class of the one node that the official client knows; it makes the object itself, by class."""

    class Node(BaseNode):
        _CLIENT_META_HTTP_CLIENT: ClassVar[tuple[str, str]] = ("rq", "")

        def perform_request(
            self,
            method: str,
            target: str,
            body: bytes | None = None,
            headers: HttpHeaders | None = None,
            request_timeout: Any = None,
        ) -> NodeApiResponse:
            wanted = {name.title(): value for name, value in (headers or {}).items()}
            bulk = target.partition("?")[0].endswith("/_bulk")
            # The official client repeats items and requests of a bulk that are refused for load, so it has to see it.
            expect = EXPLAINED | {429} if bulk else EXPLAINED | ({404} if method == "HEAD" else frozenset())
            response = http.request(method, target, data=body or b"", headers=wanted, expect=expect)
            if response.status in EXPLAINED and not (method == "HEAD" and response.status == 404):
                raise explained(method, response)
            if response.body.lstrip()[:1] == b"<":
                response.json()  # raises what a web page means
            return NodeApiResponse(_meta(self.config, response), response.body)

        def close(self) -> None:
            """Nothing: the connections are not ours."""

    return Node


def _meta(config: NodeConfig, response: Response) -> ApiResponseMeta:
    # Warnings of deprecation would be printed at every poll; they are for those who configure the cluster.
    headers = HttpHeaders({name: text for name, text in response.headers.items() if name.lower() != "warning"})
    return ApiResponseMeta(node=config, duration=0.0, http_version="1.1", status=response.status, headers=headers)
