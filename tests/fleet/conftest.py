"""The fixtures of `stores`, for the tests in this folder."""

from tests.fleet.stores import database_url, engine, postgres_name, red, redis_server, shelf

__all__ = ["database_url", "engine", "postgres_name", "red", "redis_server", "shelf"]
