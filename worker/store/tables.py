"""Every table of the store, as SQLAlchemy Core. The migrations create them; a test compares the two.

Types are few and the same on both databases: text, integers, bytes. Times are `UtcTime`; JSON is text written by
`canonical_json`. Nothing is compared or computed by the database that the two databases could see differently.
"""

import sqlalchemy as sa

from worker.store.times import UtcTime

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite counts rows by itself only for the exact type INTEGER; it holds 64 bits there all the same.
_BigInt = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

audit_event = sa.Table(
    "audit_event",
    metadata,
    sa.Column("seq", _BigInt, primary_key=True, autoincrement=False),
    sa.Column("event_id", sa.Text, nullable=False, unique=True),
    # Text, not UtcTime: the very characters are hashed.
    sa.Column("ts", sa.Text, nullable=False),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text),
    sa.Column("run_seq", sa.Integer),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("leaf_hash", sa.LargeBinary, nullable=False),
    sa.Column("chain_hash", sa.LargeBinary, nullable=False),
    sa.UniqueConstraint("run_id", "run_seq"),
    sa.Index(None, "tenant", "seq"),
)
"""Append-only: triggers refuse DELETE, and UPDATE but for a body that becomes empty (`worker.store.emptying`)."""

audit_head = sa.Table(
    "audit_head",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("seq", _BigInt, nullable=False),
    sa.Column("chain_hash", sa.LargeBinary, nullable=False),
)
"""One row (id 1): the last sequence and chain value. Locking it orders all appends of all processes."""

