"""PostgreSQL shows a narrowed connection only rows of its tenant, and one that says nothing no row. Holds for the
tables' owner too; a superuser is never bound. The audit log is left out: one chain runs through all tenants."""

from alembic import op

revision = "0007"
down_revision = "0006"

TABLES = ("run", "approval", "api_key", "file", "console_session")
MINE = (
    "current_setting('gatehouse.every_tenant', true) = 'on' OR tenant = current_setting('gatehouse.tenant', true)"
)


def upgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY own_tenant ON {table} USING ({MINE}) WITH CHECK ({MINE})")
