"""Tokens of messages that were used; notices are found from their deliveries and by age, so that old ones can go."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

MINE = (
    "current_setting('gatehouse.every_tenant', true) = 'on' OR tenant = current_setting('gatehouse.tenant', true)"
)


def upgrade() -> None:
    op.create_table(
        "spent_token",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("approval_id", sa.Text, nullable=False),
        sa.Column("used_by", sa.Text, nullable=False),
        sa.Column("used_at", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_spent_token"),
    )
    op.create_index("ix_spent_token_used_at", "spent_token", ["used_at"])
    op.create_index("ix_delivery_notice_id", "delivery", ["notice_id"])
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE spent_token ENABLE ROW LEVEL SECURITY")
        op.execute("ALTER TABLE spent_token FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY own_tenant ON spent_token USING ({MINE}) WITH CHECK ({MINE})")


def downgrade() -> None:
    op.drop_index("ix_delivery_notice_id", "delivery")
    op.drop_table("spent_token")
