"""Actions as durable jobs: the row in PostgreSQL is the job; a message only says that there is one."""
