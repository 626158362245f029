"""What a PostgreSQL role needs to run the product and no more: on the audit log it may insert and read, nothing else.

The tables' owner migrates; the processes connect as the role. Then neither a stolen connection nor a faulty statement
can change a record, or switch off the triggers that refuse it. Emptying bodies is a duty of its own, for another role.
"""

import re
from collections.abc import Sequence

import sqlalchemy as sa

from worker.store.database import Database
from worker.store.tables import metadata

_RIGHTS = {"audit_event": "SELECT, INSERT", "audit_head": "SELECT, UPDATE"}
"""UPDATE on the head is what locks and moves it; a trigger lets it move forward only."""


def statements(role: str, *, retention: bool = False) -> Sequence[str]:
    """The statements, in order. With `retention` the role may empty bodies of records, too.

    Raises ValueError for a name that is no plain identifier."""
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", role):
        raise ValueError(f"{role!r} is not a plain role name: small letters, digits and underscores")
    tables = [
        f'GRANT {_RIGHTS.get(table.name, "SELECT, INSERT, UPDATE, DELETE")} ON "{table.name}" TO {role}'
        for table in metadata.sorted_tables
    ]
    return [
        f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {role}",
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
        f"REVOKE CREATE ON SCHEMA public FROM {role}",
        f"GRANT USAGE ON SCHEMA public TO {role}",
        f"GRANT SELECT ON alembic_version TO {role}",
        *tables,
        *([f"GRANT UPDATE (body) ON audit_event TO {role}"] if retention else []),
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}",
    ]


async def grant(db: Database, role: str, *, retention: bool = False) -> None:
    """Migrate as the owner, and give the role, which exists, its rights. Raises StoreUnavailable, ValueError."""
    if db.dialect != "postgresql":
        raise ValueError("roles are for PostgreSQL: a SQLite file is guarded by its mode and its triggers")
    await db.migrate()
    async with db.begin() as conn:
        for statement in statements(role, retention=retention):
            await conn.execute(sa.text(statement))
