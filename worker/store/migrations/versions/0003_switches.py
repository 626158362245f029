"""Kill switches: what is stopped, which runs that stops and how far it got; leases of background duties."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "switch",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("running", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("set_by", sa.Text, nullable=False),
        sa.Column("set_at", sa.Text, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("changed_by", sa.Text, nullable=False),
        sa.Column("changed_at", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_switch"),
    )
    op.create_index("ix_switch_state", "switch", ["state"])
    op.create_index("ix_switch_set_at_id", "switch", ["set_at", "id"])
    op.create_table(
        "switch_stop",
        sa.Column("switch_id", sa.Text, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("requested_at", sa.Text, nullable=False),
        sa.Column("asked_at", sa.Text),
        sa.Column("acknowledged_at", sa.Text),
        sa.Column("boxes", sa.Text, nullable=False),
        sa.Column("confirmed_at", sa.Text),
        sa.Column("resumed_at", sa.Text),
        sa.PrimaryKeyConstraint("switch_id", "run_id", name="pk_switch_stop"),
    )
    op.create_index("ix_switch_stop_run_id", "switch_stop", ["run_id"])
    op.create_table(
        "engine_watch",
        sa.Column("engine", sa.Text, nullable=False),
        sa.Column("seen_at", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("engine", name="pk_engine_watch"),
    )
    op.create_table(
        "lease",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("until", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_lease"),
    )


def downgrade() -> None:
    for table in ("lease", "engine_watch", "switch_stop", "switch"):
        op.drop_table(table)
