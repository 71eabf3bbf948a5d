"""What Alembic runs for every command: on the connection and the metadata it was handed, and nothing else.

`services.kit.records.migrations` holds the lock and the transaction; there is no `alembic.ini` to run this by hand.
"""

from alembic import context

_given = context.config.attributes

context.configure(
    connection=_given["connection"],
    target_metadata=_given.get("metadata"),
    render_item=_given.get("render_item"),
    render_as_batch=_given["connection"].dialect.name == "sqlite",
    transactional_ddl=False,  # the transaction is the caller's
)
context.run_migrations()
