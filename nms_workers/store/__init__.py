"""What was read, kept: a durable spool, the history in PostgreSQL, the latest state in Redis."""
