"""Alembic's entry: runs the migrations on the connection that `worker.store.migration` hands over."""

from alembic import context
from sqlalchemy.engine import Connection

from worker.store.tables import metadata

connection: Connection = context.config.attributes["connection"]
# No batch mode: a SQLite table is rebuilt by hand in the migration that needs it, where its triggers can be seen.
context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=False)
context.run_migrations()
