"""The way to the database: SQLAlchemy's pool over psycopg 3, with a time limit on everything."""

from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError

from nms_workers.errors import ConfigError

CONNECT_SECONDS = 5
STATEMENT_SECONDS = 30
SILENCE_SECONDS = 15


def make_engine(url: str, *, pool_size: int = 2, schema: str | None = None) -> Engine:
    """A pool of connections to the PostgreSQL at `url`; nothing is connected yet.

    Args:
        url: `postgresql://user:password@host:port/database`, libpq's parameters after `?`.
        pool_size: connections kept; as many again may be opened for a moment.
        schema: the only schema to work in; None: what the server's `search_path` says.

    Raises:
        ConfigError: the URL is none of PostgreSQL's. The message does not repeat it: it may hold a password.
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
    given = parsed.query.get("options", "")
    options = [given if isinstance(given, str) else " ".join(given), "-c timezone=UTC"]
    options.append(f"-c statement_timeout={STATEMENT_SECONDS * 1000}")
    if schema is not None:
        options.append(f"-c search_path={schema}")
    return create_engine(
        parsed.set(drivername="postgresql+psycopg").difference_update_query(["options"]),
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=True,
        pool_timeout=CONNECT_SECONDS,
        hide_parameters=True,
        connect_args={
            "application_name": "nms-workers",
            "connect_timeout": CONNECT_SECONDS,
            "tcp_user_timeout": SILENCE_SECONDS * 1000,
            "keepalives_idle": SILENCE_SECONDS,
            "options": " ".join(options).strip(),
        },
    )
