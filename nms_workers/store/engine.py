"""The way to the database: SQLAlchemy's pool over psycopg 3, with a time limit on everything."""

from typing import Any

import psycopg
from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

from nms_workers.errors import ConfigError

CONNECT_SECONDS = 5
STATEMENT_SECONDS = 30
SILENCE_SECONDS = 15

_PGBOUNCER = "pgbouncer"  # a parameter of the URL, and the mark of an engine that was made with it


def make_engine(url: str, *, pool_size: int = 2, schema: str | None = None) -> Engine:
    """A pool of connections to the PostgreSQL at `url`; nothing is connected yet.

    Args:
        url: `postgresql://user:password@host:port/database`, libpq's parameters after `?`. `pgbouncer=true` says that
            PgBouncer pools there by transaction: then no statement is prepared, and the time zone and the limit of a
            statement, which PgBouncer would not pass on, are the role's (`docs/operations.md`).
        pool_size: connections kept; as many again may be opened for a moment.
        schema: the only schema to work in; None: what the server's `search_path` says.

    Raises:
        ConfigError: the URL is none of PostgreSQL's, or a schema is asked for through PgBouncer. The message does not
            repeat the URL: it may hold a password.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigError("the database URL cannot be read", hint="postgresql://user@host:5432/database") from None
    if parsed.get_backend_name() not in ("postgresql", "postgres"):
        raise ConfigError(
            f"the history is kept in PostgreSQL, not in {parsed.get_backend_name()}",
            hint="postgresql://user@host:5432/database",
        )
    pooled = parsed.query.get(_PGBOUNCER) == "true"
    if pooled and schema is not None:
        raise ConfigError("a schema cannot be chosen through PgBouncer", hint="ALTER ROLE ... SET search_path")
    engine = create_engine(
        parsed.set(drivername="postgresql+psycopg").difference_update_query(["options", _PGBOUNCER]),
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=True,
        pool_timeout=CONNECT_SECONDS,
        hide_parameters=True,
        execution_options={_PGBOUNCER: pooled},
        connect_args={
            "application_name": "nms-workers",
            "connect_timeout": CONNECT_SECONDS,
            "tcp_user_timeout": SILENCE_SECONDS * 1000,
            "keepalives_idle": SILENCE_SECONDS,
            **(
                {"prepare_threshold": None}
                if pooled
                else {"options": _options(parsed.query.get("options", ""), schema)}
            ),
        },
    )
    if pooled:
        event.listen(engine, "connect", _check_role)
    return engine


def require_session(engine: Engine, what: str) -> None:
    """Refuse to do `what`, which holds something beyond the end of a transaction, through PgBouncer.

    Raises:
        ConfigError: the URL of this engine says `pgbouncer=true`.
    """
    if engine.get_execution_options().get(_PGBOUNCER):
        raise ConfigError(
            f"{what} through PgBouncer is not possible: a lock of the session would stay with the pooler",
            hint="give control workers and `nms-workers db upgrade` the URL of PostgreSQL itself",
        )


def _options(given: str | tuple[str, ...], schema: str | None) -> str:
    options = [given if isinstance(given, str) else " ".join(given), "-c timezone=UTC"]
    options.append(f"-c statement_timeout={STATEMENT_SECONDS * 1000}")
    if schema is not None:
        options.append(f"-c search_path={schema}")
    return " ".join(options).strip()


def _check_role(connection: "psycopg.Connection[Any]", _: object) -> None:
    """What `options` would have set must have been set for the role: nobody would notice in time that it is not."""
    query = "SELECT current_setting('TimeZone'), current_setting('statement_timeout')"
    zone, limit = connection.execute(query).fetchone() or ("", "")
    connection.rollback()
    if zone not in ("UTC", "Etc/UTC") or limit == "0":
        raise ConfigError(
            f"through PgBouncer the role {connection.info.user} works in the time zone {zone}, limit {limit}",
            hint="ALTER ROLE ... SET timezone = 'UTC'; ALTER ROLE ... SET statement_timeout = '30s'",
        )
