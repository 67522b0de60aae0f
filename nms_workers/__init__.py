"""A Celery worker fleet that polls, stores and acts on a whole network-management stack."""

__version__ = "0.1.0"
