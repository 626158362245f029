"""API keys may be narrower than the roles of their principal."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("api_key", sa.Column("scopes", sa.Text))
