"""Brings a database to the schema of this version. Safe to run at every start, and by two at once."""

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from nms_workers.store import partitions
from nms_workers.store.engine import make_engine, require_session

_LOCK = text("SELECT pg_advisory_xact_lock(hashtext('nms-workers migrations ' || current_schema()))")


def upgrade(url: str, *, schema: str | None = None) -> tuple[str | None, str]:
    """Migrate to the newest revision and make the partitions of today.

    Returns:
        The revision before (None: an empty database) and the revision now.

    Raises:
        sqlalchemy.exc.OperationalError: the server is not there or does not let us in.
        ConfigError: it is reached through PgBouncer.
    """
    engine = make_engine(url, schema=schema)
    require_session(engine, "to bring the schema up to date")
    try:
        with engine.begin() as connection:
            connection.execute(_LOCK)
            before = _revision(connection)
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            after = _newest()
        partitions.maintain(engine)
    finally:
        engine.dispose()
    return before, after


def status(url: str, *, schema: str | None = None) -> tuple[str | None, str]:
    """The revision of the database (None: it is empty) and the newest one we know."""
    engine = make_engine(url, schema=schema)
    try:
        with engine.connect() as connection:
            return _revision(connection), _newest()
    finally:
        engine.dispose()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "nms_workers.store:migrations")
    config.set_main_option("path_separator", "os")
    return config


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _newest() -> str:
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        raise RuntimeError("the package holds no migrations: it is not installed completely")
    return head
