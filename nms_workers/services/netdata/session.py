"""Speaking to one agent: which version of its API it has, and what its refusals mean."""

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, TypeVar

from nms_workers.errors import AuthError, ParseError, Refused, TargetError, Unreachable
from nms_workers.services.netdata.target import NetdataTarget
from nms_workers.transport.http import HttpClient, Response

T = TypeVar("T")
Api: TypeAlias = Literal[1, 3]

_NO_SUCH_API = "Unsupported API version"  # what every agent says of an API that it does not have
_EXPLAINED = (403, 404, 412, 451)

_KEY_HINT = (
    "set api_key to the key in the file netdata.api.key of the agent's lib directory, /var/lib/netdata unless its "
    "netdata.conf names another"
)
_BEARER_HINT = (
    "bearer token protection is on there: set token to a bearer token that Netdata Cloud gave for this agent, or "
    "switch it off ([web] bearer token protection = no in netdata.conf)"
)
_ADDRESS_HINT = (
    "let the worker's address in at the agent ([web] allow dashboard from in netdata.conf, and allow management from "
    "for actions); or, if there is a proxy before it, the credentials lack the permission there"
)


class NotThere(Refused):
    """The agent has no such host, chart or database."""


class Session:
    """Thread-safe. Finds out at the first request which API the agent has, and again when it was away.

    `agent`, `read` and `manage` raise, beside what `HttpClient` does:
        AuthError: 412, a bearer token is asked for; the key of the management API is missing or wrong.
        NotThere: 404.
        Refused: 403, 451: this address may not ask.
        ParseError: what answers is no Netdata.
    """

    def __init__(self, target: NetdataTarget) -> None:
        self._http = HttpClient(target, service="netdata")
        self._manager: HttpClient | None = None  # the key is sent with nothing but commands
        if target.api_key is not None:
            secrets = {**target.secret_headers, "X-Auth-Token": target.api_key}
            self._manager = HttpClient(target.model_copy(update={"secret_headers": secrets}), service="netdata")
        self._known: tuple[Api, str] | None = None

    def close(self) -> None:
        """Let go of connections; the next request begins anew."""
        self._known = None
        for http in filter(None, (self._http, self._manager)):
            http.close()

    def api(self) -> Api:
        """The newest API that we know and the agent has: 3 since 2.0, 1 before."""
        return self._asked()[0]

    def own_guid(self) -> str:
        """The machine GUID of the agent; empty where API 3 does not tell it."""
        return self._asked()[1]

    def agent(self) -> dict[str, Any] | None:
        """What `/api/v3/info` says of the agent, asked anew; None when it has API 1 only."""
        response = self._send(self._http, "/api/v3/info", {})
        if response.status == 404 and _NO_SUCH_API in response.text:
            self._known = 1, ""
            return None
        if response.status in (403, 412, 451):
            raise _explained(response)
        answer = response.json() if response.status != 404 else None
        agents = answer.get("agents") if isinstance(answer, dict) else None
        if not (isinstance(agents, list) and agents and isinstance(agents[0], dict) and "mg" in agents[0]):
            raise ParseError(f"{response.url} is no Netdata agent", hint="check host and port in the url")
        self._known = 3, str(agents[0]["mg"])
        return agents[0]

    def read(self, path: str, shape: type[T], **parameters: str | int) -> T:
        """The JSON at a path, as this shape."""
        response = self._send(self._http, path, parameters)
        if response.status == 404 and _NO_SUCH_API in response.text:
            self._known = None
            message = f"{response.url} is of another version than it was"
            raise Refused(message, hint="the next reading asks it anew which API it has")
        if response.status in _EXPLAINED:
            raise _explained(response)
        return response.json(shape)

    def manage(self, command: str, **parameters: str) -> Response:
        """One command of the health management API."""
        if self._manager is None:
            raise AuthError("the management API asks for its key, and the target has none", hint=_KEY_HINT)
        asked = {"cmd": command, **parameters} if command else parameters
        response = self._send(self._manager, "/api/v1/manage/health", asked)
        if response.status == 403 and "Auth Error" in response.text:
            raise AuthError(f"{response.url} does not accept our key (403)", hint=_KEY_HINT)
        if response.status in _EXPLAINED:
            raise _explained(response)
        return response

    def _asked(self) -> tuple[Api, str]:
        if (known := self._known) is not None:
            return known
        agent = self.agent()
        return (1, "") if agent is None else (3, str(agent["mg"]))

    def _send(self, http: HttpClient, path: str, parameters: Mapping[str, str | int]) -> Response:
        try:
            return http.get(path, params=parameters, expect=_EXPLAINED)
        except Unreachable:
            self._known = None  # it may come back as another version
            raise


def _explained(response: Response) -> TargetError:
    said = f"GET {response.url} was answered with {response.status}"
    if response.status == 412:
        return AuthError(f"{said}: a bearer token is needed", hint=_BEARER_HINT)
    if response.status in (403, 451):
        return Refused(f"{said}: we may not ask", hint=_ADDRESS_HINT)
    return NotThere(f"{said}: the agent has no such host, chart or database")
