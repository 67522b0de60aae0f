"""A small HTTP gateway beside Suricata, for those who cannot reach its socket and its files. It reads, and no more.

Every answer needs the token (RFC 6750), has a bound, and is given in limited time. A fault of the engine is a status
and a `Problem`: 504 it gave no answer in time, 503 it is not there, 502 it said no or what we cannot use.
"""

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, NamedTuple

import uvicorn
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException as AnyHTTPException
from uvicorn.protocols.http.h11_impl import H11Protocol

from nms_workers import __version__
from nms_workers.errors import ConfigError, Outcome, TargetError
from nms_workers.services.suricata.client import Stats, SuricataClient
from nms_workers.services.suricata.rules import Rule
from nms_workers.services.suricata.search import Alert
from nms_workers.transport.deadline import deadline
from nms_workers.transport.secret import Secret

log = logging.getLogger(__name__)

_SECONDS = 10.0  # for one answer
_AT_ONCE = 32  # connections; more are answered with 503
_SHORTEST = 16  # characters of a token

_STATUS = {Outcome.TIMEOUT: HTTPStatus.GATEWAY_TIMEOUT, Outcome.UNREACHABLE: HTTPStatus.SERVICE_UNAVAILABLE}


@dataclass(frozen=True, slots=True)
class Problem:
    """Why there is no answer, and what to do."""

    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Rules:
    """A part of the rules in the order of the rule files, and how many there are in all."""

    total: int
    rules: list[Rule]


@dataclass(frozen=True, slots=True)
class Health:
    """The engine answers: its version, and seconds since it started."""

    version: str
    uptime: int


class Certificate(NamedTuple):
    """PEM files of the gateway's own certificate (with its chain) and key."""

    cert: Path
    key: Path


def application(client: SuricataClient, token: Secret) -> FastAPI:
    """The gateway of one engine, as ASGI.

    Args:
        client: reads the engine.
        token: what each request must bring; read anew each time.

    Raises:
        ConfigError: the token cannot be read, or is too easy to guess.
    """
    _revealed(token)
    app = FastAPI(title="Suricata gateway", version=__version__, docs_url=None, redoc_url=None)
    app.include_router(_routes(client), dependencies=[Depends(_guard(token))])
    app.middleware("http")(_told)
    app.add_exception_handler(AnyHTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _not_asked_well)
    return app


def server(app: FastAPI, certificate: Certificate | None) -> uvicorn.Server:
    """What serves it: `run(sockets=[...])`, until SIGTERM or SIGINT; who is being answered then still is.

    Args:
        app: the gateway.
        certificate: for HTTPS; None: HTTP.
    """
    config = uvicorn.Config(
        app,
        http=_Hurried,
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_AT_ONCE,
        timeout_graceful_shutdown=round(_SECONDS) + 2,
        ssl_certfile=certificate and certificate.cert,
        ssl_keyfile=certificate and certificate.key,
    )
    return uvicorn.Server(config)


class _Hurried(H11Protocol):
    """Hangs up on who connects and then asks nothing: they would keep others out."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.loop.call_later(_SECONDS, self._hang_up)

    def _hang_up(self) -> None:
        if self.cycle is None:
            self.transport.close()


def _routes(client: SuricataClient) -> APIRouter:
    faults = (401, 422, 502, 503, 504)
    router = APIRouter(responses={status: {"model": Problem} for status in faults})

    @router.get("/eve/alerts")
    def alerts(
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        severity: Annotated[
            int | None, Query(ge=1, le=255, description="At least as severe; 1 is the highest.")
        ] = None,
    ) -> list[Alert]:
        """The newest alerts, newest first."""
        with deadline(_SECONDS):
            return client.get_alerts(limit, severity)

    @router.get("/rules")
    def rules(
        limit: Annotated[int, Query(ge=1, le=5000)] = 1000, offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0
    ) -> Rules:
        """Rules of the rule files, those switched off as well."""
        with deadline(_SECONDS):
            found = client.get_rules()
        return Rules(len(found), found[offset : offset + limit])

    @router.get("/stats")
    def stats() -> Stats:
        """What the engine has counted since it started."""
        with deadline(_SECONDS):
            return client.get_stats()

    @router.get("/health")
    def health() -> Health:
        """Whether the engine answers."""
        with deadline(_SECONDS):
            return Health(client.ask("version", str), client.ask("uptime", int))

    return router


def _guard(token: Secret) -> Callable[..., None]:
    bearer = HTTPBearer(auto_error=False)

    def check(given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> None:
        wanted = _revealed(token)
        if given is None or not hmac.compare_digest(given.credentials.encode(), wanted.encode()):
            headers = {"WWW-Authenticate": "Bearer"}
            raise HTTPException(HTTPStatus.UNAUTHORIZED, "send the gateway's token: Authorization: Bearer ...", headers)

    return check


def _revealed(token: Secret) -> str:
    text = token.reveal()
    if len(text) < _SHORTEST or not (text.isascii() and text.isprintable()) or " " in text:
        why = f"the token of the gateway, {token}, is not {_SHORTEST} or more printable characters without a space"
        raise ConfigError(why, hint="make one with: openssl rand -hex 32")
    return text


async def _told(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
    """Every fault is told as a status, a message and a hint: none ends as a traceback, here or there."""
    try:
        response = await answer(request)
    except TargetError as exc:
        return _problem(_STATUS.get(exc.outcome, HTTPStatus.BAD_GATEWAY), exc.message, exc.hint)
    except ConfigError as exc:  # its words are for who runs the gateway
        log.error("%s: %s", request.url.path, exc)  # noqa: TRY400 - no traceback
        return _problem(HTTPStatus.SERVICE_UNAVAILABLE, "the gateway is not set up well", "see what it has written")
    except Exception as exc:  # noqa: BLE001 - the last line: whatever it is costs this answer only
        log.error("%s: a fault of ours: %s", request.url.path, type(exc).__name__)  # noqa: TRY400 - no traceback
        return _problem(HTTPStatus.INTERNAL_SERVER_ERROR, "this is a fault of ours", "see what the gateway has written")
    response.headers["Cache-Control"] = "no-store"
    return response


async def _refused(_: Request, exc: Exception) -> Response:
    assert isinstance(exc, AnyHTTPException)  # noqa: S101 - what it is registered for
    return _problem(exc.status_code, exc.detail, "", exc.headers)


async def _not_asked_well(_: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError)  # noqa: S101 - what it is registered for
    faults = "; ".join(f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in exc.errors())
    return _problem(HTTPStatus.UNPROCESSABLE_ENTITY, faults, "see /openapi.json")


def _problem(status: int, message: str, hint: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"message": message, "hint": hint}, status, {**(headers or {}), "Cache-Control": "no-store"})
