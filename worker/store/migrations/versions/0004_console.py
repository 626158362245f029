"""Browser sessions; effect and tool of a question as columns, to filter the queue by."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "console_session",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("principal", sa.Text, nullable=False),
        sa.Column("key_id", sa.Text),
        sa.Column("via", sa.Text, nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.Column("seen_at", sa.Text, nullable=False),
        sa.Column("expires_at", sa.Text, nullable=False),
        sa.Column("closed_at", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_console_session"),
    )
    op.create_index("ix_console_session_expires_at", "console_session", ["expires_at"])
    op.add_column("approval", sa.Column("effect", sa.Text))
    op.add_column("approval", sa.Column("tool", sa.Text))
    conn = op.get_bind()
    table = sa.table("approval", sa.column("id"), sa.column("request"), sa.column("effect"), sa.column("tool"))
    for key, request in conn.execute(sa.select(table.c.id, table.c.request)).all():
        asked = json.loads(request)
        tool = (asked.get("call") or {}).get("tool")
        conn.execute(sa.update(table).where(table.c.id == key).values(effect=asked.get("effect"), tool=tool))
    for columns in (["deadline", "id"], ["effect", "deadline", "id"]):
        op.create_index(
            f"ix_approval_open_{'_'.join(columns)}", "approval", ["tenant", *columns],
            sqlite_where=sa.text("closed_at IS NULL"), postgresql_where=sa.text("closed_at IS NULL"),
        )
    op.create_index("ix_approval_tenant_tool_requested_at", "approval", ["tenant", "tool", "requested_at"])


def downgrade() -> None:
    for columns in ("tenant_tool_requested_at", "open_effect_deadline_id", "open_deadline_id"):
        op.drop_index(f"ix_approval_{columns}", "approval")
    op.drop_column("approval", "tool")
    op.drop_column("approval", "effect")
    op.drop_table("console_session")