run = sa.Table(
    "run",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("automation", sa.Text, nullable=False),
    sa.Column("automation_version", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("requester", sa.Text, nullable=False),
    sa.Column("principal", sa.Text, nullable=False),
    sa.Column("phase", sa.Text, nullable=False),
    sa.Column("rung", sa.Text, nullable=False),
    sa.Column("inputs", sa.Text, nullable=False),
    sa.Column("files", sa.Text, nullable=False),
    sa.Column("result", sa.Text),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("updated_at", UtcTime, nullable=False),
    sa.Column("contents_removed_at", UtcTime),
    sa.Index(None, "tenant", "created_at", "id"),
)

# A question is open as long as it was not closed. A literal text: with a bound value SQLite could not use the index.
_STILL_OPEN = sa.text("closed_at IS NULL")

approval = sa.Table(
    "approval",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("run_id", sa.Text, nullable=False, index=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("automation", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("request", sa.Text, nullable=False),
    sa.Column("answer", sa.Text),
    sa.Column("requested_at", UtcTime, nullable=False),
    sa.Column("deadline", UtcTime, nullable=False),
    sa.Column("closed_at", UtcTime),
    sa.Column("effect", sa.Text),
    sa.Column("tool", sa.Text),
    sa.Column("progress", sa.Text),
    sa.Column("digest", sa.Text),
    sa.Index(None, "tenant", "requested_at", "id"),
    sa.Index(None, "tenant", "digest"),
    *(
        sa.Index(
            f"ix_approval_open_{'_'.join(columns)}",
            "tenant",
            *columns,
            sqlite_where=_STILL_OPEN,
            postgresql_where=_STILL_OPEN,
        )
        for columns in (("deadline", "id"), ("effect", "deadline", "id"))
    ),
    sa.Index(None, "tenant", "tool", "requested_at"),
)
"""A list for people; the workflow's state is the truth. `effect` and `tool` are those of `request`, to filter by."""

approval_grant = sa.Table(
    "approval_grant",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("automation", sa.Text, nullable=False),
    sa.Column("tool", sa.Text, nullable=False),
    sa.Column("content", sa.Text, nullable=False),
    sa.Column("used", sa.Integer, nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("revoked_by", sa.Text),
    sa.Column("revoked_at", UtcTime),
    sa.Index(None, "tenant", "created_at", "id"),
    sa.Index(None, "tenant", "automation", "tool"),
)
"""Standing permissions: calls that need not be asked about again. `content` is signed."""

approval_grant_use = sa.Table(
    "approval_grant_use",
    metadata,
    sa.Column("call", sa.Text, primary_key=True),
    sa.Column("grant_id", sa.Text, nullable=False, index=True),
    sa.Column("used_at", UtcTime, nullable=False),
)
"""Which call used up which grant: `<run>/<call>/<digest>`, once whatever is tried again."""

delegation = sa.Table(
    "delegation",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("absent", sa.Text, nullable=False),
    sa.Column("stand_in", sa.Text, nullable=False),
    sa.Column("content", sa.Text, nullable=False),
    sa.Column("until", UtcTime, nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("revoked_by", sa.Text),
    sa.Column("revoked_at", UtcTime),
    sa.Index(None, "tenant", "created_at", "id"),
    sa.Index(None, "tenant", "stand_in"),
)
"""Who answers for whom while they are away. `content` is signed."""

ledger = sa.Table(
    "ledger",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("tool", sa.Text, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("claimed_at", UtcTime, nullable=False),
    sa.Column("result", sa.Text),
    sa.Column("settled_at", UtcTime),
)
"""One row per call that was started or refused: who may run it, and what came of it."""

api_key = sa.Table(
    "api_key",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("principal", sa.Text, nullable=False),
    sa.Column("mac", sa.LargeBinary, nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("expires_at", UtcTime),
    sa.Column("revoked_at", UtcTime),
    sa.Column("last_used_at", UtcTime),
    sa.Column("scopes", sa.Text),  # separated by blanks; NULL: all that its roles allow
    sa.Index(None, "tenant", "created_at", "id"),
)

console_session = sa.Table(
    "console_session",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("principal", sa.Text, nullable=False),
    sa.Column("key_id", sa.Text),
    sa.Column("via", sa.Text, nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("seen_at", UtcTime, nullable=False),
    sa.Column("expires_at", UtcTime, nullable=False),
    sa.Column("closed_at", UtcTime),
    sa.Index(None, "expires_at"),
)
"""Who is signed in with a browser; `id` is the digest of the cookie's token."""

file = sa.Table(
    "file",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("size", _BigInt, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("media_type", sa.Text, nullable=False),
    sa.Column("uploaded_by", sa.Text, nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Index(None, "tenant", "created_at", "id"),
)

idempotency_key = sa.Table(
    "idempotency_key",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("principal", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("resource_id", sa.Text, nullable=False),
    sa.Column("token", sa.Text, nullable=False),
    sa.Column("response", sa.Text),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("busy_until", UtcTime, nullable=False),
    sa.Index(None, "created_at"),
)
"""Answers already given to requests that carried an Idempotency-Key."""

policy_version = sa.Table(
    "policy_version",
    metadata,
    sa.Column("version", sa.Text, primary_key=True),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
)
"""Every policy that was ever proposed or in force, whole: `version` is the SHA-256 of `body`."""

policy_change = sa.Table(
    "policy_change",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("origin", sa.Text, nullable=False),
    sa.Column("proposal_id", sa.Text),
    sa.Column("changed_by", sa.Text, nullable=False),
    sa.Column("changed_at", UtcTime, nullable=False),
)
"""Which policy came into force when, numbered densely; the last row is the one in force."""

policy_proposal = sa.Table(
    "policy_proposal",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("base_seq", sa.Integer, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("proposed_by", sa.Text, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("diff", sa.Text, nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("closed_by", sa.Text),
    sa.Column("closed_at", UtcTime),
    sa.Index(None, "created_at", "id"),
)
"""What somebody wants to be the policy, and what became of it."""

switch = sa.Table(
    "switch",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("scope", sa.Text, nullable=False),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False, index=True),
    sa.Column("running", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("set_by", sa.Text, nullable=False),
    sa.Column("set_at", UtcTime, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("changed_by", sa.Text, nullable=False),
    sa.Column("changed_at", UtcTime, nullable=False),
    sa.Index(None, "set_at", "id"),
)
"""Kill switches and safe modes, released ones included."""

switch_stop = sa.Table(
    "switch_stop",
    metadata,
    sa.Column("switch_id", sa.Text, primary_key=True),
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("requested_at", UtcTime, nullable=False),
    sa.Column("asked_at", UtcTime),
    sa.Column("acknowledged_at", UtcTime),
    sa.Column("boxes", sa.Text, nullable=False),
    sa.Column("confirmed_at", UtcTime),
    sa.Column("resumed_at", UtcTime),
    sa.Index(None, "run_id"),
)
"""One row per run that a switch stops: what was asked of it, and what is known to have happened."""

engine_watch = sa.Table(
    "engine_watch",
    metadata,
    sa.Column("engine", sa.Text, primary_key=True),
    sa.Column("seen_at", UtcTime, nullable=False),
)
"""Docker engines whose containers somebody watches: each has to say that nothing of a stopped run is left there."""

lease = sa.Table(
    "lease",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("until", UtcTime, nullable=False),
)
"""Which of several processes does a background duty now."""

legal_hold = sa.Table(
    "legal_hold",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text),
    sa.Column("since", UtcTime),
    sa.Column("until", UtcTime),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("placed_by", sa.Text, nullable=False),
    sa.Column("placed_at", UtcTime, nullable=False),
    sa.Column("lifted_by", sa.Text),
    sa.Column("lifted_at", UtcTime),
)
"""What retention must leave alone."""

outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("directed_at", UtcTime),
    sa.Index(None, "directed_at", "created_at"),
)
"""What has to be told, written in the transaction of the fact; `directed_at`: when its deliveries were made of it."""

delivery = sa.Table(
    "delivery",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("notice_id", sa.Text, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("channel", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("next_at", UtcTime, nullable=False),
    sa.Column("problem", sa.Text),
    sa.Column("receipt", sa.Text),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("ended_at", UtcTime),
    sa.Index(None, "state", "next_at"),
    sa.Index(None, "tenant", "created_at", "id"),
    sa.Index(None, "notice_id"),
)
"""One notice on its way to one channel, and what became of it."""

spent_token = sa.Table(
    "spent_token",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("approval_id", sa.Text, nullable=False),
    sa.Column("used_by", sa.Text, nullable=False),
    sa.Column("used_at", UtcTime, nullable=False),
    sa.Index(None, "used_at"),
)
"""Tokens of messages (buttons, links) that were used: each counts once."""
