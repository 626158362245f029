"""Policies in the store: versions by digest, which came into force when, proposals."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "policy_version",
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("version", name="pk_policy_version"),
    )
    op.create_table(
        "policy_change",
        sa.Column("seq", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("proposal_id", sa.Text),
        sa.Column("changed_by", sa.Text, nullable=False),
        sa.Column("changed_at", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_policy_change"),
    )
    op.create_table(
        "policy_proposal",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("base_seq", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("proposed_by", sa.Text, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("diff", sa.Text, nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.Column("closed_by", sa.Text),
        sa.Column("closed_at", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_policy_proposal"),
    )
    op.create_index("ix_policy_proposal_created_at_id", "policy_proposal", ["created_at", "id"])


def downgrade() -> None:
    for table in ("policy_proposal", "policy_change", "policy_version"):
        op.drop_table(table)
