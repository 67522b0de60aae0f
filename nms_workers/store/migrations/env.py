"""Alembic's entry: runs the migrations on the connection that `upgrade` opened."""

import re

from alembic import context

from nms_workers.store.schema import metadata

_PARTITION = re.compile(r".+_p\d+")


def _ours(name: str | None, kind: str, _parents: object) -> bool:
    return kind != "table" or not _PARTITION.fullmatch(name or "")


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    include_name=_ours,
    compare_server_default=True,
)
with context.begin_transaction():
    context.run_migrations()
