"""Approvals: what happens to a question before its end; standing grants; who answers for whom."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

TENANTS_OWN = ("approval_grant", "delegation")
MINE = (
    "current_setting('gatehouse.every_tenant', true) = 'on' OR tenant = current_setting('gatehouse.tenant', true)"
)


def upgrade() -> None:
    for column in ("progress", "digest"):
        op.add_column("approval", sa.Column(column, sa.Text))
    op.create_index("ix_approval_tenant_digest", "approval", ["tenant", "digest"])
    op.create_table(
        "approval_grant",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("automation", sa.Text, nullable=False),
        sa.Column("tool", sa.Text, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("used", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.Column("revoked_by", sa.Text),
        sa.Column("revoked_at", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_approval_grant"),
    )
    op.create_index("ix_approval_grant_tenant_created_at_id", "approval_grant", ["tenant", "created_at", "id"])
    op.create_index("ix_approval_grant_tenant_automation_tool", "approval_grant", ["tenant", "automation", "tool"])
    op.create_table(
        "approval_grant_use",
        sa.Column("call", sa.Text, nullable=False),
        sa.Column("grant_id", sa.Text, nullable=False),
        sa.Column("used_at", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("call", name="pk_approval_grant_use"),
    )
    op.create_index("ix_approval_grant_use_grant_id", "approval_grant_use", ["grant_id"])
    op.create_table(
        "delegation",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("absent", sa.Text, nullable=False),
        sa.Column("stand_in", sa.Text, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("until", sa.Text, nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.Column("revoked_by", sa.Text),
        sa.Column("revoked_at", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_delegation"),
    )
    op.create_index("ix_delegation_tenant_created_at_id", "delegation", ["tenant", "created_at", "id"])
    op.create_index("ix_delegation_tenant_stand_in", "delegation", ["tenant", "stand_in"])
    if op.get_bind().dialect.name == "postgresql":
        for table in TENANTS_OWN:
            op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
            op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
            op.execute(f"CREATE POLICY own_tenant ON {table} USING ({MINE}) WITH CHECK ({MINE})")


def downgrade() -> None:
    for table in ("delegation", "approval_grant_use", "approval_grant"):
        op.drop_table(table)
    op.drop_index("ix_approval_tenant_digest", "approval")
    for column in ("digest", "progress"):
        op.drop_column("approval", column)
