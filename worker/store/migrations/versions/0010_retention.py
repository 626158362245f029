"""Legal holds; and retention may empty the body of an audit record, which the triggers let through and nothing else."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

MINE = (
    "current_setting('gatehouse.every_tenant', true) = 'on' OR tenant = current_setting('gatehouse.tenant', true)"
)
COLUMNS = (
    "seq", "event_id", "ts", "tenant", "run_id", "run_seq", "type", "actor", "leaf_hash", "chain_hash",
)  # fmt: skip


def upgrade() -> None:
    op.create_table(
        "legal_hold",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("run_id", sa.Text),
        sa.Column("since", sa.Text),
        sa.Column("until", sa.Text),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("placed_by", sa.Text, nullable=False),
        sa.Column("placed_at", sa.Text, nullable=False),
        sa.Column("lifted_by", sa.Text),
        sa.Column("lifted_at", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_legal_hold"),
    )
    if op.get_bind().dialect.name == "sqlite":
        same = " AND ".join(f"NEW.{name} IS OLD.{name}" for name in COLUMNS)
        op.execute("DROP TRIGGER audit_event_no_update")
        op.execute(
            f"CREATE TRIGGER audit_event_no_update BEFORE UPDATE ON audit_event "
            f"WHEN NOT (NEW.body = x'6e756c6c' AND typeof(NEW.body) = 'blob' AND {same}) "
            f"BEGIN SELECT RAISE(ABORT, 'audit records are append-only'); END"
        )
        return
    same = " AND ".join(f"NEW.{name} IS NOT DISTINCT FROM OLD.{name}" for name in COLUMNS)
    op.execute("DROP TRIGGER audit_event_append_only ON audit_event")
    op.execute(
        "CREATE TRIGGER audit_event_append_only BEFORE DELETE OR TRUNCATE ON audit_event "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()"
    )
    op.execute(
        f"CREATE TRIGGER audit_event_only_emptied BEFORE UPDATE ON audit_event FOR EACH ROW "
        f"WHEN (NOT (NEW.body = '\\x6e756c6c'::bytea AND {same})) EXECUTE FUNCTION audit_refuse()"
    )
    op.execute("ALTER TABLE legal_hold ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE legal_hold FORCE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY own_tenant ON legal_hold USING ({MINE}) WITH CHECK ({MINE})")
