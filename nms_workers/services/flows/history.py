"""The history as this service reads it: read-only, with a time limit, and errors told as our endings."""

from collections.abc import Mapping
from typing import Any

import psycopg
from sqlalchemy import Engine, TextClause, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from nms_workers.errors import AuthError, Refused, TargetError, Timeout, Unreachable
from nms_workers.services.flows.target import FlowsTarget
from nms_workers.store.engine import make_engine
from nms_workers.transport.deadline import remaining

Row = Mapping[str, Any]

_MISSING = (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn, psycopg.errors.InvalidSchemaName)


class History:
    """Connections to the PostgreSQL that has the flows; made when they are needed.

    Every method raises:
        Unreachable, Timeout, AuthError, Refused: as PostgreSQL says.
        ConfigError: there is no URL, or none that can be read.
    """

    def __init__(self, target: FlowsTarget) -> None:
        self._target = target
        self._engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        """For the reads of `store`."""
        if self._engine is None:
            self._engine = make_engine(self._url())
        return self._engine

    def rows(self, query: TextClause, **parameters: object) -> list[Row]:
        """What a query finds."""
        limit = remaining(self._target.statement_timeout)
        try:
            with self.engine.connect() as connection:
                connection.execute(text("SET TRANSACTION READ ONLY"))
                setting = text("SELECT set_config('statement_timeout', :limit, true)")
                connection.execute(setting, {"limit": f"{max(1, int(limit * 1000))}ms"})
                return [dict(row) for row in connection.execute(query, parameters).mappings()]
        except SQLAlchemyError as exc:
            raise ending(exc) from None

    def close(self) -> None:
        """Let go of the connections."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.dispose()

    def _url(self) -> str:
        if self._target.url is not None:
            return self._target.url.reveal()
        # The flows are in the fleet's own history, and only its settings know where that is.
        from nms_workers.settings import Settings, config_path  # noqa: PLC0415 - they import the services

        return Settings.load(config_path()).database_url()


def ending(exc: SQLAlchemyError) -> TargetError:
    """The ending that an error of the database stands for. Its own words may hold a URL: they are left out."""
    cause = exc.orig if isinstance(exc, DBAPIError) else exc
    name = type(cause).__name__
    if isinstance(cause, psycopg.errors.QueryCanceled):
        return Timeout("the history did not answer in time", hint="raise statement_timeout, or ask for less")
    if isinstance(cause, _MISSING):
        return Refused(f"the history has no flows ({name})", hint="run: nms-workers db upgrade")
    if isinstance(cause, psycopg.errors.InsufficientPrivilege):
        return Refused("the history may not be read", hint="grant SELECT on its tables and views to the role of url")
    if any(word in str(cause) for word in ("password", "pg_hba")):
        return AuthError("the history does not let us in", hint="check the role and the password of url")
    return Unreachable(f"the history cannot be read: {name}", hint="is PostgreSQL running, and is url right?")
